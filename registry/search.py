"""Which versions are there by kind, base, data and score, a page at a time, in the order of name and number.

Name, base and order go by index. Data digests and scores lie inside manifests and reports, which no index covers: those
two are a scan of the rows that the other conditions leave, and a page ends as soon as it is full.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from registry.canonical import finite
from registry.entities import Version, as_recorded
from registry.errors import ReferenceInvalid
from registry.lookup import Query
from registry.manifest import KINDS
from registry.names import check_bound, check_name, check_text, is_digest, is_digest_prefix

__all__ = ["METRIC_LENGTH", "Model", "check_after", "query_metrics", "query_models", "scores_of", "search_versions"]

_COLUMNS = "v.id, v.name, v.number, v.digest, v.kind, v.base_fingerprint, v.manifest, v.created_at"
# the newest report of each version: the one that the gate reads
_NEWEST = "JOIN evaluations e ON e.id = (SELECT max(id) FROM evaluations WHERE version_id = v.id)"
BATCH = 200
METRIC_LENGTH = 200


@dataclass(frozen=True)
class Model:
    """A model's name with how many versions it has, the newest one's number, and when that was registered."""

    name: str
    versions: int
    newest: int
    changed_at: str

    def to_dict(self) -> dict[str, Any]:
        """Return the model as plain JSON."""
        return {"name": self.name, "versions": self.versions, "newest": self.newest, "changed_at": self.changed_at}


def check_after(name: str, number: int = 0) -> None:
    """Refuse a place to begin behind that no database compares with.

    Raises:
        ReferenceInvalid: A text that no name can be, or a number that no version has; neither need be there.
    """
    check_text("after", name, 128)
    check_bound("after", number)


def query_models(query: Query, *, after: str = "", limit: int | None = None) -> list[Model]:
    """Return the models whose names come after `after`, by name, at most `limit` of them.

    Raises:
        ReferenceInvalid: `after` is a text that no name is compared with.
    """
    check_after(after)
    sql = "SELECT name, count(*), max(number), max(created_at) FROM versions WHERE name > ? GROUP BY name ORDER BY name"
    rows = query(sql, (after,)) if limit is None else query(f"{sql} LIMIT ?", (after, limit))
    return [Model(*row) for row in rows]


def query_metrics(query: Query) -> list[str]:
    """Return every name that `search_versions` takes as a metric, of any version's newest report. Scans the reports."""
    found: set[str] = set()
    for _, report in _scan(query, [], [], True, ("", 0)):
        if report is not None:
            task, suites = _compared(report)
            named = (task.get("metric"), *(one.get("suite") for one in suites))
            found |= {name for name in named if isinstance(name, str) and name.isprintable()}
    return sorted(found)


def search_versions(
    query: Query,
    *,
    name: str | None = None,
    kind: str | None = None,
    base: str | None = None,
    data: str | None = None,
    metric: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    after: tuple[str, int] = ("", 0),
    limit: int | None = None,
) -> list[Version]:
    """Return the versions that satisfy every condition given, by name and number.

    Args:
        query: The look-ups' query function.
        name: Of the model.
        kind: As in the manifest, one of `KINDS`.
        base: Fingerprint of the base that a version is bound to or is, or its first 12 or more digits.
        data: Hex sha256 of a data file that it was trained on.
        metric: A task metric or a general suite in its newest report; see `scores_of`.
        minimum: Least score by that metric.
        maximum: Largest score by that metric.
        after: Name and number of the last version of the page before.
        limit: Most versions to return; None returns all.

    Raises:
        ReferenceInvalid: A name, fingerprint, digest or metric that follows no grammar, a kind that no version has, a
            range without a metric or with nothing in it, or an `after` that no version is compared with.
    """
    check_bound("limit", limit)
    check_after(*after)
    check_text("metric", metric, METRIC_LENGTH)
    conditions: list[str] = []
    values: list[Any] = []
    if name is not None:
        conditions.append("v.name = ?")
        values.append(check_name(name))
    if kind is not None:
        if kind not in KINDS:
            raise ReferenceInvalid(f"kind {kind!r} is none that a version has", allowed=", ".join(KINDS))
        conditions.append("v.kind = ?")
        values.append(kind)
    if base is not None:
        if not is_digest_prefix(base):
            raise ReferenceInvalid(f"base {base!r} is no fingerprint", allowed="12 to 64 lower-case hex digits")
        conditions.append("v.base_fingerprint >= ? AND v.base_fingerprint < ?")
        values += [base, base + "g"]  # 'g' follows every hex digit
    if data is not None:
        if not is_digest(data):
            raise ReferenceInvalid(f"data digest {data!r}", allowed="64 lower-case hex digits")
        conditions.append("v.manifest LIKE ?")
        values.append(f'%"{data}"%')
    keeps = _keeper(data, metric, minimum, maximum)
    found: list[Version] = []
    if limit == 0:
        return found
    for version, report in _scan(query, conditions, values, metric is not None, after):
        if keeps(version, report):
            found.append(version)
            if len(found) == limit:
                break
    return found


def _scan(
    query: Query, conditions: Sequence[str], values: Sequence[Any], with_report: bool, after: tuple[str, int]
) -> Iterator[tuple[Version, str | None]]:
    columns = f"{_COLUMNS}, {'e.report, e.digest' if with_report else 'NULL, NULL'}"
    where = " AND ".join([*conditions, "(v.name > ? OR (v.name = ? AND v.number > ?))"])
    sql = (
        f"SELECT {columns} FROM versions v {_NEWEST if with_report else ''} WHERE {where} "
        f"ORDER BY v.name, v.number LIMIT {BATCH}"
    )
    while True:
        rows = query(sql, (*values, after[0], *after))
        for row in rows:
            version, (report, digest) = Version(*row[:-2]), row[-2:]
            yield version, None if report is None else as_recorded(report, digest, f"a report on {version.label}")
        if len(rows) < BATCH:
            return
        after = (rows[-1][1], rows[-1][2])


def _keeper(
    data: str | None, metric: str | None, minimum: float | None, maximum: float | None
) -> Callable[[Version, str | None], bool]:
    """Return what says whether a row is asked for: the conditions that SQL can't hold."""
    for bound in (minimum, maximum):
        if bound is not None and not math.isfinite(bound):
            raise ReferenceInvalid(f"score range with {bound}", allowed="finite numbers")
    if metric is None and (minimum, maximum) != (None, None):
        raise ReferenceInvalid("a score range without a metric", allowed="a metric with a minimum, a maximum, or both")
    low, high = -math.inf if minimum is None else minimum, math.inf if maximum is None else maximum
    if low > high:
        raise ReferenceInvalid(f"score range from {low} to {high}", allowed="a minimum that is at most the maximum")

    def keeps(version: Version, report: str | None) -> bool:
        # LIKE found the digest somewhere in the manifest; a file's or a parent's digest is no data
        if data is not None and data not in version.manifest.data_digests.values():
            return False
        return metric is None or (report is not None and any(low <= s <= high for s in scores_of(report, metric)))

    return keeps


def scores_of(report_json: str, metric: str) -> list[float]:
    """Return what a report says by a metric, as fractions.

    The task's `tuned` score where the task is measured by this metric, and the `tuned` score of the general suite of
    this name in `tax`.
    """
    task, suites = _compared(report_json)
    measured = [task] if task.get("metric") == metric else []
    scores = (one.get("tuned") for one in [*measured, *(one for one in suites if one.get("suite") == metric)])
    return [found for found in map(finite, scores) if found is not None]


def _compared(report_json: str) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    """Return a report's task and its suites; an earlier release took reports of any form."""
    report = json.loads(report_json)
    task, tax = report.get("task"), report.get("tax")
    suites = [one for one in tax if isinstance(one, Mapping)] if isinstance(tax, list) else []
    return task if isinstance(task, Mapping) else {}, suites
