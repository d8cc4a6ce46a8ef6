"""Which reports a registry takes: in which everything that the gate reads has the type that it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from registry.entities import Version
from registry.errors import PolicyInvalid, RegistryError, ReportInvalid
from registry.store import Registry

Add = Callable[..., Version]


@pytest.mark.parametrize(
    ("report", "kind", "says"),
    [
        ({"task": {"n": "120"}}, ReportInvalid, "task.n is '120'"),
        ({"task": {"n": 120.0}}, ReportInvalid, "task.n is 120.0"),
        ({"task": {"n": -1}}, ReportInvalid, "task.n is -1"),
        ({"task": {"n": True}}, ReportInvalid, "task.n is True"),
        ({"task": {"delta": "high"}}, ReportInvalid, "task.delta is 'high'"),
        ({"task": {"low": False}}, ReportInvalid, "task.low is False"),
        ({"task": {"metric": ["m"]}}, ReportInvalid, "task.metric"),
        ({"task": [0.3]}, ReportInvalid, "task is"),
        ({"tax": {"suite": "s"}}, ReportInvalid, "tax is"),
        ({"tax": "s"}, ReportInvalid, "tax is 's'"),
        ({"tax": [{"suite": "s"}, None]}, ReportInvalid, r"tax\[1\] is None"),
        ({"tax": [{"suite": 7}]}, ReportInvalid, r"tax\[0\].suite is 7"),
        ({"tax": [{"suite": "s", "low": "-0.01"}]}, ReportInvalid, r"tax\[0\].low is '-0.01'"),
        ({"policy": {"min_rowz": 1}}, PolicyInvalid, "did you mean 'min_rows'"),
        ({"policy": "strict"}, PolicyInvalid, "policy is a str"),
    ],
)
def test_report_that_no_promotion_could_read_is_refused(
    registry: Registry, add_adapter: Add, report: dict[str, Any], kind: type[RegistryError], says: str
) -> None:
    version = add_adapter()
    with pytest.raises(kind, match=says):
        registry.record_evaluation(version.digest, report)
    assert registry.evaluations(version.digest) == []
    assert [entry.action for entry in registry.audit() if entry.action == "evaluate"] == []


@pytest.mark.parametrize(
    "report",
    [
        {},
        {"task": None, "tax": None, "policy": None},
        {"task": {"n": None, "delta": None, "metric": None, "anything": {"else": ["x"]}}, "tax": []},
        {"tax": [{"suite": "s", "n": 0, "low": -1, "noted": "by hand"}], "more": "x"},
    ],
)
def test_what_was_not_measured_may_be_absent_and_more_may_be_there(
    registry: Registry, add_adapter: Add, report: dict[str, Any]
) -> None:
    version = add_adapter()
    assert registry.record_evaluation(version.digest, report).report == report


def test_what_a_report_lies_over_is_no_excuse(registry: Registry, add_adapter: Add) -> None:
    version = add_adapter()
    kept = registry.record_evaluation(version.digest, {"task": {"n": 120}})
    with pytest.raises(ReportInvalid, match=r"task\.n"):
        registry.record_evaluation(version.digest, {"task": {"n": "120"}}, over_newest=True)
    assert registry.evaluations(version.digest) == [kept]
