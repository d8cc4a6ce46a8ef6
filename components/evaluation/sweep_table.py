"""The trials of a sweep as a table, and what part of their differences each key makes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.evaluation.formatting import count, duration, percent, plain, size
from components.evaluation.table import Cell, Column, Table, rows_of

__all__ = ["importance_table", "sweep_table"]


def sweep_table(document: Mapping[str, Any]) -> Table:
    """Tabulate the document of `sweep`: a row for each trial, in their order."""
    keys = list(document["parameters"])
    columns = (
        Column("trial", "number"),
        Column("state"),
        *(Column(key.removeprefix("finetune.")) for key in keys),
        Column(document["objective"].replace("_", " "), "number"),
        Column("kept step", "number"),
        Column("time", "number"),
        Column("peak memory", "number"),
        Column("why", "prose"),
    )
    best = (document["best"] or {}).get("number")
    rows: list[tuple[Cell, ...]] = []
    for trial in rows_of(document["trials"]):
        last = trial["dev"][-1] if trial["dev"] else None
        # of a trial without a value the last measurement is shown
        shown = trial["value"]
        if shown is None and last is not None:
            shown = last["loss" if document["objective"] == "dev_loss" else "score"]
        rows.append(
            (
                count(trial["number"]),
                f"{trial['state']}{', best' if trial['number'] == best else ''}",
                *(_value(trial["values"], key) for key in keys),
                "–" if shown is None else f"{shown:.4f}",
                count(trial["kept_step"]),
                duration(trial["seconds"]),
                size(trial["peak_bytes"]),
                plain(trial["reason"] or ""),
            )
        )
    return Table("Trials", columns, tuple(rows))


def importance_table(document: Mapping[str, Any]) -> Table:
    """Tabulate the importance of the keys, the most important first."""
    parts = sorted((document["importance"] or {}).items(), key=lambda part: -part[1])
    return Table(
        "Importance for the best tenth of the trials",
        (Column("key"), Column("importance", "number")),
        tuple((key, percent(part)) for key, part in parts),
    )


def _value(values: Mapping[str, Any], key: str) -> str:
    if key not in values:
        return "–"
    value = values[key]
    return f"{value:.4g}" if isinstance(value, float) else plain(value)
