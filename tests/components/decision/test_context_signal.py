from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray

from components.data.rows import Message
from components.decision import answer_signal
from components.decision.answer_signal import AnswerLikelihoods
from components.decision.context_signal import ContextSignal, context_signal, gained
from tests.components.decision.conftest import WORDS, pair

Table = NDArray[Any]


def centred(table: Table) -> Table:
    table = table - table.mean(axis=0, keepdims=True)
    return table - table.mean(axis=1, keepdims=True)


def measured(opened: Table, closed: Table, seed: int = 0) -> ContextSignal:
    return gained(centred(opened), centred(closed), names=("rag", "zero-shot"), seed=seed)


def noise(generator: numpy.random.Generator, n: int, size: float = 1.0) -> Table:
    return generator.normal(size=(n, n)) * size


def half_told(generator: numpy.random.Generator, n: int) -> Table:
    """Likelihoods that tie answers to questions without any passage: half of each answer is in its question."""
    return noise(generator, n, 2) + 6 * numpy.eye(n)


@pytest.mark.parametrize("n", [8, 20, 32])
def test_passages_that_hold_the_other_half_of_the_answer_are_seen_beside_a_signal_without_them(n: int) -> None:
    generator = numpy.random.default_rng(n)
    closed = half_told(generator, n)
    found = measured(closed + 21 * numpy.eye(n) + noise(generator, n, 3), closed)
    assert found.closed.present, "the old question, whether there is a signal without passages, would have missed it"
    assert found.present
    # 27 nats with passages, less those 6 that were there without them as often as the scale says
    assert found.nats == pytest.approx(27 - 6 * found.scale, abs=4)
    assert found.p_value < 0.01


# What passages may do to the likelihoods without telling which answer is right.
NOTHING_TOLD: dict[str, Callable[[numpy.random.Generator, Table], Table]] = {
    "nothing": lambda g, closed: closed + noise(g, len(closed)),
    "all likelier": lambda g, closed: closed + 30 + noise(g, len(closed)),
    "questions and answers likelier": lambda g, closed: (
        closed + g.normal(size=(len(closed), 1)) * 9 + g.normal(size=(1, len(closed))) * 9 + noise(g, len(closed))
    ),
    "less sure of what it prefers": lambda g, closed: 0.6 * closed + noise(g, len(closed)),
}


@pytest.mark.parametrize("effect", NOTHING_TOLD)
@pytest.mark.parametrize("signal", [0, 6])
def test_passages_that_tell_nothing_raise_no_more_alarms_than_the_level(
    effect: str, signal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answer_signal, "PERMUTATIONS", 400)
    generator, tries = numpy.random.default_rng(7), 300
    alarms = small = 0
    for seed in range(tries):
        closed = centred(noise(generator, 20, 2) + signal * numpy.eye(20))
        found = measured(NOTHING_TOLD[effect](generator, closed), closed, seed)
        alarms += found.p_value < 0.05
        small += found.p_value < 0.5
    # 5 % of 300 are 15; 25 are 2.6 standard deviations above
    assert alarms <= 25
    if effect == "nothing" and not signal:
        # a test that never alarms would pass the line above: its p-values must be spread as well. Beside a signal they
        # aren't: with noise in one table alone the slope is too steep
        assert 0.35 < small / tries < 0.65


@pytest.mark.parametrize("closed_noise", [0.0, 0.25, 0.5])
def test_passages_that_only_make_the_base_surer_are_no_facts(
    closed_noise: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the likelihoods that were there, each table with noise of its own: the plain difference alarms always."""
    monkeypatch.setattr(answer_signal, "PERMUTATIONS", 400)
    generator = numpy.random.default_rng(5)
    alarms = plain = 0
    for seed in range(200):
        truth = half_told(generator, 20)
        closed = centred(truth + noise(generator, 20, closed_noise))
        opened = centred(2 * truth + noise(generator, 20))
        found = measured(opened, closed, seed)
        assert found.scale == pytest.approx(2, abs=0.45)
        alarms += found.present
        plain += (opened - closed).trace() / 20 > 3
    assert plain == 200
    # the share of noise is the same in both tables at 0.5; with more of it the slope would be too flat
    assert alarms <= 24


def test_signal_that_passages_destroy_is_no_gain() -> None:
    generator = numpy.random.default_rng(3)
    closed = half_told(generator, 16)
    found = measured(noise(generator, 16), closed)
    assert found.nats < 0
    assert not found.present


def test_equal_tables_show_nothing() -> None:
    table = half_told(numpy.random.default_rng(1), 12)
    found = measured(table, table)
    assert found.nats == pytest.approx(0, abs=1e-9)
    assert not found.present
    nothing = measured(numpy.zeros((12, 12)), numpy.zeros((12, 12)))
    assert (nothing.scale, nothing.p_value, nothing.present) == (1.0, 1.0, False)


def test_passage_with_the_answer_verbatim_counts_for_a_model_that_reads(trained: Any) -> None:
    """The model has learnt which word goes with which: what names the word tells it the answer."""
    answers = [pair(n)[1].content for n in range(16)]
    closed = [[Message("user", "What goes with it?")]] * 16
    opened = [[pair(n)[0]] for n in range(16)]
    found = context_signal(AnswerLikelihoods(*trained, answers), opened=("rag", opened), closed=("zero-shot", closed))
    assert found is not None
    assert found.present
    assert not found.closed.present
    assert (found.opened.candidate, found.closed.candidate) == ("rag", "zero-shot")
    same = context_signal(AnswerLikelihoods(*trained, answers), opened=("rag", opened), closed=("prompt", opened))
    assert same is not None
    assert not same.present
    wrong = [[Message("user", f"What goes with {WORDS[(n + 2) % 4]}?")] for n in range(16)]
    misled = context_signal(AnswerLikelihoods(*trained, answers), opened=("rag", wrong), closed=("zero-shot", closed))
    assert misled is not None
    assert not misled.present
    assert (
        context_signal(AnswerLikelihoods(*trained, ["red"] * 16), opened=("rag", opened), closed=("prompt", closed))
        is None
    )
    assert set(found.to_dict()) == {"nats", "scale", "p_value", "n", "present", "with", "without"}
