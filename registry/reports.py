"""The reports of a version, as whoever judges it finds them: its newest one, or the newest on another one's test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.entities import Evaluation, Version
from registry.errors import ReportInvalid
from registry.lookup import Query

__all__ = ["check_document", "comparable_evaluation", "evaluations_of", "newest_evaluation"]


def check_document(what: str, document: object) -> None:
    """Refuse a report or a run's document that is no mapping; what is in it is looked at when it becomes JSON.

    Raises:
        ReportInvalid: It is something else, pairs included.
    """
    if not isinstance(document, Mapping):
        raise ReportInvalid(f"{what} is a {type(document).__name__}", allowed="a mapping of plain JSON, no NaN")


def newest_evaluation(query: Query, version: Version) -> Evaluation | None:
    """Return the last report recorded for exactly this version's digest."""
    return next(iter(evaluations_of(query, version, newest_only=True)), None)


def evaluations_of(query: Query, version: Version, *, newest_only: bool = False) -> list[Evaluation]:
    """Return the reports recorded for exactly this version's digest, newest first."""
    rows = query(
        "SELECT id, ?, digest, report, created_at FROM evaluations WHERE version_id = ? ORDER BY id DESC"
        + (" LIMIT 1" if newest_only else ""),
        (version.digest, version.id),
    )
    return [Evaluation(*row) for row in rows]


def comparable_evaluation(query: Query, version: Version, report: Mapping[str, Any] | None) -> Evaluation | None:
    """Return a version's last report on the test of another report, or its last one where it has none on that.

    A version may be measured on several tests, by several recipes that share an alias: which one came last says nothing
    about how it compares.
    """
    found = evaluations_of(query, version)
    same = (one for one in found if _test_of(one.report) == _test_of(report) != (None, None))
    return next(same, found[0] if found else None)


def _test_of(report: Mapping[str, Any] | None) -> tuple[Any, Any]:
    task = None if report is None else report.get("task")
    return (task.get("metric"), task.get("test_digest")) if isinstance(task, Mapping) else (None, None)
