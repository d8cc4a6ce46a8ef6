"""A table of the report as data: a caption, columns, rows. The page, markdown and the terminal each draw it.

Its charts are cells that only the page shows, so all three say the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from markupsafe import Markup

from components.evaluation import charts
from components.evaluation.formatting import points, value

__all__ = ["Cell", "Column", "Table", "chart_column", "percent_tick", "points_tick", "rows_of"]

Kind = Literal["text", "number", "code", "chart", "verdict", "prose"]
Cell = str | Markup | bool | None


@dataclass(frozen=True)
class Column:
    """A heading, how its cells are set, and the words for a verdict's two values."""

    label: str
    kind: Kind = "text"
    head: Markup | None = None
    yes: str = "yes"
    no: str = "no"

    def text(self, cell: Cell) -> str:
        """Render a cell as plain text."""
        if isinstance(cell, bool):
            return self.yes if cell else self.no
        return value(cell)


@dataclass(frozen=True)
class Table:
    """A caption, columns, and rows of cells; the first cell names its row."""

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]


def rows_of(found: object) -> list[Mapping[str, Any]]:
    """Return the mappings in a list of the run document; nothing where there is no list."""
    return [row for row in found if isinstance(row, Mapping)] if isinstance(found, list | tuple) else []


def percent_tick(tick: float) -> str:
    """Label an axis of scores."""
    return f"{tick * 100:g} %"


def points_tick(tick: float) -> str:
    """Label an axis of differences."""
    return points(tick).removesuffix(".0")


def chart_column(label: str, scale: charts.Scale, tick: Callable[[float], str]) -> Column:
    """Return a column of strips that share an axis, drawn in its heading."""
    ends = f"{label}: axis from {tick(scale.low)} to {tick(scale.high)}"
    return Column(label, "chart", charts.axis(scale, tick, description=ends))
