"""The gate alone: which reports pass, and that nothing odd passes."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from registry.errors import PolicyInvalid
from registry.gate import Champion, Policy, effective_policy, recorded_policy
from registry.gate import check as check_kind

check = partial(check_kind, kind="base")


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
        {"max_champion_loss": -0.1},
        {"max_champion_loss": True},
        {"max_champion_loss": float("inf")},
        {"require_champion_comparison": 1},
        {"require_champion_comparison": True, "max_champion_loss": None},
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


def test_policy_that_asks_for_no_signature_reads_as_before_there_were_such(policy: Policy) -> None:
    assert "required_signature" not in policy.to_dict()
    asking = replace(policy, required_signature="ab" * 32)
    assert Policy.from_dict(asking.to_dict()) == asking
    for value in ("", "ab", "AB" * 32, 3, True):
        with pytest.raises(PolicyInvalid, match="required_signature"):
            Policy.from_dict({"required_signature": value})


def test_policy_of_a_report_is_the_one_recorded_in_it(policy: Policy) -> None:
    assert recorded_policy({"policy": policy.to_dict()}) == policy
    assert recorded_policy(None) is None
    assert recorded_policy({"policy": None}) is None
    with pytest.raises(PolicyInvalid):
        recorded_policy({"policy": []})


def test_policy_that_a_report_is_judged_by_is_the_callers_then_the_recorded_one_then_the_defaults(
    policy: Policy,
) -> None:
    recorded = {"policy": Policy(min_rows=7).to_dict()}
    assert effective_policy(policy, recorded) == policy
    assert effective_policy(None, recorded) == Policy(min_rows=7)
    assert effective_policy(None, {"task": {}}) == effective_policy(None, None) == Policy()
    assert effective_policy(policy, {"policy": []}) == policy  # what nobody asks for stops nobody
    with pytest.raises(PolicyInvalid):
        effective_policy(None, {"policy": []})


def _scored(make_report: Any, tuned: object, **changes: Any) -> dict[str, Any]:
    report: dict[str, Any] = make_report()
    report["task"].update(tuned=tuned, **changes)
    return report


@pytest.mark.parametrize(
    ("tuned", "loss", "passes"),
    [
        (0.5, 0.0, True),
        (0.51, 0.0, True),
        (0.49, 0.0, False),
        (0.4, 0.1, True),
        (0.39, 0.1, False),
        (None, 0.0, False),
        (float("nan"), 1.0, False),
        ("0.9", 0.0, False),
    ],
)
def test_challenger_may_not_lose_more_than_allowed_against_the_champion(
    make_report: Any, tuned: object, loss: float, passes: bool
) -> None:
    champion = Champion("m:v1", _scored(make_report, 0.5, test_digest="t"))
    verdict = check(Policy(max_champion_loss=loss), _scored(make_report, tuned, test_digest="t"), champion)
    found = verdict.checks[-1]
    assert (found.name, found.passed, verdict.passed) == ("champion", passes, passes)
    assert found.bound == pytest.approx(0.5 - loss)
    assert (found.reason is None) == passes
    assert passes or "that of m:v1 is 50.0 %" in verdict.reasons[0]


def test_loss_at_the_bound_is_allowed_whatever_binary_fractions_say(make_report: Any) -> None:
    champion = Champion("m:v1", _scored(make_report, 0.4))
    assert check(Policy(max_champion_loss=0.1), _scored(make_report, 0.3), champion).passed


@pytest.mark.parametrize(
    ("challenger", "champion", "says"),
    [
        ({"metric": "exact_match"}, {}, "its metric is exact_match, that version's is execution_match"),
        ({"metric": None}, {}, "its report names no metric"),
        ({}, {"metric": None}, "that version's report names no metric"),
        (
            {"test_digest": "a" * 64},
            {"test_digest": "b" * 64},
            "its test is aaaaaaaaaaaa, that version's is bbbbbbbbbbbb",
        ),
        ({"test_digest": "a" * 64}, {}, "that version's report names no test"),
        ({}, {"test_digest": "a" * 64}, "its report names no test"),
        ({}, {"tuned": None}, "that version has no task score"),
        ({}, None, "that version has no task score"),
    ],
)
def test_what_cannot_be_compared_passes_and_says_so_unless_the_comparison_is_required(
    make_report: Any, challenger: dict[str, Any], champion: dict[str, Any] | None, says: str
) -> None:
    better = {"tuned": 0.9}
    held = Champion("m:v1", None if champion is None else _scored(make_report, **{**better, **champion}))
    report = _scored(make_report, 0.1, **challenger)
    verdict = check(Policy(), report, held)
    assert (verdict.passed, verdict.reasons) == (True, ())
    assert (verdict.checks[-1].passed, verdict.checks[-1].bound) == (True, None)
    assert verdict.checks[-1].reason == f"could not be compared with m:v1: {says}"
    refusal = check(Policy(require_champion_comparison=True), report, held)
    assert not refusal.passed
    assert refusal.reasons == (f"could not be compared with m:v1: {says}, and the policy asks for the comparison",)


def test_challenger_without_a_report_cannot_be_compared(make_report: Any) -> None:
    held = Champion("base:v1", make_report())
    assert check(Policy(require_evaluation=False), None, held).passed
    assert not check(Policy(require_evaluation=False, require_champion_comparison=True), None, held).passed


def test_no_bound_or_no_champion_makes_no_comparison(make_report: Any) -> None:
    held = Champion("m:v1", _scored(make_report, 0.9))
    for verdict in (check(Policy(max_champion_loss=None), make_report(), held), check(Policy(), make_report())):
        assert verdict.passed
        assert "champion" not in [c.name for c in verdict.checks]
    assert check(Policy(require_champion_comparison=True), make_report()).passed  # the first has nobody to beat


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
