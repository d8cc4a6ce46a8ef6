"""The gate alone: which reports pass, and that nothing odd passes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import PolicyInvalid
from registry.gate import Policy, check


def _failed(report: dict[str, Any] | None, policy: Policy) -> list[str]:
    return [c.name for c in check(policy, report).checks if not c.passed]


def test_report_that_shows_all_passes(make_report: Any, policy: Policy) -> None:
    verdict = check(policy, make_report())
    assert (verdict.passed, verdict.reasons) == (True, ())
    assert [c.name for c in verdict.checks] == ["task_rows", "task_delta", "task_interval", "suites", "suite:grammar"]


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({"n": 99}, ["task_rows"]),
        ({"n": True}, ["task_rows"]),
        ({"n": None}, ["task_rows"]),
        ({"delta": 0.09}, ["task_delta"]),
        ({"delta": float("nan")}, ["task_delta"]),
        ({"delta": "0.9"}, ["task_delta"]),
        ({"low": 0.0}, ["task_interval"]),
        ({"low": float("inf")}, ["task_interval"]),
        ({"low": 0.5, "high": 0.4}, ["task_interval"]),
        ({"high": None}, ["task_interval"]),
    ],
)
def test_task_value_that_is_too_low_or_no_number_fails(
    make_report: Any, policy: Policy, changes: dict[str, Any], failed: list[str]
) -> None:
    report = make_report()
    report["task"].update(changes)
    assert _failed(report, policy) == failed


@pytest.mark.parametrize(
    ("tax", "failed"),
    [
        ([], ["suites"]),
        (None, ["suites"]),
        ("grammar", ["suites"]),
        ([{"suite": "a", "low": -0.05}], []),
        ([{"suite": "a", "low": -0.051}], ["suite:a"]),
        ([{"suite": "a", "low": 0.0}, {"suite": "b"}], ["suite:b"]),
        ([{"suite": "a", "low": 0.0}, "b"], ["suite:None"]),
    ],
)
def test_suite_that_lost_too_much_or_was_not_measured_fails(
    make_report: Any, policy: Policy, tax: Any, failed: list[str]
) -> None:
    assert _failed({**make_report(), "tax": tax}, policy) == failed


def test_missing_evaluation_is_a_reason_unless_the_policy_does_without(policy: Policy) -> None:
    assert _failed(None, policy) == ["evaluation"]
    assert _failed({"tax": [{"suite": "a", "low": 0.0}]}, policy) == ["task"]
    assert check(Policy(require_evaluation=False), None).passed


def test_doing_without_an_evaluation_does_not_excuse_a_bad_one(make_report: Any) -> None:
    assert not check(Policy(require_evaluation=False), make_report(-0.5, low=-0.6)).passed


@pytest.mark.parametrize(
    "values",
    [
        {"min_task_delta": float("nan")},
        {"max_suite_drop": -0.1},
        {"min_rows": 1.5},
        {"min_rows": True},
        {"task_interval_excludes_zero": "yes"},
        [],
    ],
)
def test_impossible_policy_is_refused(values: Any) -> None:
    with pytest.raises(PolicyInvalid):
        Policy.from_dict(values)


def test_unknown_policy_key_names_the_nearest() -> None:
    with pytest.raises(PolicyInvalid, match="did you mean 'min_task_delta'"):
        Policy.from_dict({"min_task_dleta": 0.1})


def test_policy_comes_back_from_its_document(policy: Policy) -> None:
    assert Policy.from_dict(policy.to_dict()) == policy


_numbers = st.floats() | st.integers() | st.none() | st.booleans() | st.sampled_from(["", "0.9"])


@given(
    task=st.fixed_dictionaries({}, optional=dict.fromkeys(("n", "delta", "low", "high"), _numbers)) | st.none(),
    tax=st.lists(st.fixed_dictionaries({"suite": st.sampled_from("ab")}, optional={"low": _numbers}), max_size=3),
)
def test_whatever_passes_really_satisfies_the_policy(task: Any, tax: Any) -> None:
    policy = Policy(min_task_delta=0.1, max_suite_drop=0.05, min_rows=100)
    if check(policy, {"task": task, "tax": tax}).passed:
        assert task["n"] >= 100
        assert task["delta"] >= 0.1
        assert 0 < task["low"] <= task["high"]
        assert tax
        assert all(suite["low"] >= -0.05 for suite in tax)
