"""The reports of a version, as whoever judges it finds them: its newest one, or the newest on another one's test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from registry.entities import AliasState, Evaluation
from registry.errors import ReportInvalid
from registry.gate import recorded_policy
from registry.lookup import Query, Statement

__all__ = [
    "check_document",
    "check_report",
    "comparable_evaluation",
    "evaluations_of",
    "held_reports_statement",
    "newest_evaluation",
    "reports_statement",
]

# What the gate reads of a task and of each suite, besides the rows measured.
_SCORES = ("base", "tuned", "delta", "low", "high")
_TEXTS = ("metric", "test_digest", "suite")
_REPORTS = """SELECT e.id, v.digest, e.digest, e.report, e.created_at
    FROM versions v JOIN evaluations e ON e.version_id = v.id WHERE"""


def check_document(what: str, document: object) -> None:
    """Refuse a report or a run's document that is no mapping; what is in it is looked at when it becomes JSON.

    Raises:
        ReportInvalid: It is something else, pairs included.
    """
    if not isinstance(document, Mapping):
        raise ReportInvalid(f"{what} is a {type(document).__name__}", allowed="a mapping of plain JSON, no NaN")


def check_report(report: Mapping[str, Any]) -> None:
    """Refuse a report in which what the gate reads has another type: it would stand in the way of every promotion.

    Keys may be absent or null, and others may be there.

    Raises:
        ReportInvalid: Says which key has what.
        PolicyInvalid: The policy in it is none.
    """
    recorded_policy(report)
    task, tax = report.get("task"), report.get("tax")
    if task is not None and not isinstance(task, Mapping):
        _refuse("task", task, "a mapping")
    if tax is not None and not (isinstance(tax, Sequence) and not isinstance(tax, str)):
        _refuse("tax", tax, "a list with a mapping for each suite")
    for place, one in [("task", task or {}), *((f"tax[{number}]", suite) for number, suite in enumerate(tax or ()))]:
        if not isinstance(one, Mapping):
            _refuse(place, one, "a mapping")
        for key, value in one.items():
            if value is None:
                continue
            if key == "n" and (type(value) is not int or value < 0):
                _refuse(f"{place}.n", value, "a whole number of rows, 0 or more")
            if key in _SCORES and (isinstance(value, bool) or not isinstance(value, int | float)):
                _refuse(f"{place}.{key}", value, "a number: a score as a fraction")
            if key in _TEXTS and not isinstance(value, str):
                _refuse(f"{place}.{key}", value, "a text")


def _refuse(key: str, value: object, allowed: str) -> NoReturn:
    shown = repr(value)
    raise ReportInvalid(
        f"evaluation report: {key} is {shown if len(shown) <= 60 else shown[:60] + '...'}",
        allowed=allowed,
        next_step="the keys of a report are in docs/registry.md",
    )


def newest_evaluation(query: Query, digest: str) -> Evaluation | None:
    """Return the last report recorded for a version, which is named by its whole digest."""
    return next(iter(evaluations_of(query, digest, newest_only=True)), None)


def evaluations_of(query: Query, digest: str, *, newest_only: bool = False) -> list[Evaluation]:
    """Return the reports recorded for exactly the version with this digest, newest first."""
    return [Evaluation(*row) for row in query(*reports_statement(digest, newest_only=newest_only))]


def reports_statement(digest: str, *, newest_only: bool = False) -> Statement:
    """Return what `evaluations_of` asks."""
    return f"{_REPORTS} v.digest = ? ORDER BY e.id DESC" + (" LIMIT 1" if newest_only else ""), (digest,)


def held_reports_statement(name: str, alias: str) -> Statement:
    """Return what finds the reports, newest first, of the version that an alias points at."""
    held = "SELECT version_id FROM alias_events WHERE name = ? AND alias = ? ORDER BY revision DESC LIMIT 1"
    return f"{_REPORTS} v.id = ({held}) ORDER BY e.id DESC", (name, alias)


def comparable_evaluation(query: Query, state: AliasState, report: Mapping[str, Any] | None) -> Evaluation | None:
    """Return the last report, on the test of another report, of the version that an alias points at.

    Where it has none on that, its last one. A version may be measured on several tests, by several recipes that share
    an alias: which one came last says nothing about how it compares.
    """
    found = [Evaluation(*row) for row in query(*held_reports_statement(state.name, state.alias))]
    if {one.version_digest for one in found} != {state.digest}:  # it moved meanwhile, where no lock is held
        found = evaluations_of(query, state.digest)
    same = (one for one in found if _test_of(one.report) == _test_of(report) != (None, None))
    return next(same, found[0] if found else None)


def _test_of(report: Mapping[str, Any] | None) -> tuple[Any, Any]:
    task = None if report is None else report.get("task")
    return (task.get("metric"), task.get("test_digest")) if isinstance(task, Mapping) else (None, None)
