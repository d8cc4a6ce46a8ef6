"""The reports of a version, as whoever judges it finds them: its newest one, or the newest on another one's test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from registry.canonical import MAX_NESTING, finite, is_too_deep
from registry.entities import AliasState, Evaluation, Version
from registry.errors import ReportInvalid
from registry.gate import recorded_policy
from registry.lookup import Query, Statement, by_digest

__all__ = [
    "check_document",
    "check_report",
    "comparable_evaluation",
    "evaluations_before",
    "evaluations_of",
    "held_reports_statement",
    "newest_evaluation",
    "reports_of",
    "reports_statement",
]

# What the gate reads, and people are shown, of a task, its parts and each suite, besides the rows measured.
_SCORES = ("base", "tuned", "delta", "low", "high")
_TEXTS = ("metric", "test_digest", "suite", "baseline", "subset")
_LONGEST_TEXT = 256
_REPORTS = """SELECT e.id, v.digest, e.digest, e.report, e.created_at
    FROM versions v JOIN evaluations e ON e.version_id = v.id WHERE"""


def check_document(what: str, document: object) -> None:
    """Refuse a report or a run's document that is no mapping, or that nothing could show.

    What else is in it is looked at when it becomes JSON.

    Raises:
        ReportInvalid: It is something else, pairs included, or nested too deeply.
    """
    if not isinstance(document, Mapping):
        raise ReportInvalid(f"{what} is a {type(document).__name__}", allowed="a mapping of plain JSON, no NaN")
    if is_too_deep(document):
        raise ReportInvalid(
            f"{what} is nested more than {MAX_NESTING} deep", allowed=f"at most {MAX_NESTING} objects and lists in one"
        )


def check_report(report: Mapping[str, Any]) -> None:
    """Refuse a report in which what the gate reads or people are shown has another type.

    It would stay for good, and in the way of every promotion.

    Keys may be absent or null, and others may be there.

    Raises:
        ReportInvalid: Says which key has what.
        PolicyInvalid: The policy in it is none.
    """
    recorded_policy(report)
    task = report.get("task")
    if task is not None:
        _check_compared("task", task)
        for place, one in _listed("task.subsets", task.get("subsets")):
            _check_compared(place, one)
    for place, one in _listed("tax", report.get("tax")):
        _check_compared(place, one)


def _listed(place: str, value: object) -> list[tuple[str, Any]]:
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, Sequence):
        _refuse(place, value, "a list of objects")
    return [(f"{place}[{number}]", one) for number, one in enumerate(value)]


def _check_compared(place: str, found: object) -> None:
    """Refuse what stands in the place of one comparison: the task's, of a part of it, or of a suite."""
    if not isinstance(found, Mapping):
        _refuse(place, found, "an object")
    for key, value in found.items():
        if value is None:
            continue
        if key == "n" and (type(value) is not int or not 0 <= value < 2**53):
            _refuse(f"{place}.n", value, "a whole number of rows, 0 or more")
        if key in _SCORES and finite(value) is None:
            _refuse(f"{place}.{key}", value, "a finite number: a score as a fraction")
        if key in _TEXTS and not (isinstance(value, str) and value.isprintable() and len(value) <= _LONGEST_TEXT):
            _refuse(f"{place}.{key}", value, f"one line of at most {_LONGEST_TEXT} characters that can be seen")


def _refuse(key: str, value: object, allowed: str) -> NoReturn:
    try:
        shown = repr(value)
    except ValueError:  # Python writes no number of more than some thousand digits
        shown = "a number of very many digits"
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


def evaluations_before(query: Query, version: Version, before: int, limit: int) -> list[Evaluation]:
    """Return the reports of a version whose id is below `before`, newest first, at most `limit`: steps in an index."""
    rows = query(
        "SELECT id, digest, report, created_at FROM evaluations WHERE version_id = ? AND id < ? "
        "ORDER BY id DESC LIMIT ?",
        (version.id, before, limit),
    )
    return [Evaluation(number, version.digest, *row) for number, *row in rows]


def reports_statement(digest: str, *, newest_only: bool = False) -> Statement:
    """Return what `evaluations_of` asks."""
    sql, parameters = reports_of(by_digest(digest))
    return sql + (" LIMIT 1" if newest_only else ""), parameters


def reports_of(version: Statement) -> Statement:
    """Return what asks for the reports, newest first, of the version whose id a statement finds."""
    found, parameters = version
    return f"{_REPORTS} v.id = ({found}) ORDER BY e.id DESC", parameters


def held_reports_statement(name: str, alias: str) -> Statement:
    """Return what finds the reports, newest first, of the version that an alias points at."""
    held = "SELECT version_id FROM alias_events WHERE name = ? AND alias = ? ORDER BY revision DESC LIMIT 1"
    return reports_of((held, (name, alias)))


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
