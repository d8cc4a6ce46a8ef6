"""The reports of a version, as whoever judges it finds them: its newest one, or the newest on another one's test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry.entities import Evaluation
from registry.lookup import Query, Statement

__all__ = ["comparable_evaluation", "evaluations_of", "newest_evaluation", "reports_statement"]


def newest_evaluation(query: Query, digest: str) -> Evaluation | None:
    """Return the last report recorded for a version, which is named by its whole digest."""
    return next(iter(evaluations_of(query, digest, newest_only=True)), None)


def evaluations_of(query: Query, digest: str, *, newest_only: bool = False) -> list[Evaluation]:
    """Return the reports recorded for exactly the version with this digest, newest first."""
    return [Evaluation(*row) for row in query(*reports_statement(digest, newest_only=newest_only))]


def reports_statement(digest: str, *, newest_only: bool = False) -> Statement:
    """Return what `evaluations_of` asks."""
    asked = (
        "SELECT e.id, v.digest, e.digest, e.report, e.created_at FROM versions v JOIN evaluations e "
        "ON e.version_id = v.id WHERE v.digest = ? ORDER BY e.id DESC"
    )
    return asked + (" LIMIT 1" if newest_only else ""), (digest,)


def comparable_evaluation(query: Query, digest: str, report: Mapping[str, Any] | None) -> Evaluation | None:
    """Return a version's last report on the test of another report, or its last one where it has none on that.

    A version may be measured on several tests, by several recipes that share an alias: which one came last says nothing
    about how it compares.
    """
    found = evaluations_of(query, digest)
    same = (one for one in found if _test_of(one.report) == _test_of(report) != (None, None))
    return next(same, found[0] if found else None)


def _test_of(report: Mapping[str, Any] | None) -> tuple[Any, Any]:
    task = None if report is None else report.get("task")
    return (task.get("metric"), task.get("test_digest")) if isinstance(task, Mapping) else (None, None)
