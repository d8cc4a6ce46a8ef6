"""One write transaction as an act sees it: what it reads, and the rows that it leaves.

Both go to the database's driver, past SQLAlchemy: a tenth of the time, which is time that all other writers wait. On
PostgreSQL they go in as few messages as can be, since each takes its way there and back: what an act is expected to
read is asked for with the write lock, and rows wait for the next answer that is needed, or for the commit
(libpq's pipeline mode).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Table

from registry.lookup import Statement

__all__ = ["Writer"]


class Writer:
    """What acts read and write in one transaction that holds the write lock.

    Args:
        driver: The driver's connection, within the transaction.
        asked: What was asked for already, and the cursor that has the answer or will have it. An answer counts until a
            row comes into a table that it was read from.
    """

    def __init__(self, driver: Any, asked: Mapping[Statement, Any] | None = None, *, is_postgres: bool = False) -> None:
        self._driver = driver
        self._is_postgres = is_postgres
        self._translate: Callable[[str], str] = str
        if is_postgres:
            from registry.postgres import to_driver

            self._translate = to_driver
        self._asked = dict(asked or {})
        self._answers: dict[Statement, Sequence[Sequence[Any]]] = {}

    def query(self, sql: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Run one SELECT with question marks and return its rows, as look-ups ask for them."""
        statement = sql, tuple(parameters)
        rows: Sequence[Sequence[Any]] | None = self._answers.get(statement)
        if rows is None:
            cursor = self._asked.get(statement)
            if cursor is None:
                return self._driver.execute(self._translate(sql), parameters).fetchall()
            rows = self._answers[statement] = cursor.fetchall()
        return rows

    def insert(self, table: Table, row: Mapping[str, Any]) -> None:
        """Insert one row of numbers, texts and nulls, as both drivers take them; booleans aren't converted.

        What the database refuses comes out here or, on PostgreSQL, with a later answer or the commit.
        """
        self._insert(table, row, "")

    def insert_numbered(self, table: Table, row: Mapping[str, Any]) -> int:
        """Insert one row and return its id."""
        if self._is_postgres:
            return int(self._insert(table, row, " RETURNING id").fetchone()[0])
        return int(self._insert(table, row, "").lastrowid)

    def end(self) -> None:
        """Let go of the connection, right before what was written is committed: nothing is read or written after it."""
        self._driver = None

    def _insert(self, table: Table, row: Mapping[str, Any], returning: str) -> Any:
        for known in (self._asked, self._answers):
            for statement in [statement for statement in known if table.name in statement[0]]:
                del known[statement]
        insertion = _insertion(table.name, tuple(row), "%s" if self._is_postgres else "?")
        return self._driver.execute(insertion + returning, tuple(row.values()))


@lru_cache
def _insertion(table: str, columns: tuple[str, ...], mark: str) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join([mark] * len(columns))})"
