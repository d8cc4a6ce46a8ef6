"""What a run read and did, as tables: data files and suites by digest, steps with their time, the resolved recipe."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from components.evaluation import charts
from components.evaluation.formatting import count, duration, number, plain, short, value
from components.evaluation.run_document import section
from components.evaluation.table import Cell, Column, Table, rows_of

__all__ = ["data_table", "deltas_table", "recipe_table", "steps_table", "suites_table"]


def data_table(run: Mapping[str, Any]) -> Table:
    """Tabulate the data files that the run read, by digest."""
    files = rows_of(section(run, "data").get("files"))
    rows = tuple((plain(f.get("path")), count(f.get("rows")), plain(f.get("sha256") or "–")) for f in files)
    return Table("Data files", (Column("file"), Column("rows", "number"), Column("sha256", "code")), rows)


def suites_table(run: Mapping[str, Any]) -> Table:
    """Tabulate the general suites that the tax was measured on, by digest."""
    suites = rows_of(run.get("tax"))
    rows = tuple((plain(s.get("suite")), count(s.get("n")), plain(s.get("digest") or "–")) for s in suites)
    return Table("Suites", (Column("suite"), Column("rows asked", "number"), Column("sha256", "code")), rows)


def steps_table(run: Mapping[str, Any]) -> Table:
    """Tabulate what each step took, and whether its result was there already."""
    steps = rows_of(run.get("steps"))
    whole = sum(step.get("seconds") or 0 for step in steps) or 1
    rows: list[tuple[Cell, ...]] = []
    start = 0.0
    for step in steps:
        seconds = step.get("seconds") or 0
        said = f"{plain(step.get('name'))}: {duration(seconds)}"
        parts = [(start, "blank"), (max(seconds, whole * 0.003), "cached" if step.get("cached") else "tuned")]
        strip = charts.stacked_bar(parts, whole * 1.003, height=charts.STRIP_HEIGHT, description=said)
        start += seconds
        name, done = plain(step.get("name")), step.get("cached")
        rows.append((name, strip, duration(step.get("seconds")), "cached" if done else "ran", short(step.get("key"))))
    columns = (
        Column("step"),
        Column("when", "chart"),
        Column("took", "number"),
        Column("result"),
        Column("content key", "code"),
    )
    return Table(f"Steps of this run, {duration(run.get('seconds'))} in all", columns, tuple(rows))


def deltas_table(run: Mapping[str, Any]) -> Table:
    """Tabulate what LoRA learned by kind of matrix: norms over the layers, ranks that the deltas use."""
    deltas = section(section(run, "training"), "deltas")
    by_matrix: dict[str, list[Mapping[str, Any]]] = {}
    for matrix in rows_of(deltas.get("matrices")):
        if None in (matrix.get("norm"), matrix.get("effective_rank")):
            continue
        by_matrix.setdefault(plain(matrix.get("matrix")), []).append(matrix)

    def row(name: str, found: list[Mapping[str, Any]]) -> tuple[Cell, ...]:
        norms, ranks = ([float(one[key]) for one in found] for key in ("norm", "effective_rank"))
        largest = max(found, key=lambda one: float(one["norm"]))
        where = "" if largest.get("layer") is None else f" (layer {largest['layer']})"
        return (
            name,
            count(len(found)),
            number(median(norms)),
            f"{number(float(largest['norm']))}{where}",
            f"{number(median(ranks))} of {count(found[0].get('rank'))}",
        )

    columns = (
        Column("matrix"),
        Column("layers", "number"),
        Column("median norm", "number"),
        Column("largest norm", "number"),
        Column("median effective rank", "number"),
    )
    return Table("Learned deltas", columns, tuple(row(name, found) for name, found in sorted(by_matrix.items())))


def recipe_table(run: Mapping[str, Any]) -> Table:
    """Tabulate the resolved recipe, each value with where it came from, and why where it was chosen."""

    def origin(row: Mapping[str, Any]) -> str:
        return value(row.get("source")) + (f": {plain(row['reason'])}" if row.get("reason") else "")

    rows = tuple((plain(r.get("key")), value(r.get("value")), origin(r)) for r in rows_of(run.get("recipe")))
    return Table("Resolved recipe", (Column("key"), Column("value", "code"), Column("source")), rows)
