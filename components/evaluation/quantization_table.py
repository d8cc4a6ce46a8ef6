"""Quantized weights beside those that they were made from: score, tax, size and speed in one table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.evaluation.formatting import count, interval, percent, plain, points, size
from components.evaluation.table import Cell, Column, Table, rows_of

__all__ = ["quantization_table"]


def quantization_table(document: Mapping[str, Any]) -> Table:
    """Tabulate the document of `quantize`: a row for the parent, one for each version that is compared with it."""
    versions = rows_of(document.get("rows"))
    suites = sorted({row["suite"] for version in versions for row in rows_of(version.get("tax"))})
    columns = (
        Column("version"),
        Column("weights"),
        Column("score", "number"),
        Column("95 %", "number"),
        Column("against the parent", "number"),
        *(Column(f"tax {suite}", "number") for suite in suites),
        Column("to serve", "number"),
        Column("ms per token", "number"),
    )
    rows: list[tuple[Cell, ...]] = []
    for version in versions:
        tax = {row["suite"]: row for row in rows_of(version.get("tax"))}
        change = version.get("delta")
        between = interval(version.get("delta_low"), version.get("delta_high"), signed=True)
        rows.append(
            (
                plain(version["version"]),
                plain(version["weights"]),
                percent(version["score"]),
                interval(version["low"], version["high"]),
                "–" if change is None else f"{points(change)} ({between})",
                *(points(tax[suite]["delta"]) if suite in tax else "–" for suite in suites),
                size(version["bytes"]),
                f"{1000 * version['seconds_per_token']:.1f}",
            )
        )
    caption = f"Weights of {plain(document.get('name'))}, n = {count(document.get('n'))}"
    return Table(caption, columns, tuple(rows))
