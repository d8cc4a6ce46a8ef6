from __future__ import annotations

from dataclasses import replace

import pytest

from components.decision.verdict import VERDICTS, Measured, reach_verdict
from components.evaluation.statistics import rows_needed, wilson


def measured(
    right: int, n: int, *, form: int = 0, facts: int = 0, target: float = 0.9, train_rows: int = 500
) -> Measured:
    low, high = wilson(right, n)
    capability = n - right - form - facts
    needed = rows_needed(right / n, target)
    return Measured(
        "few-shot", right / n, low, high, n, form, facts, capability, target, train_rows, min_train_rows=100,
        rows_to_decide=needed,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("case", "verdict", "rules"),
    [
        (measured(100, 100), "prompt", 1),
        (measured(99, 100, train_rows=3), "prompt", 1),
        (measured(19, 20), "prompt", 2),
        (measured(3, 100, train_rows=99), "more_data", 3),
        (measured(3, 100, train_rows=100), "finetune", 5),
        (measured(3, 100, form=90), "finetune", 5),
        (measured(40, 100, facts=50), "rag", 4),
        (measured(40, 100, form=30, facts=20), "rag_then_finetune", 4),
        (measured(40, 100, form=50, facts=5), "finetune", 5),
    ],
)
def test_first_rule_that_holds_decides(case: Measured, verdict: str, rules: int) -> None:
    found = reach_verdict(case)
    assert found.verdict == verdict
    assert found.verdict in VERDICTS
    assert [rule.holds for rule in found.rules] == [False] * (rules - 1) + [True]


def test_every_rule_states_its_evidence_and_what_would_change_it() -> None:
    found = reach_verdict(measured(3, 100, form=60))
    assert len(found.reasons) == len(found.rules)
    assert "few-shot scores 3.0 % (1.0 % to 8.5 %, n=100) against a target of 90.0 %" in found.reasons[0]
    assert "97 of 100 rows fail: form 60, facts 0, capability 37" in found.reasons[-1]
    assert all("Would change with" in reason for reason in found.reasons)


def test_score_whose_interval_holds_the_target_is_undecided_with_the_sample_that_decides() -> None:
    found = reach_verdict(measured(80, 100, target=0.85))
    assert found.verdict == "finetune"
    (said,) = found.undecided
    needed = rows_needed(0.8, 0.85)
    assert said.startswith("undecided: whether few-shot reaches the target of 85.0 %")
    assert f"{needed} dev rows would decide" in said
    assert found.reasons[-1] == said
    assert reach_verdict(measured(3, 100)).undecided == ()


def test_small_sample_is_said_to_be_one() -> None:
    found = reach_verdict(measured(0, 8))
    assert found.verdict == "finetune"
    assert found.undecided == (
        "undecided: 8 dev rows are a small sample (the score is known to 32 points); 20 rows or more are wanted",
    )


def test_target_is_judged_by_the_lower_bound_not_the_score() -> None:
    case = measured(95, 100)
    assert not reach_verdict(case).rules[0].holds
    assert reach_verdict(replace(case, low=0.9)).rules[0].holds
