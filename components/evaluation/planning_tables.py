"""What was decided and planned, as tables: prompting candidates, failures, memory, alternatives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.evaluation import charts
from components.evaluation.formatting import (
    ABSENT,
    count,
    duration,
    interval,
    number,
    percent,
    plain,
    points,
    size,
    value,
)
from components.evaluation.run_document import section
from components.evaluation.table import Cell, Column, Table, chart_column, percent_tick, rows_of

__all__ = ["MEMORY_PARTS", "alternatives_table", "candidates_table", "failures_table", "memory_table"]

MEMORY_PARTS = ("weights", "gradients", "optimizer", "activations", "other")


def candidates_table(run: Mapping[str, Any]) -> Table:
    """Tabulate the candidates on the dev sample: score, interval, gain, sample size, cost of a request."""
    decision = section(run, "decision")
    candidates = rows_of(decision.get("candidates"))
    scale = charts.scale_for([row.get(key) for row in candidates for key in ("score", "low", "high")], include=(0.0,))
    highest = max(candidates, key=lambda row: row.get("score") or 0.0, default={})
    measured = ", ".join(plain(name) for name in decision.get("subsets") or ()) or "all"
    best = decision.get("best_candidate") or highest.get("name")
    rows: list[tuple[Cell, ...]] = []
    for row in candidates:
        name, n = plain(row.get("name")), row.get("n", decision.get("n"))
        span = interval(row.get("low"), row.get("high"))
        said = f"{name}: {percent(row.get('score'))}, 95 % interval {span}, n = {count(n)}"
        bars = [(row.get("score"), "best" if row.get("name") == best else "base")]
        strip = charts.bar_strip(scale, bars, description=said, whisker=(row.get("low"), row.get("high")))
        cost = (number(row.get("tokens_per_request")), duration(row.get("seconds_per_request")))
        gain = ABSENT
        if row.get("delta") is not None:
            paired = interval(row.get("delta_low"), row.get("delta_high"), signed=True)
            gain = f"{points(row['delta'])} ({paired})"
        rows.append((name, measured, strip, percent(row.get("score")), span, count(n), *cost, gain))
    return Table(
        "Candidates on the dev sample",
        (
            Column("candidate"),
            Column("subset"),
            chart_column("score", scale, percent_tick),
            Column("score", "number"),
            Column("95 % interval", "number"),
            Column("n", "number"),
            Column("tokens / request", "number"),
            Column("time / request", "number"),
            Column("points against the best simple prompt", "number"),
        ),
        tuple(rows),
    )


def failures_table(run: Mapping[str, Any]) -> Table:
    """Tabulate what the best candidate's failures lacked: form, facts or capability; counts, or shares if given so."""
    decision = section(run, "decision")
    failures = section(decision, "failures")
    meanings = {
        "form": "the answer's shape is wrong: finetuning teaches form",
        "facts": "the model lacks knowledge: retrieval supplies facts",
        "capability": "the model can't do the task yet: finetuning, or a larger base",
    }
    known = {name: amount for name, amount in failures.items() if isinstance(amount, int | float)}
    whole = max(sum(known.values()), 1e-9)
    as_shares = any(isinstance(amount, float) and amount != int(amount) for amount in known.values())
    rows: list[tuple[Cell, ...]] = []
    for name, amount in known.items():
        shown = percent(amount) if as_shares else count(amount)
        said = f"{name}: {shown} of the failures, {percent(amount / whole)}"
        strip = charts.stacked_bar([(amount, "base")], whole, height=charts.STRIP_HEIGHT, description=said)
        rows.append((plain(name), strip, shown, percent(amount / whole), meanings.get(name, "")))
    return Table(
        f"Failures of the best candidate by what they lacked (n = {count(decision.get('n'))} questions asked)",
        (
            Column("lacking"),
            Column("share of failures", "chart"),
            Column("failures", "number"),
            Column("share", "number"),
            Column("meaning", "prose"),
        ),
        tuple(rows),
    )


def memory_table(run: Mapping[str, Any]) -> Table:
    """Tabulate the predicted peak by what holds it, in bytes and shares."""
    plan = section(run, "plan")
    breakdown = section(plan, "breakdown")
    names = [name for name in MEMORY_PARTS if name in breakdown] + [n for n in breakdown if n not in MEMORY_PARTS]
    whole = sum(breakdown[name] or 0 for name in names) or 1
    rows = tuple((plain(n), size(breakdown[n]), percent((breakdown[n] or 0) / whole)) for n in names)
    columns = (Column("part"), Column("predicted", "number"), Column("share", "number"))
    return Table("Predicted peak memory by what it holds", columns, rows)


def _is_chosen(alternative: Mapping[str, Any], plan: Mapping[str, Any]) -> bool:
    keys = ("method", "micro_batch_size", "gradient_accumulation_steps", "gradient_checkpointing")
    return all(alternative.get(key) == plan.get(key) for key in keys)


def alternatives_table(run: Mapping[str, Any]) -> Table:
    """Tabulate the other ways of training that the plan weighed, and why each lost."""
    plan = section(run, "plan")
    found = rows_of(plan.get("alternatives"))
    budget = plan.get("budget_bytes")
    whole = max([row.get("peak_bytes") or 0 for row in found] + [budget or 0, plan.get("peak_bytes") or 0, 1])
    rows: list[tuple[Cell, ...]] = []
    for row in found:
        peak = row.get("peak_bytes")
        said = f"{plain(row.get('method'))}: predicted peak {size(peak)}, budget {size(budget)}"
        strip = charts.stacked_bar(
            [(peak or 0, "base")], whole, limit=budget, height=charts.STRIP_HEIGHT, description=said
        )
        batch = f"{count(row.get('micro_batch_size'))} × {count(row.get('gradient_accumulation_steps'))}"
        recompute = row.get("gradient_checkpointing")
        rows.append(
            (
                plain(row.get("method")),
                plain(row.get("dtype") or "–"),
                batch,
                value(recompute),
                strip,
                size(peak),
                row.get("fits"),
                plain(row.get("why_not") or ("chosen" if _is_chosen(row, plan) else "–")),
            )
        )
    return Table(
        f"Ways to train, against a budget of {size(budget)}",
        (
            Column("method"),
            Column("dtype"),
            Column("micro-batch × accumulation", "number"),
            Column("checkpointing"),
            Column("peak against budget (dashed)", "chart"),
            Column("peak", "number"),
            Column("fits", "verdict"),
            Column("why it lost", "prose"),
        ),
        tuple(rows),
    )
