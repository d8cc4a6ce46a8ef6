"""What the verdict rests on, as tables: the rules in order, examples of failures, the learning curve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.evaluation.formatting import count, interval, percent, plain, points
from components.evaluation.run_document import VERDICT_TEXT, section
from components.evaluation.table import Cell, Column, Table, rows_of

__all__ = ["curve_table", "failure_examples_table", "rules_table"]


def rules_table(run: Mapping[str, Any]) -> Table:
    """Tabulate the rules tried, the deciding one last: what each would decide, its evidence, what would change it."""
    rows: list[tuple[Cell, ...]] = []
    for rule in rows_of(section(run, "decision").get("rules")):
        verdict = plain(rule.get("verdict"))
        told = (plain(rule.get("evidence") or "–"), plain(rule.get("would_change") or "–"))
        rows.append((plain(rule.get("name")), VERDICT_TEXT.get(verdict, verdict), bool(rule.get("holds")), *told))
    return Table(
        "The rules in the order tried; the first that holds decides",
        (
            Column("rule", "prose"),
            Column("would decide"),
            Column("holds", "verdict"),
            Column("evidence", "prose"),
            Column("would change with", "prose"),
        ),
        tuple(rows),
    )


def failure_examples_table(run: Mapping[str, Any]) -> Table:
    """Tabulate up to three failures of each kind, with the answer that context gave where there was one."""
    decision = section(run, "decision")
    found = rows_of(decision.get("failure_examples"))
    with_context = any("with_context" in row for row in found)
    rows: list[tuple[Cell, ...]] = []
    for row in found:
        told = [plain(row.get(key)) for key in ("kind", "question", "gold", "answer")]
        rows.append((*told, plain(row.get("with_context") or "–")) if with_context else tuple(told))
    headings = ["question", "gold", "answer", *(["answer with context"] if with_context else [])]
    return Table(
        f"Examples of failures of {plain(decision.get('best_simple') or 'the best candidate')}",
        (Column("lacking"), *(Column(heading, "prose") for heading in headings)),
        tuple(rows),
    )


def curve_table(run: Mapping[str, Any]) -> Table:
    """Tabulate the probe's score by the rows that it was trained on, the gain of a doubling in the caption."""
    curve = section(section(run, "decision"), "learning_curve")
    slope = section(curve, "slope")
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            count(row.get("rows")),
            percent(row.get("fraction")),
            percent(row.get("score")),
            interval(row.get("low"), row.get("high")),
        )
        for row in rows_of(curve.get("points"))
    )
    said = "Probe finetune by training rows"
    if slope:
        span = interval(slope.get("low"), slope.get("high"), signed=True)
        said += f"; a doubling gives {points(slope.get('delta'))} points (95 % interval {span})"
    return Table(
        said,
        (
            Column("training rows", "number"),
            Column("fraction", "number"),
            Column("score", "number"),
            Column("95 % interval", "number"),
        ),
        rows,
    )
