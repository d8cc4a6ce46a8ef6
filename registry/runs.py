"""Runs that are no versions: what a sweep's trials were made of and came to. Written once, found from the lineage.

A trial leaves weights that nobody may ever want; registering each would keep their bytes for good. So a run is its
document alone, and the version that is made of its weights is found by their common content key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from registry import audit
from registry.canonical import canonical_json, sha256_text
from registry.entities import as_recorded
from registry.errors import ReportInvalid, RunTaken
from registry.lookup import Query, has_schema
from registry.names import is_digest
from registry.reports import check_document

if TYPE_CHECKING:
    from registry.writer import Writer

__all__ = ["EVERY", "LARGEST_NUMBER", "Run", "has_runs", "insert_run", "query_runs"]

# The condition that every run satisfies, in the SQL of both databases.
EVERY = "1 = 1"
# What PostgreSQL's column holds.
LARGEST_NUMBER = 2**31 - 1

_COLUMNS = "id, name, sweep, number, digest, base_fingerprint, content_key, document, created_at"


@dataclass(frozen=True)
class Run:
    """A run of a sweep. Its document stays text until somebody asks.

    Attributes:
        name: Name of the model that the sweep is for.
        sweep: Key of the sweep.
        number: Of the run in its sweep.
        digest: Hex sha256 of the document.
        base_fingerprint: Of the base that was trained.
        content_key: Of the training; a version with the same one was made of its weights. None where nothing was
            trained to its end.
    """

    id: int
    name: str
    sweep: str
    number: int
    digest: str
    base_fingerprint: str
    content_key: str | None
    document_json: str
    created_at: str

    @cached_property
    def document(self) -> dict[str, Any]:
        """What was recorded.

        Raises:
            RecordDamaged: It isn't that any more.
        """
        document: dict[str, Any] = json.loads(
            as_recorded(self.document_json, self.digest, f"the document of {self.label}")
        )
        return document

    @property
    def label(self) -> str:
        """The run as people are told of it."""
        return f"{self.name} sweep {self.sweep[:12]} trial {self.number}"

    def to_dict(self) -> dict[str, Any]:
        """Return the run as plain JSON, with its document."""
        return {
            "name": self.name,
            "sweep": self.sweep,
            "number": self.number,
            "digest": self.digest,
            "base": self.base_fingerprint,
            "content_key": self.content_key,
            "created_at": self.created_at,
            "document": self.document,
        }


def has_runs(query: Query) -> bool:
    """Tell whether the registry has a table of runs: one that an earlier release wrote has none until it is opened."""
    return has_schema(query, "0002")


def query_runs(
    query: Query, where: str = EVERY, parameters: tuple[Any, ...] = (), *, limit: int | None = None
) -> list[Run]:
    """Return runs, the oldest first.

    Args:
        query: The look-ups' query function.
        where: An SQL condition on the table's columns.
        parameters: Values of its question marks.
        limit: Most runs to return.
    """
    if not has_runs(query):
        return []
    sql = f"SELECT {_COLUMNS} FROM runs WHERE {where} ORDER BY id"
    rows = query(sql, parameters) if limit is None else query(f"{sql} LIMIT ?", (*parameters, limit))
    return [Run(*row) for row in rows]


def insert_run(
    writer: Writer,
    *,
    name: str,
    sweep: str,
    number: int,
    base_fingerprint: str,
    content_key: str | None,
    document: Mapping[str, Any],
    actor: str,
) -> Run:
    """Write a run's row with its audit row, or return the one that is there: a run is recorded once.

    Raises:
        ReportInvalid: The document is not plain JSON.
        RunTaken: The run is recorded with another document, base or content key.
    """
    from registry.schema import runs

    check_document("run document", document)
    try:
        text = canonical_json({**document, "name": name, "sweep": sweep, "number": number})
        digest = sha256_text(text)  # of no text with half of a surrogate pair in it
    except (TypeError, ValueError) as error:
        raise ReportInvalid(f"run document: {error}", allowed="plain JSON values, no NaN") from error
    found = query_runs(writer.query, "name = ? AND sweep = ? AND number = ?", (name, sweep, number))
    if found:
        recorded = found[0].digest, found[0].base_fingerprint, found[0].content_key
        if recorded == (digest, base_fingerprint, content_key):
            return found[0]
        raise RunTaken(
            f"{found[0].label} is recorded already, since {found[0].created_at}, with another document",
            allowed="the same document again, or another number",
            next_step=f"`tunewright registry runs {name}` shows what is recorded; it stays so",
        )
    data = document.get("data", {})
    if not isinstance(data, Mapping) or not all(is_digest(digest) for digest in data.values()):
        raise ReportInvalid("run document: data", allowed="a mapping of data file -> hex sha256, which lineage shows")
    at = audit.now()
    row = writer.insert_numbered(
        runs,
        {"name": name, "sweep": sweep, "number": number, "digest": digest, "base_fingerprint": base_fingerprint,
         "content_key": content_key, "document": text, "created_at": at},
    )  # fmt: skip
    written = Run(row, name, sweep, number, digest, base_fingerprint, content_key, text, at)
    payload = {"name": name, "sweep": sweep, "number": number, "digest": digest}
    audit.append(writer, at=at, actor=actor, action="run", subject=written.label, payload=payload)
    return written
