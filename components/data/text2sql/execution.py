"""Execution match: does a predicted query return what the human query returns, on several seeded databases?

The task metric of the text-to-SQL demo. A prediction runs as untrusted text: in memory, read-only, with a limit on
steps, time, rows and sizes.
"""

from __future__ import annotations

import functools
import math
import re
import sqlite3
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass

from components.data.text2sql.databases import build_database
from components.data.text2sql.schema import Schema
from components.errors import InputError, TunewrightError

__all__ = ["DATABASES", "QueryFailed", "Result", "extract_query", "is_ordered", "run_query", "same_result", "score"]

DATABASES = 3
FURTHER_DATABASES = 12  # tried only while the gold query has found nothing yet: nothing is too easy to match
STEP_LIMIT = 20_000_000  # SQLite virtual-machine steps: the limit that decides, because it is the same on every machine
WALL_LIMIT_SECONDS = 20.0  # only a net below it: a slow machine must not change a score
ROW_LIMIT = 20_000
RELATIVE_TOLERANCE = 1e-6

_DQS_DML = 1013  # SQLITE_DBCONFIG_DQS_DML of sqlite3.h; the module names it from Python 3.12 on
_STEPS_PER_CHECK = 10_000
_READ_ACTIONS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
# random results could match by chance; some reach outside of the database; some make a gigabyte out of one number
_DENIED_FUNCTIONS = frozenset({"random", "randomblob", "load_extension", "readfile", "writefile", "fts3_tokenizer"}) | {
    "printf",
    "format",
    "zeroblob",
}
_FENCE = re.compile(r"```[ \t]*(?:sqlite|sql)?[ \t]*\n?(.*?)(?:```|\Z)", re.DOTALL | re.IGNORECASE)
_STARTS_LINE = re.compile(r"^\s*(?:select|with)\b", re.IGNORECASE | re.MULTILINE)
_QUOTED = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|--[^\n]*|/\*.*?\*/|;""", re.DOTALL)

Cell = str | int | float | bytes | None
Rows = list[tuple[Cell, ...]]


class QueryFailed(TunewrightError):  # noqa: N818 - says what happened to the query
    """The query is not valid, not read-only, or passed a limit; a prediction then scores zero."""


@dataclass(frozen=True)
class Result:
    """What a query returned; `ordered` when the query fixes the order of its rows."""

    rows: Rows
    ordered: bool


def extract_query(text: str) -> str:
    """Return the SQL in a completion: what a person would copy out of it, and nothing made up.

    The first code fence if there is one; from the first line that begins with SELECT or WITH if the text begins with
    something else; up to the first empty line; the first statement, without its semicolon.
    """
    fenced = _FENCE.search(text)
    query = (fenced.group(1) if fenced else text).strip()
    start = _STARTS_LINE.search(query)
    if start:
        query = query[start.start() :].strip()
    query = re.split(r"\n[ \t]*\n", query, maxsplit=1)[0]
    for token in _QUOTED.finditer(query):
        if token.group() == ";":
            query = query[: token.start()]
            break
    return query.strip()


def is_ordered(sql: str) -> bool:
    """Say whether the outermost query, or the set operation as a whole, has an ORDER BY."""
    import sqlglot

    return sqlglot.parse_one(sql, dialect="sqlite").args.get("order") is not None


def run_query(connection: sqlite3.Connection, sql: str) -> Rows:
    """Run one query under the limits.

    Args:
        connection: A database that `open_database` returned.
        sql: One statement.

    Raises:
        QueryFailed: It is not valid, tries to write or to leave the database, or passes a limit.
    """
    deadline = time.monotonic() + WALL_LIMIT_SECONDS
    checks = 0

    def stop() -> int:
        nonlocal checks
        checks += 1
        return int(checks * _STEPS_PER_CHECK > STEP_LIMIT or time.monotonic() > deadline)

    connection.set_progress_handler(stop, _STEPS_PER_CHECK)
    try:
        cursor = connection.execute(sql)
        if cursor.description is None:
            raise QueryFailed("the statement returns no rows", allowed="one SELECT")
        rows: Rows = cursor.fetchmany(ROW_LIMIT + 1)
        cursor.close()
    # Warning: several statements; ValueError: a NUL or a lone surrogate in the text
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError) as error:
        raise QueryFailed(f"the query failed: {error}", allowed="one SELECT over the tables of the schema") from error
    finally:
        connection.set_progress_handler(None, 0)
    if len(rows) > ROW_LIMIT:
        raise QueryFailed(f"more than {ROW_LIMIT} rows", allowed=f"at most {ROW_LIMIT}")
    return rows


def open_database(schema: Schema, seed: int) -> sqlite3.Connection:
    """Build a database and close it to everything but reading."""
    connection = build_database(schema, seed)
    if hasattr(
        connection, "setconfig"
    ):  # Python 3.12: "text" is a string on every build of SQLite, as the questions need
        connection.setconfig(_DQS_DML, True)
    connection.execute("PRAGMA query_only = ON")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 20_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 200)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.set_authorizer(_authorise)
    return connection


def _authorise(action: int, _first: str | None, second: str | None, *_origin: str | None) -> int:
    allowed = action in _READ_ACTIONS
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _DENIED_FUNCTIONS:
        allowed = False
    return sqlite3.SQLITE_OK if allowed else sqlite3.SQLITE_DENY


def same_result(gold: Result, predicted: Rows) -> bool:
    """Say whether two results agree: the same rows as often, in the same column order; in order if gold is ordered.

    Numbers agree within a relative 1e-6, 1 equals 1.0; text equals text exactly; NULL equals NULL.
    """
    if len(gold.rows) != len(predicted) or (predicted and len(gold.rows[0]) != len(predicted[0])):
        return False
    if gold.rows == predicted:
        return True
    left, right = (gold.rows, predicted) if gold.ordered else (sorted(gold.rows, key=_key), sorted(predicted, key=_key))
    return all(_same_cell(a, b) for x, y in zip(left, right, strict=True) for a, b in zip(x, y, strict=True))


def _key(row: tuple[Cell, ...]) -> list[tuple[int, float, str]]:
    return [
        (0, 0.0, "")
        if cell is None
        else (1, float(f"{cell:.6g}"), "")
        if isinstance(cell, int | float)
        else (2, 0.0, cell if isinstance(cell, str) else repr(cell))
        for cell in row
    ]


def _same_cell(a: Cell, b: Cell) -> bool:
    if isinstance(a, int | float) and isinstance(b, int | float):
        return math.isclose(a, b, rel_tol=RELATIVE_TOLERANCE, abs_tol=1e-9)
    return type(a) is type(b) and a == b


class _Databases:
    """The databases built in this process, with the results of gold queries, used by one thread at a time."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.connections: dict[tuple[str, int], sqlite3.Connection] = {}
        self.gold: dict[tuple[str, int, str], Result] = {}

    def connection(self, schema: Schema, seed: int) -> sqlite3.Connection:
        key = (schema.digest, seed)
        if key not in self.connections:
            self.connections[key] = open_database(schema, seed)
        return self.connections[key]

    def gold_result(self, schema: Schema, seed: int, sql: str) -> Result:
        key = (schema.digest, seed, sql)
        if key not in self.gold:
            self.gold[key] = Result(run_query(self.connection(schema, seed), sql), is_ordered(sql))
        return self.gold[key]


@functools.cache
def _databases() -> _Databases:
    return _Databases()


def score(
    prediction: str,
    gold: str,
    database: str,
    schemas: Mapping[str, Schema],
    *,
    databases: int = DATABASES,
    seed: int = 0,
) -> float:
    """Return 1.0 if the predicted query returns what the gold query returns on every seeded database, else 0.0.

    Where the gold query returns no row on any of them, further databases are tried until it returns one.

    Args:
        prediction: What the model wrote; the query is taken out of it by `extract_query`.
        gold: The human query.
        database: Which database the question is about.
        schemas: From `load_schemas`.
        databases: On how many differently filled databases both must agree.
        seed: Seed of the first one; the others follow.

    Raises:
        InputError: There is no such database, no database is asked for, or the gold query itself fails.
    """
    schema = schemas.get(database)
    if schema is None:
        raise InputError(f"no schema for database {database!r}", allowed=", ".join(sorted(schemas)))
    if databases < 1:
        raise InputError(f"{databases} databases", allowed="at least 1", next_step="change the metric's options")
    query = extract_query(prediction)
    cached = _databases()
    with cached.lock:
        found = False
        for each in range(seed, seed + databases + FURTHER_DATABASES):
            if each >= seed + databases and found:
                break
            try:
                expected = cached.gold_result(schema, each, gold)
            except QueryFailed as error:
                raise InputError(f"the gold query fails on {database}: {gold}: {error.problem}") from error
            try:
                rows = run_query(cached.connection(schema, each), query)
            except QueryFailed:
                return 0.0
            if not same_result(expected, rows):
                return 0.0
            found = found or bool(expected.rows)
    return 1.0
