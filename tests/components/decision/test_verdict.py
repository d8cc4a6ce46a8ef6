from __future__ import annotations

from dataclasses import replace

import pytest

from components.decision.answer_signal import AnswerSignal
from components.decision.context_signal import ContextSignal
from components.decision.probe import LearningCurve, ProbePoint
from components.decision.verdict import VERDICTS, Context, Measured, reach_verdict
from components.decision.word_order import WordOrder
from components.evaluation.statistics import Interval, paired_interval, rows_needed, wilson


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


def context(name: str, right: int, n: int, simple_right: int) -> Context:
    """A candidate with passages that is right on `right` rows, all of those among them that the simple prompt has."""
    low, high = wilson(right, n)
    gain = paired_interval([float(i < simple_right) for i in range(n)], [float(i < right) for i in range(n)])
    return Context(name, right / n, low, high, "few-shot", gain.delta, gain.low, gain.high, over_best=gain.delta)


def with_context(right: int, mended: int, n: int = 100, *, form: int = 0, train_rows: int = 500) -> Measured:
    """A simple prompt that gets 10 % right, and an oracle that mends some of the rest."""
    base = measured(10, n, facts=mended, train_rows=train_rows)
    fails = n - right
    return replace(
        base, oracle=context("oracle", right, n, 10), mended=mended, context_form=form, context_capability=fails - form
    )


def curve(gain: Interval, slope: Interval | None) -> LearningCurve:
    points = (ProbePoint(0.5, 50, 0.1, 0.0, 0.3), ProbePoint(1.0, 100, 0.2, 0.1, 0.4))
    return LearningCurve(points, slope, gain, 200 if gain.low <= 0 <= gain.high else None, "few-shot")


UP, FLAT, UNSURE = Interval(0.3, 0.1, 0.5), Interval(0.0, -0.1, 0.1), Interval(0.1, -0.1, 0.3)
KNOWN, UNKNOWN = WordOrder(3.0, 24, 24, 3), WordOrder(0.1, 15, 24, 3)
SIGNAL, NO_SIGNAL = AnswerSignal(2.0, 0.001, 24, "few-shot"), AnswerSignal(0.1, 0.4, 24, "few-shot")
TOLD = ContextSignal(1.9, 1.0, 0.001, SIGNAL, NO_SIGNAL)
TOLD_MORE = ContextSignal(21.0, 1.2, 0.001, AnswerSignal(27.0, 0.001, 24, "rag-few-shot"), SIGNAL)
NOT_TOLD = ContextSignal(0.2, 1.0, 0.3, SIGNAL, SIGNAL)
# significant with passages and not without them, which is no difference
NOT_SIGNIFICANTLY_TOLD = ContextSignal(0.5, 1.0, 0.2, AnswerSignal(1.0, 0.04, 24, "rag"), NO_SIGNAL)


@pytest.mark.parametrize(
    ("case", "verdict", "rules"),
    [
        (measured(100, 100), "prompt", 1),
        (measured(99, 100, train_rows=3), "prompt", 1),
        (measured(19, 20), "prompt", 2),
        (measured(3, 100, train_rows=99), "more_data", 3),
        (measured(3, 100, train_rows=100), "finetune", 4),
        (measured(3, 100, form=90), "finetune", 4),
        (replace(measured(3, 100), word_order=KNOWN), "finetune", 5),
        (replace(measured(3, 100, train_rows=3), word_order=UNKNOWN), "more_data", 4),
        (replace(measured(0, 100, train_rows=3), word_order=UNKNOWN), "other_base", 3),
        (replace(measured(3, 100, train_rows=3), word_order=UNKNOWN, trivial_score=0.05), "other_base", 3),
        (replace(measured(0, 100), word_order=UNKNOWN, retrieved=context("rag", 95, 100, 0)), "rag", 3),
        (replace(measured(0, 100), word_order=UNKNOWN, retrieved=context("rag", 50, 100, 0)), "finetune", 7),
        (replace(measured(0, 100), word_order=UNKNOWN, probe=curve(UP, FLAT)), "finetune", 5),
        (replace(measured(10, 100), retrieved=context("rag", 95, 100, 10)), "rag", 3),
        (with_context(88, 78), "rag", 3),
        (with_context(50, 40, form=40), "rag_then_finetune", 3),
        (with_context(50, 40, form=40, train_rows=20), "rag", 3),
        (with_context(25, 15), "finetune", 5),
        (with_context(12, 60), "finetune", 5),
        (replace(with_context(12, 2, form=88), signal=SIGNAL, context_signal=TOLD), "rag_then_finetune", 4),
        (replace(with_context(12, 2, form=88), signal=SIGNAL, context_signal=TOLD_MORE), "rag_then_finetune", 4),
        (replace(with_context(12, 2, train_rows=9), signal=SIGNAL, context_signal=TOLD), "rag", 4),
        (replace(with_context(12, 2), signal=SIGNAL, context_signal=NOT_TOLD), "finetune", 7),
        (replace(with_context(12, 2), signal=SIGNAL, context_signal=NOT_SIGNIFICANTLY_TOLD), "finetune", 7),
        (replace(with_context(12, 2), signal=NO_SIGNAL), "other_base", 4),
        (replace(measured(10, 100, form=60), signal=NO_SIGNAL), "finetune", 4),
        (replace(measured(10, 100, train_rows=20), signal=NO_SIGNAL), "other_base", 3),
        (replace(measured(10, 100, train_rows=20), signal=SIGNAL), "more_data", 4),
        (replace(measured(10, 100), signal=SIGNAL), "finetune", 5),
        (replace(measured(10, 100), probe=curve(UP, FLAT)), "finetune", 4),
        (replace(measured(10, 100), probe=curve(UP, UP), signal=NO_SIGNAL), "finetune", 5),
        (replace(measured(10, 100), probe=curve(FLAT, UP)), "more_data", 4),
        (replace(measured(10, 100), probe=curve(UNSURE, None)), "finetune", 4),
        (replace(measured(10, 100), probe=curve(FLAT, FLAT)), "other_base", 4),
        (replace(measured(10, 100), probe=curve(FLAT, None)), "finetune", 5),
        (replace(measured(10, 100, target=0.3), probe=curve(FLAT, FLAT)), "finetune", 5),
    ],
)
def test_first_rule_that_holds_decides(case: Measured, verdict: str, rules: int) -> None:
    found = reach_verdict(case)
    assert found.verdict == verdict
    assert found.verdict in VERDICTS
    assert [rule.holds for rule in found.rules] == [False] * (rules - 1) + [True]


def test_context_that_flips_as_many_rows_as_it_mends_is_not_missing_facts() -> None:
    """Half of all wrong answers to a question of two choices become right by any change at all."""
    found = reach_verdict(with_context(12, 60))
    (rule,) = [rule for rule in found.rules if "facts are missing" in rule.name]
    assert not rule.holds
    assert "does not raise the score" in rule.name
    assert "mends 60 of them" in rule.evidence


def test_passages_that_mend_a_bad_prompt_are_not_worth_it_where_a_better_one_needs_none() -> None:
    """Few-shot prompts may gain by passages and still score less than the question as it stands."""
    case = replace(measured(40, 100, facts=20), mended=20)
    bad = replace(context("rag-few-shot", 38, 100, 10), against="few-shot", over_best=-0.02)
    assert bad.gain_low > 0
    found = reach_verdict(replace(case, retrieved=bad))
    (rule,) = [rule for rule in found.rules if "facts are missing" in rule.name]
    assert (rule.holds, found.verdict) == (False, "finetune")
    assert "not above that of few-shot" in rule.name
    useful = replace(bad, over_best=0.02)
    assert reach_verdict(replace(case, retrieved=useful)).verdict == "rag_then_finetune"


def test_evidence_names_what_passages_are_compared_with_and_how_many_candidates_hold_at_once() -> None:
    found = reach_verdict(replace(with_context(50, 40), oracle=context("oracle", 50, 100, 10), compared=5))
    assert "n=100, for all 5 candidates at once" in found.rules[0].evidence
    assert "+40.0 points (+30.9 points to +49.8 points) against few-shot" in found.rules[-1].evidence
    told = reach_verdict(replace(with_context(12, 2, form=88), signal=SIGNAL, context_signal=TOLD_MORE)).rules[-1]
    assert "by +2.00 nats (few-shot" in told.evidence
    assert "with passages by +27.00 nats (rag-few-shot" in told.evidence
    assert "+21.00 nats more than 1.20 times that (p=0.001)" in told.evidence


def test_probe_that_does_not_decide_says_how_many_rows_would() -> None:
    found = reach_verdict(replace(measured(10, 100), probe=curve(UNSURE, None)))
    assert found.undecided == (
        "undecided: whether the probe is better than few-shot (n=100); 200 dev rows would decide",
    )


def test_probe_without_a_curve_is_not_flat_and_is_told() -> None:
    (_, said) = reach_verdict(replace(measured(10, 100), probe=curve(FLAT, None))).undecided
    assert said.startswith("undecided: whether training on more rows than the probe reaches the target: one fraction")
    assert len(reach_verdict(replace(measured(10, 100), probe=curve(FLAT, FLAT))).undecided) == 1


def test_tie_of_the_gold_passages_with_the_target_is_told_and_so_is_that_retrieval_misses_them() -> None:
    case = with_context(88, 78)
    (said,) = reach_verdict(case).undecided
    assert said.startswith("undecided: whether oracle reaches the target of 90.0 %")
    assert f"{rows_needed(0.88, 0.9)} dev rows would decide" in said
    missed = reach_verdict(replace(case, retrieved=context("rag", 20, 100, 10), recall=0.25))
    assert missed.verdict == "rag"
    assert "the passages would do, retrieval misses them (recall 25.0 %)" in missed.rules[-1].evidence
    solved = reach_verdict(replace(case, retrieved=context("rag", 95, 100, 10)))
    assert not any("oracle" in text for text in solved.undecided)


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
