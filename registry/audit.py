"""The audit trail: rows in a hash chain, each row's hash taken over its content and the hash before it.

Whoever changes, drops or inserts a row has to recompute every later hash; whoever noted a later hash elsewhere sees it.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from registry.canonical import canonical_json, sha256_text
from registry.entities import AuditEntry
from registry.errors import AuditBroken
from registry.lookup import Query, Statement
from registry.names import check_actor

if TYPE_CHECKING:
    from registry.writer import Writer

__all__ = ["GENESIS", "LAST", "acting", "append", "chain_hash", "login_name", "now", "read_chain", "verify_chain"]

GENESIS = "0" * 64
# The row that the next one is put behind.
LAST: Statement = "SELECT sequence, hash FROM audit ORDER BY sequence DESC LIMIT 1", ()
# Where getpass looks before it asks the user database.
_LOGIN_VARIABLES = ("LOGNAME", "USER", "LNAME", "USERNAME")
_COLUMNS = "sequence, created_at, actor, action, subject, payload, previous_hash, hash"


def now() -> str:
    """Return the time as ISO 8601 text in UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def login_name() -> str:
    """Return who is at work, for the audit trail: the login name, or the user's number where it has none."""
    try:
        return _login_name(os.getuid(), *map(os.environ.get, _LOGIN_VARIABLES))
    except (KeyError, OSError, ImportError):  # not kept: a directory service may answer the next time
        return f"uid-{os.getuid()}"


@lru_cache(maxsize=8)  # the user database may be a directory service's, and every act asks
def _login_name(_uid: int, *_variables: str | None) -> str:
    return getpass.getuser()


def acting(actor: str | None) -> str:
    """Return who acts: the name that was given, or the login name, which is held to the same rules.

    Raises:
        ReferenceInvalid: Too long for the trail, or text that it can't keep.
    """
    who = actor or login_name()
    check_actor(who)
    return who


def chain_hash(sequence: int, at: str, actor: str, action: str, subject: str, payload: str, previous: str) -> str:
    """Return the hash that binds a row, whose payload is canonical JSON, to the hash of the row before it."""
    return sha256_text(canonical_json([sequence, at, actor, action, subject, payload, previous]))


def append(writer: Writer, *, at: str, actor: str, action: str, subject: str, payload: Mapping[str, Any]) -> str:
    """Add a row at the chain's end, inside the caller's write transaction.

    Args:
        writer: Of the write transaction.
        at: The transaction's time.
        actor: Who did it.
        action: register, run, evaluate, promote, rollback, demote, refuse, approve, withdraw, protect, unprotect,
            deprecate, restore, retire or collect.
        subject: What it was done to, as people write it.
        payload: What was done, plain JSON.

    Returns:
        The payload's text, for whoever tells others of the same.
    """
    # this needs SQLAlchemy; the rest of this module reads without it
    from registry.schema import audit

    last = writer.query(*LAST)
    sequence, previous = (last[0][0] + 1, last[0][1]) if last else (1, GENESIS)
    text = canonical_json(payload)
    digest = chain_hash(sequence, at, actor, action, subject, text, previous)
    writer.insert(
        audit,
        {
            "sequence": sequence,
            "created_at": at,
            "actor": actor,
            "action": action,
            "subject": subject,
            "payload": text,
            "previous_hash": previous,
            "hash": digest,
        },
    )
    return text


def read_chain(query: Query, *, after: int = 0, limit: int | None = None) -> Iterator[AuditEntry]:
    """Yield the rows whose sequence is above `after`, oldest first, at most `limit` of them."""
    sql, parameters = f"SELECT {_COLUMNS} FROM audit WHERE sequence > ? ORDER BY sequence", [after]
    for row in query(*((sql, parameters) if limit is None else (f"{sql} LIMIT ?", [*parameters, limit]))):
        yield AuditEntry(*row)


def verify_chain(query: Query) -> str:
    """Recompute every hash.

    Returns:
        The last row's hash; note it elsewhere to notice a chain that was cut short.

    Raises:
        AuditBroken: A row was changed, dropped or put in.
    """
    previous = GENESIS
    for expected, entry in enumerate(read_chain(query), start=1):
        digest = chain_hash(
            entry.sequence, entry.at, entry.actor, entry.action, entry.subject, entry.payload_json, entry.previous_hash
        )
        if entry.sequence != expected or entry.previous_hash != previous or entry.hash != digest:
            raise AuditBroken(
                f"the audit chain breaks at row {entry.sequence} ({entry.action} {entry.subject})",
                allowed="rows that only the registry wrote",
                next_step="restore the database from a copy, and find out who wrote to it",
            )
        previous = entry.hash
    return previous
