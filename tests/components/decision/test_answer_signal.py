from __future__ import annotations

from typing import Any

import numpy
import pytest

from components.decision import answer_signal as module
from components.decision.answer_signal import AnswerLikelihoods, AnswerSignal, answer_signal, permutation_p, tied
from components.errors import InputError
from tests.components.decision.conftest import pair


def signal(trained: tuple[Any, Any], prompts: list[Any], answers: list[str]) -> AnswerSignal | None:
    return answer_signal(AnswerLikelihoods(*trained, answers), "few-shot", prompts)


def test_likelihoods_of_a_model_that_knows_tie_answers_to_questions(trained: Any) -> None:
    prompts, answers = [[pair(n)[0]] for n in range(16)], [pair(n)[1].content for n in range(16)]
    found = signal(trained, prompts, answers)
    assert found is not None
    assert found.present
    assert found.nats > 0.5
    assert (found.n, found.candidate) == (8, "few-shot"), "the first look was clear enough"
    absent = signal(trained, prompts, answers[1:] + answers[:1])
    assert absent is not None
    assert not absent.present


def test_a_table_tells_how_far_it_is_and_is_computed_once(trained: Any) -> None:
    told: list[tuple[str, int, int]] = []
    answers = [pair(n)[1].content for n in range(8)]
    likelihoods = AnswerLikelihoods(*trained, answers, progress=lambda *seen: told.append(seen))
    prompts = [[pair(n)[0]] for n in range(8)]
    for _ in range(2):
        likelihoods.table("rag", prompts, 8)
    assert told[-1] == ("rag", 8, 8)
    assert [done for _, done, _ in told] == sorted({done for _, done, _ in told})


def test_answers_that_do_not_differ_enough_can_not_be_tested(trained: Any) -> None:
    """Equal answers, and too few pairings for one to be rare, are no sign that the base ties nothing to questions."""
    prompts = [[pair(n)[0]] for n in range(8)]
    assert signal(trained, prompts, ["red"] * 8) is None
    assert signal(trained, prompts, ["red"] * 7 + ["blue"]) is None
    assert signal(trained, prompts[:3], ["red", "blue", "nine"]) is None
    assert signal(trained, prompts, ["red"] * 6 + ["blue"] * 2) is not None


def test_rows_behind_the_first_look_are_tested_where_that_sees_one_answer(trained: Any) -> None:
    prompts = [[pair(n)[0]] for n in range(16)]
    found = signal(trained, prompts, ["red"] * 8 + ["blue"] * 8)
    assert found is not None
    assert found.n == 16


def test_tables_are_centred_and_computed_once(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, answers = [[pair(n)[0]] for n in range(8)], [pair(n)[1].content for n in range(8)]
    likelihoods = AnswerLikelihoods(*trained, answers)
    table = likelihoods.table("zero-shot", prompts, 8)
    assert table.shape == (8, 8)
    assert abs(table.mean(axis=0)).max() < 1e-9
    assert abs(table.mean(axis=1)).max() < 1e-9
    monkeypatch.setattr(module, "choice_log_likelihoods", None)
    assert likelihoods.table("zero-shot", prompts, 8) is table


def test_two_looks_together_keep_to_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing ties answers to questions, a first look that may end the test adds no false alarms."""
    monkeypatch.setattr(module, "PERMUTATIONS", 400)
    generator, alarms, tries = numpy.random.default_rng(0), 0, 600
    for seed in range(tries):
        table = generator.normal(size=(24, 24))
        first = tied(table[:8, :8], "few-shot", seed)
        decided = first if first.p_value < module.CLEAR else tied(table, "few-shot", seed, looked_before=True)
        alarms += decided.p_value < module.LEVEL
    # 5 % of 600 are 30, give or take 2.6 standard deviations
    assert 14 < alarms < 44
    assert permutation_p(1.0, numpy.zeros(999)) == 0.001
    assert permutation_p(1.0, numpy.zeros(999), looked_before=True) == pytest.approx(0.006)


def test_what_chance_gives_is_not_knowledge() -> None:
    assert not AnswerSignal(0.5, 0.2, 24, "few-shot").present
    assert not AnswerSignal(-0.5, 0.01, 24, "few-shot").present


def test_prompts_without_answers_are_refused(trained: Any) -> None:
    with pytest.raises(InputError, match="no answers"):
        AnswerLikelihoods(*trained, [])
    with pytest.raises(InputError, match="1 answers for 2 prompts"):
        AnswerLikelihoods(*trained, ["red"]).table("few-shot", [[pair(0)[0]]] * 2, 1)
