"""What the run came to, as tables: the task's score by subset, the alignment tax by suite, the gate's checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.evaluation import charts
from components.evaluation.formatting import count, interval, number, percent, plain, points, value
from components.evaluation.run_document import section
from components.evaluation.table import Cell, Column, Table, chart_column, percent_tick, points_tick, rows_of

__all__ = ["allowed_drop", "gate_table", "summaries_table", "task_table", "tax_note", "tax_table"]


def _has(row: Mapping[str, Any], *keys: str) -> bool:
    return all(isinstance(row.get(key), int | float) for key in keys)


def task_table(run: Mapping[str, Any]) -> Table:
    """Tabulate the task's score on held-out rows, base against tuned: those that the gate reads, then the others."""
    task = section(run, "task")
    gated = task.get("subset")
    others = [row for row in rows_of(task.get("subsets")) if row.get("subset") != gated]
    scored = [{**task, "subset": gated or "all"}, *others] if task else []
    ends = [(row["base"] + row[end]) for row in scored for end in ("low", "high") if _has(row, "base", end)]
    scale = charts.scale_for([row.get(key) for row in scored for key in ("base", "tuned")] + ends, include=(0.0,))
    rows: list[tuple[Cell, ...]] = []
    for row in scored:
        span = interval(row.get("low"), row.get("high"), signed=True)
        said = (
            f"{plain(row.get('subset'))}: base {percent(row.get('base'))}, tuned {percent(row.get('tuned'))}, "
            f"difference {points(row.get('delta'))} points, 95 % interval {span}, n = {count(row.get('n'))}"
        )
        shifted = tuple(row["base"] + row[end] if _has(row, "base", end) else None for end in ("low", "high"))
        strip = charts.bar_strip(
            scale,
            [(row.get("base"), "base"), (row.get("tuned"), "tuned")],
            description=said,
            whisker=(shifted[0], shifted[1]),
        )
        scores = (percent(row.get("base")), percent(row.get("tuned")), points(row.get("delta")), span)
        rows.append((plain(row.get("subset")), count(row.get("n")), strip, *scores))
    return Table(
        f"{plain(task.get('metric') or 'score')} on held-out rows, by subset",
        (
            Column("subset"),
            Column("n", "number"),
            chart_column("base and tuned", scale, percent_tick),
            Column("base", "number"),
            Column("tuned", "number"),
            Column("points", "number"),
            Column("95 % interval", "number"),
        ),
        tuple(rows),
    )


def summaries_table(run: Mapping[str, Any]) -> Table:
    """Tabulate what the metric says of all rows together beside its mean, such as macro-F1, base against tuned."""
    found = section(section(run, "task"), "summaries")
    base, tuned = section(found, "base"), section(found, "tuned")
    rows = tuple(
        (plain(name).replace("_", " "), number(base.get(name)), number(tuned.get(name)))
        for name in dict.fromkeys((*base, *tuned))
    )
    return Table(
        "Beside the mean, over the same rows",
        (Column("measure"), Column("base", "number"), Column("tuned", "number")),
        rows,
    )


def tax_note(run: Mapping[str, Any]) -> str | None:
    """Say where a tax is zero by construction and wasn't measured; None where it was."""
    suites = rows_of(run.get("tax"))
    if not suites or not all(row.get("by_construction") for row in suites):
        return None
    return (
        "Zero by construction, not by a second measurement: a head leaves the base's own weights as they are, so that "
        "whatever else is served from the base loses nothing. The endpoint of this version itself answers labels or "
        "numbers and nothing else."
    )


def allowed_drop(run: Mapping[str, Any]) -> float | None:
    """Return how far a suite's interval may reach below zero, as a positive fraction; None where nothing says."""
    stated = [row.get("max_drop") for row in rows_of(run.get("tax"))]
    stated += [row.get("value") for row in rows_of(run.get("recipe")) if str(row.get("key")).endswith("max_suite_drop")]
    checks = rows_of(section(run, "gate").get("checks"))
    stated += [check.get("bound") for check in checks if str(check.get("name")).startswith("suite:")]
    known = [abs(float(drop)) for drop in stated if isinstance(drop, int | float)]
    return known[0] if known else None


def tax_table(run: Mapping[str, Any]) -> Table:
    """Tabulate what the tuned model lost on general suites: a forest plot against zero and the allowed drop."""
    suites, drop = rows_of(run.get("tax")), allowed_drop(run)
    bound = None if drop is None else -drop
    values = [row.get(key) for row in suites for key in ("delta", "low", "high")]
    scale = charts.scale_for(values, include=(0.0,) if bound is None else (0.0, bound))
    rows: list[tuple[Cell, ...]] = []
    for row in suites:
        span = interval(row.get("low"), row.get("high"), signed=True)
        passed = row.get("passed")
        said = (
            f"{plain(row.get('suite'))}: {points(row.get('delta'))} points, 95 % interval {span}, "
            f"n = {count(row.get('n'))}"
        )
        tone = "neutral" if passed is None else "good" if passed else "bad"
        drawn = charts.difference_strip(
            scale, row.get("delta"), row.get("low"), row.get("high"), bound=bound, tone=tone, description=said
        )
        name, metric = plain(row.get("suite")), plain(row.get("metric") or "–")
        scores = (percent(row.get("base")), percent(row.get("tuned")), points(row.get("delta")), span)
        rows.append((name, metric, count(row.get("n")), drawn, *scores, passed))
    allowed = "" if drop is None else f"; allowed drop {points(drop).removeprefix('+')} points"
    return Table(
        f"Alignment tax by suite, base against tuned on the same rows{allowed}",
        (
            Column("suite"),
            Column("metric"),
            Column("n", "number"),
            chart_column("difference (points)", scale, points_tick),
            Column("base", "number"),
            Column("tuned", "number"),
            Column("points", "number"),
            Column("95 % interval", "number"),
            Column("verdict", "verdict", yes="held", no="dropped"),
        ),
        tuple(rows),
    )


def _measured(found: object) -> str:
    # The gate's fractions are all differences of scores; its whole numbers count rows and suites.
    return f"{points(found)} points" if isinstance(found, float) else value(found)


def gate_table(run: Mapping[str, Any]) -> Table:
    """Tabulate each check of the promotion gate with its value and its bound."""
    checks = rows_of(section(run, "gate").get("checks"))
    rows = tuple(
        (
            plain(c.get("name")),
            c.get("passed"),
            _measured(c.get("value")),
            _measured(c.get("bound")),
            plain(c.get("reason") or ""),
        )
        for c in checks
    )
    columns = (
        Column("check"),
        Column("result", "verdict", yes="passed", no="refused"),
        Column("value", "number"),
        Column("bound", "number"),
        Column("reason", "prose"),
    )
    return Table("Checks of the promotion gate", columns, rows)
