"""Several tasks learned in three ways: one table, a way a row, a task a column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.evaluation.formatting import count, duration, interval, percent, plain, points, size
from components.evaluation.table import Cell, Column, Table, rows_of

__all__ = ["multitask_table"]


def multitask_table(document: Mapping[str, Any]) -> Table:
    """Tabulate the document of `multitask`: a row for the base, one for each way."""
    tasks = rows_of(document.get("tasks"))
    ways = rows_of(document.get("ways"))
    suites = sorted({row["suite"] for way in ways for row in rows_of(way.get("tax"))})
    columns = (
        Column("way"),
        *(Column(f"{plain(task['task'])}, n = {count(task['n'])}", "number") for task in tasks),
        Column("mean", "number"),
        *(Column(f"tax {suite}", "number") for suite in suites),
        Column("tokens", "number"),
        Column("training", "number"),
        Column("on disk", "number"),
    )
    mean = sum(task["base"] for task in tasks) / len(tasks) if tasks else None
    first: tuple[Cell, ...] = (
        "base, plain prompt", *(_score(task["base"], task) for task in tasks), percent(mean),
        *("–" for _ in suites), "–", "–", "–",
    )  # fmt: skip
    rows = [first]
    for way in ways:
        tax = {row["suite"]: row for row in rows_of(way.get("tax"))}
        rows.append(
            (
                plain(way["way"]),
                *(_score(task["score"], task) for task in rows_of(way["tasks"])),
                percent(way["mean"]),
                *(points(tax[suite]["delta"]) if suite in tax else "–" for suite in suites),
                count(way["tokens"]),
                duration(way["seconds"]),
                size(way["bytes"]),
            )
        )
    title = f"Tasks of {plain(document.get('name'))}, {count(document.get('budget_tokens'))} tokens a way"
    return Table(title, columns, tuple(rows))


def _score(score: float, bounds: Mapping[str, Any]) -> str:
    return f"{percent(score)} ({interval(bounds['low'], bounds['high'])})"
