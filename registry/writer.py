"""One write transaction as an act sees it: what it reads, and the rows that it leaves.

Both go to the database's driver, past SQLAlchemy, in a tenth of the time: time that all other writers wait. How they
get there is in `sqlite_writing.py` and `postgres_writing.py`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Table

from registry.layout import READABLE_REVISIONS
from registry.lookup import Statement, schema_statement

__all__ = ["Rows", "Writer", "insertion", "next_id"]

Rows = Sequence[Sequence[Any]]
# Whoever writes has brought the registry to the newest schema.
_NEWEST_SCHEMA: dict[Statement, Rows] = {schema_statement(revision): ((1,),) for revision in READABLE_REVISIONS}


class Writer(ABC):
    """What acts read and write in one transaction that holds the write lock.

    Args:
        answers: What was asked for already, with its rows. An answer counts until a row comes into a table that the
            statement names.
    """

    def __init__(self, answers: Mapping[Statement, Rows] | None = None) -> None:
        self._answers = {**_NEWEST_SCHEMA, **(answers or {})}

    def query(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Run one SELECT with question marks and return its rows, as look-ups ask for them."""
        rows = self._answers.get((sql, tuple(parameters)))
        return self._ask(sql, parameters) if rows is None else rows

    def take(self, asked: Statement, meant: Statement) -> None:
        """Take the rows that one statement was answered with for those of another, which asks for the same."""
        rows = self._answers.get(asked)
        if rows is not None:
            self._answers[meant] = rows

    def insert(self, table: Table, row: Mapping[str, Any]) -> None:
        """Insert one row of numbers, texts and nulls, as both drivers take them; booleans aren't converted.

        What the database refuses comes out here or, on PostgreSQL, with a later answer or the commit: as the driver's
        error, since no act expects one.
        """
        self._insert(table, row, numbered=False)

    def insert_numbered(self, table: Table, row: Mapping[str, Any]) -> int:
        """Insert one row and return its id, which is sent with the others where it was asked for with the lock."""
        taken = self._answers.pop(next_id(table), None)
        if taken:
            identity = int(taken[0][0])
            self._insert(table, {"id": identity, **row}, numbered=False)
            return identity
        number = self._insert(table, row, numbered=True)
        assert number is not None
        return number

    def end(self) -> None:
        """Let go of the transaction, right before it is committed: nothing is read or written through this after it."""
        self._answers.clear()

    def _insert(self, table: Table, row: Mapping[str, Any], *, numbered: bool) -> int | None:
        for statement in [statement for statement in self._answers if table.name in statement[0]]:
            del self._answers[statement]
        return self._add(table.name, tuple(row), tuple(row.values()), numbered=numbered)

    @abstractmethod
    def _ask(self, sql: str, parameters: Sequence[Any]) -> Rows:
        """Run one SELECT."""

    @abstractmethod
    def _add(self, table: str, columns: tuple[str, ...], values: tuple[Any, ...], *, numbered: bool) -> int | None:
        """Insert a row, and return its id where that is asked for."""


def next_id(table: Table, unless: Sequence[Statement] = ()) -> Statement:
    """Return what takes a row's id beforehand: among what is expected to be read, on PostgreSQL alone.

    One that is not used leaves a gap, as an act that comes to nothing does.

    Args:
        table: The row's.
        unless: None is taken where any of these finds a row; the writer is told by `Writer.take` that this was asked.
    """
    found = " AND ".join(f"NOT EXISTS ({sql})" for sql, _ in unless)
    return (
        f"SELECT nextval(pg_get_serial_sequence('{table.name}', 'id'))" + (f" WHERE {found}" if found else ""),
        tuple(one for _, parameters in unless for one in parameters),
    )


@lru_cache
def insertion(table: str, columns: tuple[str, ...], mark: str) -> str:
    """Return the statement that inserts one row; `mark` is the driver's placeholder."""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"
