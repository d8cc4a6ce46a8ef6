"""Which reports a registry takes: in which everything that the gate reads has the type that it reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from registry.entities import Version
from registry.errors import ManifestInvalid, PolicyInvalid, RegistryError, ReportInvalid
from registry.manifest import Manifest, describe_files
from registry.store import Registry

Add = Callable[..., Version]


def nested(depth: int) -> Any:
    """Return a number in so many lists, objects in turn."""
    found: Any = 1
    for number in range(depth):
        found = [found] if number % 2 else {"a": found}
    return found


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
        ({"task": {"tuned": 10**400}}, ReportInvalid, "task.tuned is 1000"),
        ({"task": {"n": 10**5000}}, ReportInvalid, "task.n is a number of very many digits"),
        ({"task": {"metric": "em\x1b[2K\r\n  gate: passes"}}, ReportInvalid, r"task.metric is 'em\\x1b"),
        ({"task": {"baseline": {"a": 1}}}, ReportInvalid, "task.baseline is"),
        ({"task": {"subsets": {}}}, ReportInvalid, "task.subsets is"),
        ({"task": {"subsets": [{"subset": "hard"}, 1]}}, ReportInvalid, r"task.subsets\[1\] is 1"),
        ({"task": {"subsets": [{"subset": "hard", "n": "q"}]}}, ReportInvalid, r"task.subsets\[0\].n is 'q'"),
        ({"noted": nested(101)}, ReportInvalid, "nested more than 100 deep"),
        ({"noted": nested(5000)}, ReportInvalid, "nested more than 100 deep"),
        ({"policy": {"required_approvals": 101}}, PolicyInvalid, "required_approvals is 101"),
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
        {"noted": nested(99)},
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


def test_what_an_earlier_release_took_stands_in_no_right_reports_way(
    registry: Registry, add_adapter: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    version = add_adapter()
    with monkeypatch.context() as patch:
        patch.setattr("registry.recording.check_report", lambda _report: None)
        registry.record_evaluation(version.digest, {"tax": {}, "policy": {"min_rowz": 1}})
    found = registry.record_evaluation(version.digest, {"task": {"n": 120}}, over_newest=True)
    assert found.report == {"tax": {}, "policy": {"min_rowz": 1}, "task": {"n": 120}}


def test_manifest_that_nothing_could_show_is_refused(registry: Registry, add_base: Add, write_files: Any) -> None:
    files = write_files("deep")
    described = describe_files(files)
    manifest = Manifest("base", described, base_fingerprint="d" * 64, metadata={"x": nested(240)})
    with pytest.raises(ManifestInvalid, match="metadata is nested more than 100 deep"):
        registry.register("deep", manifest, files)
    with pytest.raises(ManifestInvalid, match="recursion"):
        Manifest("base", described, base_fingerprint="d" * 64, metadata={"x": nested(50_000)})
    assert registry.versions() == []
    assert list(registry.blobs.stored()) == []
