"""The decision's money as tables: what each way costs, when finetuning pays, and what that hangs on (a tornado)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from components.evaluation import charts
from components.evaluation.formatting import ABSENT, count, number, plain, value
from components.evaluation.run_document import section
from components.evaluation.table import Cell, Column, Table, chart_column, rows_of

__all__ = ["break_even_table", "cost_table", "grid_table", "money_tables", "price_lines", "sensitivity_table"]


def money_tables(run: Mapping[str, Any]) -> tuple[Table, ...]:
    """Return all of them in reading order."""
    return cost_table(run), break_even_table(run), sensitivity_table(run), grid_table(run)


def cost_table(run: Mapping[str, Any]) -> Table:
    """Tabulate what a thousand requests and a month cost, prompted with and without the cache, and finetuned."""
    money = section(run, "money")
    rows: list[tuple[Cell, ...]] = [
        (
            plain(row.get("name")),
            number(row.get("input_tokens")),
            number(row.get("cached_tokens")),
            number(row.get("output_tokens")),
            number(row.get("per_1000_requests")),
            number(row.get("per_1000_requests_cached")),
            number(row.get("per_month")),
            number(row.get("per_month_cached")),
        )
        for row in rows_of(money.get("candidates"))
    ]
    tuned, traffic = section(money, "finetuned"), money.get("requests_per_month")
    if tuned and traffic:
        each = number(1000 * tuned["per_month"] / traffic)
        month = number(tuned["per_month"])
        tokens = (number(tuned["input_tokens"]), ABSENT, number(tuned["output_tokens"]))
        rows.append(("finetuned", *tokens, each, each, month, month))
    return Table(
        f"Tokens of a request and cost in {plain(money.get('currency') or '')} at {count(traffic)} requests a month "
        "(finetuned: with hosting and training)",
        (
            Column("way"),
            Column("input", "number"),
            Column("cached", "number"),
            Column("output", "number"),
            Column("1,000 requests", "number"),
            Column("with caching", "number"),
            Column("month", "number"),
            Column("month with caching", "number"),
        ),
        tuple(rows),
    )


def break_even_table(run: Mapping[str, Any]) -> Table:
    """Tabulate from how many requests a month the finetuned model is cheaper than each way of prompting."""
    money = section(run, "money")
    rows: list[tuple[Cell, ...]] = [
        (
            plain(row.get("candidate")),
            "with" if row.get("caching") else "without",
            number(row.get("saving_per_1000_requests")),
            requests_text(row.get("requests_per_month")),
            row.get("pays_at_traffic"),
            _why(row),
        )
        for row in rows_of(money.get("break_even"))
    ]
    return Table(
        "When a finetuned model without examples in its prompt is cheaper (cost alone, whatever the scores)",
        (
            Column("instead of"),
            Column("prompt caching"),
            Column("saved on 1,000 requests", "number"),
            Column("break-even, requests a month", "number"),
            Column(f"at {count(money.get('requests_per_month'))}", "verdict", yes="cheaper", no="dearer"),
            Column("why", "prose"),
        ),
        tuple(rows),
    )


def sensitivity_table(run: Mapping[str, Any]) -> Table:
    """Tabulate how the break-even moves when one input is halved or doubled, the most telling input first."""
    sensitivity = section(section(run, "money"), "sensitivity")
    inputs = rows_of(sensitivity.get("inputs"))
    now = sensitivity.get("now")
    scale = charts.decades_for([now, *(row.get(key) for row in inputs for key in ("half", "double"))])

    def place(requests: object) -> float:
        """Never lies at the right end of the axis, always at the left one."""
        if not isinstance(requests, int):
            return scale.high
        return math.log10(requests) if requests > 0 else scale.low

    rows: list[tuple[Cell, ...]] = []
    widths = {id(row): abs(place(row.get("half")) - place(row.get("double"))) for row in inputs}
    for row in sorted(inputs, key=lambda row: -widths[id(row)]):
        name = plain(row.get("input"))
        half, double = requests_text(row.get("half")), requests_text(row.get("double"))
        ends = sorted((place(row.get("half")), place(row.get("double"))))
        said = f"{name}: break-even {half} when halved, {double} when doubled, {requests_text(now)} as it is"
        strip = charts.range_strip(scale, ends[0], ends[1], place(now) if now is not None else None, description=said)
        rows.append((name, strip, half, double))
    return Table(
        f"What the break-even against {plain(sensitivity.get('candidate') or '')} hangs on, without caching "
        f"(now {requests_text(now)}{', dashed' if now else ''})",
        (
            Column("input"),
            chart_column("requests a month", scale, _decade),
            Column("halved", "number"),
            Column("doubled", "number"),
        ),
        tuple(rows),
    )


def grid_table(run: Mapping[str, Any]) -> Table:
    """Tabulate the break-even over the price of tokens and the tokens that finetuning saves."""
    grid = section(section(section(run, "money"), "sensitivity"), "grid")
    saved = grid.get("tokens_saved") or ()
    prices = grid.get("price_per_million_input_tokens") or ()
    found = grid.get("requests_per_month") or ()
    rows = tuple(
        (number(price), *(requests_text(requests) for requests in line))
        for price, line in zip(prices, found, strict=False)
    )
    columns = tuple(Column(f"{number(round(tokens, 1))} saved", "number") for tokens in saved)
    return Table(
        "Break-even in requests a month, by price of a million input tokens (output in step) and input tokens saved",
        (Column("price"), *columns),
        rows,
    )


def price_lines(run: Mapping[str, Any]) -> list[str]:
    """Say which prices the money rests on, those of the recipe first and then those that nobody set."""
    prices = rows_of(section(run, "money").get("prices"))
    lines = []
    for said, default in (("set", False), ("left at their defaults, to be replaced by your own", True)):
        named = [
            f"{plain(row.get('key')).removeprefix('traffic.')} {value(row.get('value'))}"
            for row in prices
            if (row.get("source") == "default") == default
        ]
        if named:
            lines.append(f"prices and traffic {said}: {', '.join(named)}")
    return lines


def requests_text(requests: object) -> str:
    """Render a break-even: a number, `always` for zero, `never` for none."""
    if requests is None:
        return "never"
    return "always" if requests == 0 else count(requests)


def _why(row: Mapping[str, Any]) -> str:
    if row.get("kind") != "from":
        return plain(row.get("reason") or "")
    machines = row.get("machines")
    return f"on {count(machines)} machines" if machines and machines > 1 else ""


def _decade(tick: float) -> str:
    for power, unit in ((9, "G"), (6, "M"), (3, "k")):
        if tick >= power:
            return f"{10 ** (tick - power):g}{unit}"
    return f"{10**tick:g}"
