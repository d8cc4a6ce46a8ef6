"""Build an in-memory SQLite database from a schema, filled with seeded random rows that make queries discriminating.

Called by the execution-match metric, which compares results on several such databases (the idea of test suites:
Zhong, Yu, Klein 2020, "Semantic Evaluation for Text-to-SQL with Distilled Test Suites").
"""

from __future__ import annotations

import math
import random
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, field

from components.data.text2sql.schema import Column, ForeignKey, Schema, Table, Value

__all__ = ["build_database", "fill_rows"]

Cell = Value | None

PARENT_ROWS = (14, 24)  # tables that point at no other
CHILD_ROWS = (36, 60)  # several per parent, so that groups of one, two and more appear
CHILDLESS_SHARE = 0.25  # parents without children: NOT IN, EXCEPT and outer joins differ from inner joins
LITERAL_SHARE = 0.5  # rows that hold a value some question asks for; the others must not match it
NULL_SHARE = 0.2  # only in columns that a question tests for NULL

_SYLLABLES = ("ba", "ren", "mo", "li", "tor", "ka", "shi", "vel", "du", "na", "per", "os", "win", "zu", "fa", "gri")


def build_database(schema: Schema, seed: int) -> sqlite3.Connection:
    """Return a filled in-memory database; the same schema and seed give the same rows.

    No keys or constraints are declared, so the contents alone decide what a query returns.

    Args:
        schema: Tables, keys and literal pools.
        seed: Seed of the rows.
    """
    connection = sqlite3.connect(":memory:", check_same_thread=False)
    for table in schema.tables:
        columns = ", ".join(f"{_quoted(c.name)} {'NUMERIC' if c.type == 'number' else 'TEXT'}" for c in table.columns)
        connection.execute(f"CREATE TABLE {_quoted(table.name)} ({columns})")
    for name, rows in fill_rows(schema, seed).items():
        if rows:
            marks = ", ".join("?" * len(rows[0]))
            connection.executemany(f"INSERT INTO {_quoted(name)} VALUES ({marks})", rows)
    connection.commit()
    return connection


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def fill_rows(schema: Schema, seed: int) -> dict[str, list[tuple[Cell, ...]]]:
    """Return the rows of every table, parents first.

    Foreign keys take values of their parent with a skew, a quarter of the parents staying childless. Values that
    questions compare a column with make up about half of it, each at least once; numbers scatter round them.
    """
    state = _Filling(schema, seed)
    for table in _parents_first(schema):
        state.fill(table)
    return {
        table.name: [tuple(row[c.name] for c in table.columns) for row in state.rows[table.name]]
        for table in schema.tables
    }


def _parents_first(schema: Schema) -> list[Table]:
    """Order the tables so that parents come before children; a cycle is cut at its first table."""
    waiting, ordered = list(schema.tables), []
    while waiting:
        names = {t.name for t in waiting}
        blocked = {f.table for f in schema.foreign_keys if f.parent_table in names and f.parent_table != f.table}
        ready = [t for t in waiting if t.name not in blocked] or waiting[:1]
        ordered += ready
        waiting = [t for t in waiting if t not in ready]
    return ordered


@dataclass
class _Filling:
    schema: Schema
    seed: int
    rows: dict[str, list[dict[str, Cell]]] = field(default_factory=dict)

    def fill(self, table: Table) -> None:
        draw = random.Random(f"{self.schema.database}/{table.name}/{self.seed}")
        links = {f.column: f for f in self.schema.foreign_keys if f.table == table.name and f.parent_table in self.rows}
        least, most = CHILD_ROWS if links else PARENT_ROWS
        count = draw.randint(least, most)
        wanted = {c.name: self._wanted(table, c) for c in table.columns}
        key = table.primary_key
        if key and key not in links:  # each value of a key is there once, so its literals need a row each
            count = max(count, len(wanted[key]) + least // 2)
        columns: dict[str, list[Cell]] = {}
        for column in table.columns:
            if column.name in links:
                columns[column.name] = self._foreign(links[column.name], count, draw)
            elif column.name == key:
                columns[column.name] = _distinct(column, wanted[column.name], count, draw)
            else:
                # columns of one name share their words across tables, so that INTERSECT and EXCEPT find some in both
                words = random.Random(f"{self.schema.database}/{column.name.lower()}/words/{self.seed}")
                columns[column.name] = _values(column, wanted[column.name], count, draw, words)
        rows = [{name: values[i] for name, values in columns.items()} for i in range(count)]
        fixed = set(links) | {key}
        facts = (table.facts * 2)[:count]
        for fact, index in zip(facts, draw.sample(range(count), len(facts)), strict=True):
            rows[index].update({name: value for name, value in fact if name not in fixed})
        self.rows[table.name] = rows

    def _wanted(self, table: Table, column: Column) -> tuple[Value, ...]:
        """Return the literals of a column and of the columns that take their values from it."""
        values = list(column.literals)
        for link in self.schema.foreign_keys:
            child = self.schema.table(link.table)
            if child and (link.parent_table, link.parent_column) == (table.name, column.name):
                pointing = child.column(link.column)
                values += [v for v in (pointing.literals if pointing else ()) if v not in values]
        return tuple(_typed(v, column) for v in values)

    def _foreign(self, link: ForeignKey, count: int, draw: random.Random) -> list[Cell]:
        parents = sorted({row[link.parent_column] for row in self.rows[link.parent_table]} - {None}, key=repr)
        wanted = self._literals_of(link)
        draw.shuffle(parents)
        kept = parents[: max(1, math.ceil(len(parents) * (1 - CHILDLESS_SHARE)))]
        kept += [p for p in parents if p in wanted and p not in kept]
        weights = [1 / (1 + rank) ** 0.7 for rank in range(len(kept))]
        asked = [p for p in kept if p in wanted]
        drawn = draw.choices(kept, weights, k=count)
        for index, value in zip(draw.sample(range(count), min(count, 2 * len(asked))), asked * 2, strict=False):
            drawn[index] = value
        return list(drawn)

    def _literals_of(self, link: ForeignKey) -> set[Cell]:
        child = self.schema.table(link.table)
        column = child.column(link.column) if child else None
        return set(column.literals) if column else set()


def _typed(value: Value, column: Column) -> Value:
    """Return a literal as SQLite would store it in the column."""
    if column.type == "number" and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return value
        return int(number) if number.is_integer() else number
    return value if column.type == "number" else str(value)


def _distinct(column: Column, wanted: Sequence[Value], count: int, draw: random.Random) -> list[Cell]:
    """Return `count` different key values, the wanted ones among them, in random order."""
    values: dict[Cell, None] = dict.fromkeys(wanted)
    numeric = column.type == "number"
    while len(values) < count:
        values[draw.randint(1, 9 * count) if numeric else "".join(draw.choices("ABCDEFGHIJKLMNOPRSTUVW", k=3))] = None
    ordered = list(values)
    draw.shuffle(ordered)
    return ordered


def _values(
    column: Column, wanted: Sequence[Value], count: int, draw: random.Random, words: random.Random
) -> list[Cell]:
    """Return `count` values of a column that is no key: wanted ones, their neighbours, and others, with repeats."""
    numbers = [v for v in map(_as_number, wanted) if v is not None]
    numeric = column.type == "number" or (bool(wanted) and len(numbers) == len(wanted)) or _named_like_number(column)
    if numeric:
        pool = _numbers(column, numbers, count, draw)
        others: list[Cell] = [*pool] if column.type == "number" else [str(number) for number in pool]
    elif column.type in ("others", "boolean"):
        others = ["T", "F"]
    elif column.type == "time" or "date" in column.name.lower():
        others = [_moment(draw) for _ in range(math.ceil(count * 0.7))]
    else:
        mostly_different = any(word in column.name.lower() for word in ("name", "title", "id", "address", "phone"))
        others = [_word(words) for _ in range(math.ceil(count * (0.8 if mostly_different else 0.25)))]
    # each wanted value twice where there is room, so that an average differs from a sum; and its neighbours
    surely = [*wanted, *wanted] if 2 * len(wanted) <= count // 2 else [*wanted]
    beside = [_typed(str(int(v) + step), column) for v in numbers if v.is_integer() for step in (-1, 1)]
    placed: list[Cell] = [*surely, *(beside if len(surely) + len(beside) <= count * 3 // 4 else [])]
    drawn = placed[:count]
    draw.shuffle(drawn)
    while len(drawn) < count:
        drawn.append(draw.choice(wanted) if wanted and draw.random() < LITERAL_SHARE else draw.choice(others))
    draw.shuffle(drawn)
    if column.nullable:
        drawn = [None if draw.random() < NULL_SHARE else value for value in drawn]
    return drawn


def _as_number(value: Value) -> float | None:
    try:
        return float(value)
    except ValueError:
        return None


def _named_like_number(column: Column) -> bool:
    words = ("year", "age", "weight", "mpg", "horsepower", "rating", "rank", "share", "version", "viewers")
    return any(word in column.name.lower().split("_") for word in words)


def _numbers(column: Column, near: Sequence[float], count: int, draw: random.Random) -> list[int] | list[float]:
    """Return a pool of numbers: round the wanted ones where there are some, else plausible for the column's name."""
    name = column.name.lower()
    whole = all(v.is_integer() for v in near)
    if near:
        span = max(max(near) - min(near), 0.4 * max(abs(v) for v in near), 8.0)
        low, high = min(near) - span / 2, max(near) + span / 2
        low = max(low, 0.0) if min(near) >= 0 else low
        neighbours = [v + step for v in near for step in (-1, 1)] if whole else []
    else:
        low, high = next((bounds for word, bounds in _RANGES if word in name), (1, 1000))
        neighbours = []
    size = math.ceil(count * 0.7)
    if whole:
        return [int(v) for v in neighbours] + [draw.randint(int(low), int(high)) for _ in range(size)]
    return [round(draw.uniform(low, high), 2) for _ in range(size)]


_RANGES: tuple[tuple[str, tuple[int, int]], ...] = (
    ("year", (1960, 2022)),
    ("age", (15, 80)),
    ("percent", (0, 100)),
    ("rank", (1, 50)),
    ("grade", (5, 12)),
    ("level", (1, 8)),
    ("population", (1000, 900000)),
)


def _word(draw: random.Random) -> str:
    return "".join(draw.choices(_SYLLABLES, k=draw.randint(2, 4))).capitalize()


def _moment(draw: random.Random) -> str:
    date = f"{draw.randint(1990, 2022)}-{draw.randint(1, 12):02d}-{draw.randint(1, 28):02d}"
    return f"{date} {draw.randint(0, 23):02d}:{draw.randint(0, 59):02d}:00"
