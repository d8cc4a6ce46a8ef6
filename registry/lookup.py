"""Look-ups: REF to version, on Python's own sqlite3 or on psycopg, whichever database the folder belongs to.

Neither SQLAlchemy (0.3 s to import) nor Alembic is loaded, so that `registry resolve` answers at once; the store uses
these same queries, through its own connection, so that there is one grammar and one meaning. They are written in the
SQL that both databases speak, with question marks.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from weakref import WeakSet

from registry.binding import find_binding
from registry.entities import AliasState, Version
from registry.errors import AliasNotFound, AmbiguousReference, RegistryClosed, VersionNotFound
from registry.layout import CHECKOUTS, DATABASE
from registry.names import DIGEST_PREFIX_LENGTH, Reference, check_name, is_digest, looks_like_digest, parse_reference
from registry.sqlite import SqliteReader, no_registry

if TYPE_CHECKING:
    from registry.postgres import PostgresReader

__all__ = [
    "Lookup",
    "Query",
    "Statement",
    "alias_statement",
    "has_schema",
    "query_alias",
    "query_aliases",
    "query_aliases_of",
    "query_numbered",
    "query_of_each",
    "query_revision",
    "query_versions",
    "reference_statement",
    "resolve_digest",
    "resolve_reference",
    "schema_statement",
]

# Runs one SELECT with qmark parameters and returns its rows; readers and the store's connections both give one.
Query = Callable[[str, Sequence[Any]], Sequence[Sequence[Any]]]
# A SELECT and its parameters; what an act is going to read can be asked for before it does.
Statement = tuple[str, tuple[Any, ...]]

_VERSION = "SELECT id, name, number, digest, kind, base_fingerprint, manifest, created_at FROM versions"
_NEWEST = f"{_VERSION} WHERE name = ? ORDER BY number DESC LIMIT 1"
_NUMBERED = f"{_VERSION} WHERE name = ? AND number = ?"
_ALIASED = f"""{_VERSION} WHERE id =
    (SELECT version_id FROM alias_events WHERE name = ? AND alias = ? ORDER BY revision DESC LIMIT 1)"""
# A prefix is a range of the digest index: 'g' follows every hex digit.
_PREFIXED = f"{_VERSION} WHERE digest >= ? AND digest < ? ORDER BY digest LIMIT 4"
_STATE = """SELECT e.name, e.alias, e.revision, v.number, v.digest, e.actor, e.created_at
    FROM alias_events e JOIN versions v ON v.id = e.version_id"""
_ALIAS = f"""{_STATE} WHERE e.id =
    (SELECT id FROM alias_events WHERE name = ? AND alias = ? ORDER BY revision DESC LIMIT 1)"""
# The newest event of every alias. Models, their aliases and the event are each found by one step in the unique index:
# an alias's history, which grows by a row a promotion, is never walked.
_NEWEST_EVENTS = """WITH RECURSIVE named(name) AS ({names}), held(name, alias) AS (
    SELECT name, (SELECT min(e.alias) FROM alias_events e WHERE e.name = named.name) FROM named WHERE name IS NOT NULL
    UNION ALL
    SELECT name, (SELECT min(e.alias) FROM alias_events e WHERE e.name = held.name AND e.alias > held.alias)
    FROM held WHERE alias IS NOT NULL)
    SELECT (SELECT e.id FROM alias_events e WHERE e.name = held.name AND e.alias = held.alias
        ORDER BY e.revision DESC LIMIT 1)
    FROM held WHERE alias IS NOT NULL"""
_NEWEST_OF_ALL = _NEWEST_EVENTS.format(
    names="""SELECT min(name) FROM alias_events UNION ALL
    SELECT (SELECT min(e.name) FROM alias_events e WHERE e.name > named.name) FROM named WHERE name IS NOT NULL"""
)
_NEWEST_OF_ONE = _NEWEST_EVENTS.format(
    names="SELECT name FROM (SELECT name FROM alias_events WHERE name = ? LIMIT 1) one"
)
_NEWEST_OF_SOME = _NEWEST_EVENTS.format(names="SELECT DISTINCT name FROM alias_events WHERE name IN ({})")
# SQLite takes 999 parameters at least.
VALUES_AT_ONCE = 500


def has_schema(query: Query, revision: str) -> bool:
    """Tell whether the tables are there that came with a revision: a registry lacks the newest until it is opened."""
    return bool(query(*schema_statement(revision)))


def schema_statement(revision: str) -> Statement:
    """Return what `has_schema` asks."""
    return "SELECT 1 FROM alembic_version WHERE version_num >= ?", (revision,)


def resolve_reference(query: Query, text: str) -> Version:
    """Find the one version that a REF names.

    Raises:
        ReferenceInvalid: The text follows none of the four forms.
        VersionNotFound, AliasNotFound: Nothing has this name; says what exists.
        AmbiguousReference: A digest prefix fits several versions.
    """
    rows = query(*reference_statement(text))
    if not rows:
        _raise_missing(query, parse_reference(text))
    if len(rows) > 1:
        raise AmbiguousReference(
            f"digest prefix {text} fits several versions",
            allowed=", ".join(f"{row[1]}:v{row[2]} ({row[3][:20]})" for row in rows),
            next_step="type more digits, or name:vN",
        )
    return Version(*rows[0])


def reference_statement(text: str) -> Statement:
    """Return what finds a REF's version; only of a digest's prefix there may be several.

    Raises:
        ReferenceInvalid: The text follows none of the four forms.
    """
    reference = parse_reference(text)
    if reference.digest_prefix is not None:
        return _PREFIXED, (reference.digest_prefix, reference.digest_prefix + "g")
    if reference.alias is not None:
        return _ALIASED, (reference.name, reference.alias)
    if reference.number is not None:
        return _NUMBERED, (reference.name, reference.number)
    return _NEWEST, (reference.name,)


def by_digest(digest: str) -> Statement:
    """Return what finds the id of the version with a digest, to be a part of another statement."""
    return "SELECT id FROM versions WHERE digest = ?", (digest,)


def by_number(name: str, number: int) -> Statement:
    """Return what finds the id of a model's version by its number, to be a part of another statement."""
    return "SELECT id FROM versions WHERE name = ? AND number = ?", (name, number)


def resolve_digest(query: Query, digest: str) -> Version:
    """Find the version that a whole digest names.

    Raises:
        VersionNotFound: No version has it, or it isn't a whole digest.
    """
    if not isinstance(digest, str) or not is_digest(digest.lower()):  # of any case, as in a REF
        raise VersionNotFound(
            f"{digest!r} is not a whole version digest", allowed="64 hex digits", next_step="use Version.digest"
        )
    return resolve_reference(query, digest)


def _raise_missing(query: Query, reference: Reference) -> NoReturn:
    import difflib  # only a mistake needs it

    listing = "`tunewright registry ls` shows every version"
    if reference.digest_prefix is not None:
        raise VersionNotFound(f"no version has a digest that starts with {reference.text}", next_step=listing)
    numbers = [row[0] for row in query("SELECT number FROM versions WHERE name = ? ORDER BY number", (reference.name,))]
    if not numbers:
        names = [row[0] for row in query("SELECT DISTINCT name FROM versions ORDER BY name", ())]
        near = difflib.get_close_matches(str(reference.name), names, n=3)
        shown = near + [name for name in names if name not in near][: 10 - len(near)]
        digits = looks_like_digest(reference.text)
        raise VersionNotFound(
            f"no model is named {reference.name!r}",
            allowed=", ".join(shown) + (", ..." if len(shown) < len(names) else "") if shown else "nothing yet",
            next_step=f"a digest needs at least {DIGEST_PREFIX_LENGTH} digits; {listing}" if digits else listing,
        )
    if reference.alias is not None:
        aliases = [alias.alias for alias in query_aliases(query, reference.name)]
        near = difflib.get_close_matches(reference.alias, aliases, n=1, cutoff=0.5)
        if near:
            step = f"did you mean {reference.name}@{near[0]}? {listing}, with its aliases"
        elif aliases:
            step = f"{listing}, with its aliases"
        else:
            step = (
                f"tunewright registry promote {reference.name}:v{numbers[-1]} --alias {reference.alias} makes the first"
            )
        raise AliasNotFound(
            f"{reference.name!r} has no alias {reference.alias!r}",
            allowed=", ".join(f"{reference.name}@{a}" for a in aliases) or f"none yet; {reference.name}:v{numbers[-1]}",
            next_step=step,
        )
    raise VersionNotFound(
        f"{reference.name!r} has no version {reference.number}",
        allowed=f"{reference.name}:v{numbers[0]}" + (f" to v{numbers[-1]}" if len(numbers) > 1 else ""),
        next_step=listing,
    )


def query_versions(query: Query, name: str | None = None) -> list[Version]:
    """Return every version, or those of one model, by name and number."""
    if name is None:
        return [Version(*row) for row in query(f"{_VERSION} ORDER BY name, number", ())]
    return [Version(*row) for row in query(f"{_VERSION} WHERE name = ? ORDER BY number", (name,))]


def query_numbered(query: Query, name: str, number: int) -> Version:
    """Return a version that is known to be there, by its number."""
    return Version(*query(_NUMBERED, (name, number))[0])


def query_alias(query: Query, name: str, alias: str) -> AliasState | None:
    """Return where an alias points now, or None if it isn't there, or was taken away."""
    return next((AliasState(*row) for row in query(*alias_statement(name, alias))), None)


def alias_statement(name: str, alias: str) -> Statement:
    """Return what `query_alias` asks."""
    return _ALIAS, (name, alias)


def query_revision(query: Query, name: str, alias: str) -> int:
    """Return an alias's newest revision, 0 where it never was; one that was taken away has a revision, too."""
    rows = query("SELECT coalesce(max(revision), 0) FROM alias_events WHERE name = ? AND alias = ?", (name, alias))
    return int(rows[0][0])


def query_aliases(query: Query, name: str | None = None) -> list[AliasState]:
    """Return where every alias points now, folded from the alias history."""
    return _states(query, query(_NEWEST_OF_ALL, ()) if name is None else query(_NEWEST_OF_ONE, (name,)))


def query_aliases_of(query: Query, names: Sequence[str]) -> list[AliasState]:
    """Return where the aliases of these models point now."""
    return _states(query, query_of_each(query, _NEWEST_OF_SOME, names))


def _states(query: Query, newest: Sequence[Sequence[Any]]) -> list[AliasState]:
    rows = query_of_each(query, _STATE + " WHERE e.id IN ({})", [row[0] for row in newest])
    return sorted((AliasState(*row) for row in rows), key=lambda state: (state.name, state.alias))


def query_of_each(query: Query, sql: str, values: Sequence[Any]) -> list[Sequence[Any]]:
    """Return the rows of a SELECT for each of some values, so many at once as both databases take.

    Args:
        query: Runs it.
        sql: With `IN ({})` where the values come.
        values: Numbers or names.
    """
    found: list[Sequence[Any]] = []
    for start in range(0, len(values), VALUES_AT_ONCE):
        some = values[start : start + VALUES_AT_ONCE]
        found += query(sql.format(", ".join("?" * len(some))), some)
    return found


class Lookup:
    """Read-only look-ups in a registry's folder, from any thread.

    Args:
        folder: The registry's folder.
        database: Another address of the PostgreSQL database that the folder belongs to; by default
            $TUNEWRIGHT_REGISTRY_DATABASE, or what the folder remembers.

    Raises:
        RegistryNotFound, RegistryPathError, SchemaUnsupported: There is no registry, or none that can be read.
        WrongDatabase, DatabaseUnreachable, DatabaseAddressInvalid, DriverMissing: The folder's registry is on
            PostgreSQL, and can't be reached there.
    """

    def __init__(self, folder: Path, database: str | None = None) -> None:
        self.folder = folder.absolute()
        self._binding = find_binding(self.folder, database)
        self._local = threading.local()
        self._elsewhere: WeakSet[PostgresReader] = WeakSet()
        self._elsewhere_lock = threading.Lock()
        self._closed = False
        self._reader()

    def _reader(self) -> SqliteReader | PostgresReader:
        # a connection belongs to the thread that opened it, and doesn't survive a fork
        reader: SqliteReader | PostgresReader | None = getattr(self._local, "reader", None)
        if self._closed:
            self._close_own()
            raise RegistryClosed
        if reader is None or reader.process != os.getpid():
            reader = self._local.reader = self._open()
        return reader

    def _open(self) -> SqliteReader | PostgresReader:
        if self._binding is None:
            return SqliteReader(self.folder)
        if not self._binding.made:
            raise no_registry(self.folder, self._binding)
        from registry.postgres import PostgresReader  # a registry on SQLite never loads it

        reader = PostgresReader(self._binding)
        with self._elsewhere_lock:
            if not self._closed:
                self._elsewhere.add(reader)
                return reader
        reader.close()
        raise RegistryClosed

    @property
    def database(self) -> str:
        """Which database is looked up in, as people are told of it: a file, or an address without its password."""
        return str(self.folder / DATABASE) if self._binding is None else self._binding.address.url

    def query(self, sql: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Run one SELECT and return its rows.

        Raises:
            RegistryClosed: It has been closed, by whichever thread.
            DatabaseUnreachable, DatabaseRefused: PostgreSQL's server went away, or refuses.
        """
        return self._reader().query(sql, parameters)

    def ahead(self, expected: Sequence[Statement]) -> Query:
        """Return `query`, with what is going to be asked asked for already: on PostgreSQL in one message.

        For one act, right after this: what was answered isn't asked again.
        """
        answers = self._reader().together(expected)

        def query(sql: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
            rows = answers.get((sql, tuple(parameters)))
            return self.query(sql, parameters) if rows is None else rows

        return query

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let every query of this thread inside see one state of the database; one inside another is part of it."""
        with self._reader().snapshot():
            yield

    def resolve(self, ref: str) -> Version:
        """Return the version that a REF names; errors as `resolve_reference`."""
        return resolve_reference(self.query, ref)

    def versions(self, name: str | None = None) -> list[Version]:
        """Return every version, or those of one model.

        Raises:
            ReferenceInvalid: No name of a model.
        """
        return query_versions(self.query, None if name is None else check_name(name))

    def aliases(self, name: str | None = None) -> list[AliasState]:
        """Return where every alias points now.

        Raises:
            ReferenceInvalid: No name of a model.
        """
        return query_aliases(self.query, None if name is None else check_name(name))

    def checkout_path(self, version: Version) -> Path | None:
        """Return the version's own checkout folder if it is there; a checkout folder is complete or absent."""
        path = self.folder / CHECKOUTS / version.digest
        return path if path.is_dir() else None

    def close(self) -> None:
        """Close this thread's connection, and on PostgreSQL those of other threads; nothing is looked up after it.

        On SQLite another thread's connection is closed when that thread asks again, or ends.
        """
        with self._elsewhere_lock:
            self._closed = True
            others = list(self._elsewhere)
        self._close_own()
        for other in others:
            other.close()

    def _close_own(self) -> None:
        reader: SqliteReader | PostgresReader | None = getattr(self._local, "reader", None)
        if reader is not None and reader.process == os.getpid():
            reader.close()
        self._local.reader = None

    def __enter__(self) -> Lookup:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
