"""What was advised, as tables: finetuning's settings with their reasons, and the bases compared on the dev rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.evaluation import charts
from components.evaluation.formatting import count, interval, number, percent, plain, points, size, value
from components.evaluation.run_document import section
from components.evaluation.table import Cell, Column, Table, chart_column, percent_tick, rows_of

__all__ = ["bases_table", "delivery_table", "tactics_table"]


def tactics_table(run: Mapping[str, Any]) -> Table:
    """Tabulate finetuning's settings: in use, advised, where the value came from, why, and what speaks against it."""
    rows: list[tuple[Cell, ...]] = [
        (
            plain(row.get("key")),
            value(row.get("value")),
            value(row.get("advised")),
            plain(row.get("source") or ""),
            plain(row.get("reason") or ""),
            plain(row.get("warning") or ""),
        )
        for row in rows_of(section(run, "tactics").get("settings"))
    ]
    return Table(
        "Settings of finetuning",
        (
            Column("setting"),
            Column("in use", "code"),
            Column("advised", "code"),
            Column("source"),
            Column("why", "prose"),
            Column("warning", "prose"),
        ),
        tuple(rows),
    )


def bases_table(run: Mapping[str, Any]) -> Table:
    """Tabulate the bases by size: score and interval of the best prompt, difference from the best base, cost."""
    bases = section(run, "bases")
    found = rows_of(bases.get("bases"))
    scale = charts.scale_for([row.get(key) for row in found for key in ("score", "low", "high")], include=(0.0,))
    rows: list[tuple[Cell, ...]] = []
    for row in found:
        name, span = plain(row.get("base")), interval(row.get("low"), row.get("high"))
        said = f"{name}: {percent(row.get('score'))}, 95 % interval {span}, n = {count(row.get('n'))}"
        bars = [(row.get("score"), "best" if row.get("base") == bases.get("start_with") else "base")]
        strip = charts.bar_strip(scale, bars, description=said, whisker=(row.get("low"), row.get("high")))
        # the interval by which the bases are told apart, not the one of this pair alone
        span_behind = interval(row.get("simultaneous_low"), row.get("simultaneous_high"), signed=True)
        behind = f"{points(row.get('delta'))} ({span_behind})"
        rows.append(
            (
                name,
                strip,
                percent(row.get("score")),
                span,
                plain(row.get("candidate")),
                behind,
                count(row.get("parameters")),
                size(row.get("inference_bytes")),
                number(row.get("tokens_per_second")),
                row.get("fits"),
            )
        )
    n = found[0].get("n") if found else None
    return Table(
        f"Bases on the same {count(n)} dev rows, smallest first",
        (
            Column("base"),
            chart_column("score", scale, percent_tick),
            Column("score", "number"),
            Column("95 % interval", "number"),
            Column("best prompt"),
            Column("points from the best", "number"),
            Column("parameters", "number"),
            Column("memory in 16 bits", "number"),
            Column("tokens/s", "number"),
            Column("fits", "verdict"),
        ),
        tuple(rows),
    )


def delivery_table(document: Mapping[str, Any]) -> Table:
    """Tabulate the ways to deliver several tasks, with memory and storage for each."""
    rows: list[tuple[Cell, ...]] = [
        (
            plain(row.get("name")),
            count(row.get("models")),
            size(row.get("storage_bytes")),
            size(row.get("serving_bytes")),
            row.get("fits"),
            plain(row.get("for")),
            plain(row.get("against")),
        )
        for row in rows_of(document.get("ways"))
    ]
    return Table(
        f"Ways to deliver {count(document.get('tasks'))} tasks on {plain(document.get('base'))}, "
        f"against {size(document.get('budget_bytes'))}",
        (
            Column("way"),
            Column("models", "number"),
            Column("storage", "number"),
            Column("memory to serve all", "number"),
            Column("fits", "verdict"),
            Column("for it", "prose"),
            Column("against it", "prose"),
        ),
        tuple(rows),
    )
