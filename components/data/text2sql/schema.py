"""What is known about one database: tables, keys, and the values that its questions ask about.

Written by the `prepare` stage to databases.json, read by the metric, which builds SQLite databases from it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.files import digest_of

__all__ = ["Column", "ForeignKey", "Schema", "Table", "load_schemas", "schema_from_spider"]

# created by SQLite itself for AUTOINCREMENT, listed by mistake among the tables of one Spider schema
SKIPPED_TABLES = frozenset({"sqlite_sequence"})

Value = str | int | float


@dataclass(frozen=True)
class Column:
    """One column: its Spider type (number, text, time, boolean, others) and the values that questions compare it with.

    `nullable` is true where a question asks for NULL.
    """

    name: str
    type: str
    literals: tuple[Value, ...] = ()
    nullable: bool = False


@dataclass(frozen=True)
class Table:
    """One table; `facts` are values that a question expects together in one row, as (column name, value) pairs."""

    name: str
    columns: tuple[Column, ...]
    primary_key: str | None = None
    facts: tuple[tuple[tuple[str, Value], ...], ...] = ()

    def column(self, name: str) -> Column | None:
        """Return the column of this name, letter case apart, or None."""
        return next((c for c in self.columns if c.name.lower() == name.lower()), None)


@dataclass(frozen=True)
class ForeignKey:
    """Values of `table.column` come from `parent_table.parent_column`."""

    table: str
    column: str
    parent_table: str
    parent_column: str


@dataclass(frozen=True)
class Schema:
    """One database; `digest` is the sha256 of its JSON value and keys everything that is built from it."""

    database: str
    tables: tuple[Table, ...]
    foreign_keys: tuple[ForeignKey, ...]
    digest: str = ""

    def table(self, name: str) -> Table | None:
        """Return the table of this name, letter case apart, or None."""
        return next((t for t in self.tables if t.name.lower() == name.lower()), None)

    def render(self) -> str:
        """Return the schema as the model reads it: one `table(column, column)` line a table."""
        return "\n".join(f"{t.name}({', '.join(c.name for c in t.columns)})" for t in self.tables)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON value stored in databases.json."""
        return {
            "tables": [
                {
                    "name": t.name,
                    "primary_key": t.primary_key,
                    "columns": [_column_dict(c) for c in t.columns],
                    "facts": [dict(fact) for fact in t.facts],
                }
                for t in self.tables
            ],
            "foreign_keys": [[f.table, f.column, f.parent_table, f.parent_column] for f in self.foreign_keys],
        }

    @classmethod
    def from_dict(cls, database: str, value: Mapping[str, Any]) -> Schema:
        """Read one entry of databases.json."""
        tables = tuple(
            Table(
                name=t["name"],
                primary_key=t["primary_key"],
                columns=tuple(
                    Column(c["name"], c["type"], tuple(c.get("literals", ())), c.get("nullable", False))
                    for c in t["columns"]
                ),
                facts=tuple(tuple(sorted(fact.items())) for fact in t["facts"]),
            )
            for t in value["tables"]
        )
        foreign_keys = tuple(ForeignKey(*f) for f in value["foreign_keys"])
        return cls(database, tables, foreign_keys, digest_of({"database": database, **value}))


def _column_dict(column: Column) -> dict[str, Any]:
    value: dict[str, Any] = {"name": column.name, "type": column.type}
    if column.literals:
        value["literals"] = list(column.literals)
    if column.nullable:
        value["nullable"] = True
    return value


def schema_from_spider(entry: Mapping[str, Any]) -> Schema:
    """Read one entry of Spider's tables.json, with original table and column names and the declared keys.

    A composite primary key is listed there by its first column only.
    """
    names = entry["table_names_original"]
    columns = entry["column_names_original"]
    primary = set(entry["primary_keys"])
    tables = []
    for index, name in enumerate(names):
        if name.lower() in SKIPPED_TABLES:
            continue
        own = [i for i, (table, _) in enumerate(columns) if table == index]
        key = next((columns[i][1] for i in own if i in primary), None)
        tables.append(Table(name, tuple(Column(columns[i][1], entry["column_types"][i]) for i in own), key))
    kept = {t.name for t in tables}
    foreign_keys: dict[ForeignKey, None] = {}  # a dict keeps the order and drops the duplicates that Spider lists
    for child, parent in entry["foreign_keys"]:
        key = ForeignKey(names[columns[child][0]], columns[child][1], names[columns[parent][0]], columns[parent][1])
        if key.table in kept and key.parent_table in kept:
            foreign_keys[key] = None
    return Schema(entry["db_id"], tuple(tables), tuple(foreign_keys))


def load_schemas(path: Path) -> dict[str, Schema]:
    """Read databases.json, the file that the `prepare` stage writes.

    Raises:
        InputError: The file is missing or not of that form.
    """
    try:
        document = json.loads(path.read_text())
        return {name: Schema.from_dict(name, value) for name, value in document["databases"].items()}
    except FileNotFoundError as error:
        raise InputError(f"no schemas file {path}", next_step="make it with `dvc repro`") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is not a schemas file: {error!r}", next_step="make it anew with `dvc repro`"
        ) from error
