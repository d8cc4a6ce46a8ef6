"""Look-ups: REF to version, on Python's own sqlite3 with the registry opened for reading only.

Neither SQLAlchemy (0.3 s to import) nor Alembic is loaded, so that `registry resolve` answers at once; the store uses
these same queries, through its own connection, so that there is one grammar and one meaning.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from registry.entities import AliasState, Version
from registry.errors import (
    AliasNotFound,
    AmbiguousReference,
    RegistryNotFound,
    RegistryPathError,
    SchemaUnsupported,
    VersionNotFound,
)
from registry.layout import CHECKOUTS, DATABASE, READABLE_REVISIONS, SCHEMA_REVISION
from registry.names import DIGEST_PREFIX_LENGTH, Reference, looks_like_digest, parse_reference

__all__ = [
    "Lookup",
    "Query",
    "connect_for_reading",
    "query_aliases",
    "query_versions",
    "resolve_digest",
    "resolve_reference",
]

# Runs one SELECT with qmark parameters and returns its rows; sqlite3 and SQLAlchemy connections both give one.
Query = Callable[[str, Sequence[Any]], Sequence[Sequence[Any]]]

_VERSION = "SELECT id, name, number, digest, kind, base_fingerprint, manifest, created_at FROM versions"
_NEWEST = f"{_VERSION} WHERE name = ? ORDER BY number DESC LIMIT 1"
_NUMBERED = f"{_VERSION} WHERE name = ? AND number = ?"
_ALIASED = f"""{_VERSION} WHERE id =
    (SELECT version_id FROM alias_events WHERE name = ? AND alias = ? ORDER BY revision DESC LIMIT 1)"""
# A prefix is a range of the digest index: 'g' follows every hex digit.
_PREFIXED = f"{_VERSION} WHERE digest >= ? AND digest < ? ORDER BY digest LIMIT 4"
_ALIASES = """SELECT e.name, e.alias, e.revision, v.number, v.digest, e.actor, e.created_at
    FROM alias_events e JOIN versions v ON v.id = e.version_id
    WHERE e.revision = (SELECT max(revision) FROM alias_events WHERE name = e.name AND alias = e.alias)"""


def resolve_reference(query: Query, text: str) -> Version:
    """Find the one version that a REF names.

    Raises:
        ReferenceInvalid: The text follows none of the four forms.
        VersionNotFound, AliasNotFound: Nothing has this name; says what exists.
        AmbiguousReference: A digest prefix fits several versions.
    """
    reference = parse_reference(text)
    if reference.digest_prefix is not None:
        rows = query(_PREFIXED, (reference.digest_prefix, reference.digest_prefix + "g"))
        if len(rows) > 1:
            raise AmbiguousReference(
                f"digest prefix {text} fits several versions",
                allowed=", ".join(f"{row[1]}:v{row[2]} ({row[3][:20]})" for row in rows),
                next_step="type more digits, or name:vN",
            )
    elif reference.alias is not None:
        rows = query(_ALIASED, (reference.name, reference.alias))
    elif reference.number is not None:
        rows = query(_NUMBERED, (reference.name, reference.number))
    else:
        rows = query(_NEWEST, (reference.name,))
    if not rows:
        _raise_missing(query, reference)
    return Version(*rows[0])


def resolve_digest(query: Query, digest: str) -> Version:
    """Find the version that a whole digest names.

    Raises:
        VersionNotFound: No version has it, or it isn't a whole digest.
    """
    if not isinstance(digest, str) or len(digest) != 64:
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


def query_aliases(query: Query, name: str | None = None) -> list[AliasState]:
    """Return where every alias points now, folded from the alias history."""
    if name is None:
        return [AliasState(*row) for row in query(f"{_ALIASES} ORDER BY e.name, e.alias", ())]
    return [AliasState(*row) for row in query(f"{_ALIASES} AND e.name = ? ORDER BY e.alias", (name,))]


def connect_for_reading(folder: Path) -> sqlite3.Connection:
    """Open a registry's database read-only, creating nothing.

    Raises:
        RegistryNotFound: There is no registry in the folder.
        RegistryPathError: There is something, but it can't be read as a registry.
        SchemaUnsupported: Another release wrote it.
    """
    path = folder / DATABASE
    if not path.is_file():
        raise RegistryNotFound(
            f"there is no registry at {folder}",
            allowed="a home where `tunewright run` has registered a model",
            next_step="tunewright run RECIPE, or pass --home (or set TUNEWRIGHT_HOME) to where one is",
        )
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=10, isolation_level=None, cached_statements=32
        )
        revision = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        raise RegistryPathError(
            f"{path} can't be read as a registry: {error}",
            allowed="a database that Tunewright made and this user may read",
            next_step="restore it from a copy, or pass --home to another one",
        ) from error
    if revision is None or revision[0] not in READABLE_REVISIONS:
        connection.close()
        found = revision[0] if revision else "none"
        raise SchemaUnsupported(
            f"{path} has schema {found}, this release reads {SCHEMA_REVISION}",
            next_step="a writing command of this release brings an older schema up to date; a newer one needs a newer "
            "release",
        )
    return connection


class Lookup:
    """Read-only look-ups in a registry's folder, from any thread.

    Args:
        folder: The registry's folder.

    Raises:
        RegistryNotFound, RegistryPathError, SchemaUnsupported: As `connect_for_reading`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._local = threading.local()
        self._connection()

    def _connection(self) -> sqlite3.Connection:
        # sqlite3 connections belong to the thread that opened them, and don't survive a fork
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None or self._local.process != os.getpid():
            connection = self._local.connection = connect_for_reading(self.folder)
            self._local.process = os.getpid()
        return connection

    def query(self, sql: str, parameters: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """Run one SELECT and return its rows."""
        return self._connection().execute(sql, parameters).fetchall()

    def resolve(self, ref: str) -> Version:
        """Return the version that a REF names; errors as `resolve_reference`."""
        return resolve_reference(self.query, ref)

    def versions(self, name: str | None = None) -> list[Version]:
        """Return every version, or those of one model."""
        return query_versions(self.query, name)

    def aliases(self, name: str | None = None) -> list[AliasState]:
        """Return where every alias points now."""
        return query_aliases(self.query, name)

    def checkout_path(self, version: Version) -> Path | None:
        """Return the version's own checkout folder if it is there; a checkout folder is complete or absent."""
        path = self.folder / CHECKOUTS / version.digest
        return path if path.is_dir() else None

    def close(self) -> None:
        """Close this thread's connection."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None
