"""Methods of finetuning side by side: one table, and a plot of score over what is trained."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import escape

from components.errors import InputError
from components.evaluation.charts import decades_for, scale_for
from components.evaluation.formatting import count, duration, interval, percent, plain, points, size
from components.evaluation.table import Cell, Column, Table, percent_tick, rows_of
from components.files import write_atomic

__all__ = ["check_plot_file", "method_table", "render_plot", "write_plot"]

WIDTH, HEIGHT = 760, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 130, 44, 56
STYLE = (
    "text{font:12px system-ui,sans-serif;fill:#333}.title{font-size:14px}.ground{fill:#fff}.grid{stroke:#ddd}"
    ".base{stroke:#777;stroke-dasharray:5 4}.whisker{stroke:#2563a8;stroke-width:1.5}.dot{fill:#2563a8}"
)


def method_table(document: Mapping[str, Any]) -> Table:
    """Tabulate the document of `compare-methods`: a row for the base, one for each method."""
    tests = {row["suite"] for method in rows_of(document.get("methods")) for row in rows_of(method.get("tax"))}
    suites = sorted(tests)
    columns = (
        Column("method"),
        Column("trained", "number"),
        Column("score", "number"),
        Column("95 %", "number"),
        *(Column(f"tax {suite}", "number") for suite in suites),
        Column("training", "number"),
        Column("peak memory", "number"),
        Column("on disk", "number"),
        Column("added per token", "number"),
    )
    base = document.get("base", {})
    first: tuple[Cell, ...] = (
        "base, plain prompt", "–", percent(base.get("score")), interval(base.get("low"), base.get("high")),
        *("–" for _ in suites), "–", "–", size(base.get("bytes")), "–",
    )  # fmt: skip
    rows = [first]
    for method in rows_of(document.get("methods")):
        if method.get("problem"):
            rows.append((plain(method["name"]), plain(method["problem"]), *("–" for _ in columns[2:])))
            continue
        tax = {row["suite"]: row for row in rows_of(method.get("tax"))}
        rows.append(
            (
                plain(method["name"]),
                f"{count(method['trainable_parameters'])} ({percent(method['trainable_fraction'])})",
                percent(method["score"]),
                interval(method["low"], method["high"]),
                *(points(tax[suite]["delta"]) if suite in tax else "–" for suite in suites),
                duration(method["seconds"]),
                size(method["peak_bytes"]),
                size(method["bytes"]),
                _added(method),
            )
        )
    return Table(f"Methods on {plain(document.get('name'))}, n = {count(document.get('n'))}", columns, tuple(rows))


def _added(method: Mapping[str, Any]) -> str:
    latency = method.get("latency")
    if latency is None:
        return "none: whole weights"
    apart = f"{100 * latency['added_fraction']:+.0f} %"
    return f"none when merged, {apart} apart" if method["merges"] else apart


def check_plot_file(path: Path) -> None:
    """Refuse a file name that isn't that of an SVG.

    Raises:
        InputError: With what is allowed.
    """
    if path.suffix.lower() != ".svg":
        raise InputError(f"{path} is no .svg", allowed="--plot FILE.svg")


def write_plot(document: Mapping[str, Any], path: Path) -> None:
    """Write the plot whole or not at all.

    Raises:
        InputError: Another ending than .svg, or a folder that can't be written.
    """
    check_plot_file(path)
    write_atomic(path, render_plot(document))


def render_plot(document: Mapping[str, Any]) -> str:
    """Draw each method's score with its interval over the number of trained parameters, the base as a line."""
    methods = [method for method in rows_of(document.get("methods")) if not method.get("problem")]
    base = document["base"]
    across = decades_for([method["trainable_parameters"] for method in methods])
    up = scale_for([0.0, base["high"], *(method["high"] for method in methods)])

    def x(parameters: float) -> float:
        return LEFT + across.share(math.log10(parameters)) * (WIDTH - LEFT - RIGHT)

    def y(score: float) -> float:
        return TOP + (1 - up.share(score)) * (HEIGHT - TOP - BOTTOM)

    title = f"{plain(document.get('name'))}: score over trained parameters, n = {count(document.get('n'))}"
    body = [f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>']
    body.append(f'<text class="title" x="{LEFT}" y="22">{escape(title)}</text>')
    for tick in up.ticks:
        body.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        body.append(f'<text x="{LEFT - 8}" y="{y(tick) + 4:.1f}" text-anchor="end">{percent_tick(tick)}</text>')
    for tick in across.ticks:
        place = x(10**tick)
        body.append(f'<line class="grid" x1="{place:.1f}" x2="{place:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        label = f"10<tspan dy='-5' font-size='9'>{tick:g}</tspan>"
        body.append(f'<text x="{place:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{label}</text>')
    body.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 12}" text-anchor="middle">trained parameters</text>'
    )
    level = y(base["score"])
    body.append(f'<line class="base" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>')
    body.append(f'<text x="{WIDTH - RIGHT + 6}" y="{level + 4:.1f}">base {percent(base["score"])}</text>')
    for method in methods:
        place, middle = x(method["trainable_parameters"]), y(method["score"])
        body.append(
            f'<line class="whisker" x1="{place:.1f}" x2="{place:.1f}" y1="{y(method["low"]):.1f}" '
            f'y2="{y(method["high"]):.1f}"/><circle class="dot" cx="{place:.1f}" cy="{middle:.1f}" r="4"/>'
            f'<text x="{place + 7:.1f}" y="{middle - 6:.1f}">{escape(method["name"])}</text>'
        )
    label = escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>{''.join(body)}</svg>\n"
    )
