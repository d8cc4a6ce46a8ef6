from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.data.rows import Message, Row
from components.decision.base_signal import AnswerSignal, WordOrder, answer_signal, word_order
from components.errors import InputError

QUESTIONS = [f"the quick brown fox number {n} jumps over the lazy dog" for n in range(16)]
ROWS = [Row((Message("user", text), Message("assistant", "yes"))) for text in QUESTIONS]
WORDS = ("red", "blue", "nine", "over")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A tiny model that has learnt the questions by heart, and the answer word that each ends with."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from components.data.chat import encode
    from components.models.tiny import make_tiny

    folder: Path = make_tiny(tmp_path_factory.mktemp("trained"), seed=1)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = [encode(tokenizer, pair(n)).input_ids for n in range(16)]
    texts += [tokenizer(text, add_special_tokens=False)["input_ids"] for text in QUESTIONS]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(50):
        for ids in texts:
            batch = torch.tensor([ids])
            model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), tokenizer


def pair(n: int) -> tuple[Message, Message]:
    return Message("user", f"What goes with {WORDS[n % 4]}?"), Message("assistant", WORDS[(n + 1) % 4])


def test_trained_model_knows_the_order_of_words_and_a_random_one_does_not(trained: Any, tiny_model: Any) -> None:
    model, tokenizer = trained
    found = word_order(model, tokenizer, ROWS)
    assert found.known
    assert (found.n, found.beaten, found.shuffles) == (3, 24, 24)
    assert found.nats > 1
    unknown = word_order(tiny_model, tokenizer, ROWS)
    assert not unknown.known
    assert unknown.beaten < 24


def test_rows_without_a_question_to_shuffle_tell_nothing(trained: Any) -> None:
    model, tokenizer = trained
    assert not word_order(model, tokenizer, [Row((Message("user", "a"), Message("assistant", "b")))]).known


def test_likelihoods_of_a_model_that_knows_tie_answers_to_questions(trained: Any, tiny_model: Any) -> None:
    model, tokenizer = trained
    prompts, answers = [[pair(n)[0]] for n in range(16)], [pair(n)[1].content for n in range(16)]
    found = answer_signal(model, tokenizer, prompts, answers, candidate="zero-shot")
    assert found.present
    assert found.nats > 0.5
    assert (found.n, found.candidate) == (8, "zero-shot"), "the first look was clear enough"
    shifted = answers[1:] + answers[:1]
    assert not answer_signal(model, tokenizer, prompts, shifted, candidate="zero-shot").present


def test_equal_answers_tell_nothing(trained: Any) -> None:
    model, tokenizer = trained
    found = answer_signal(model, tokenizer, [[pair(n)[0]] for n in range(8)], ["red"] * 8, candidate="few-shot")
    assert found.nats == pytest.approx(0, abs=1e-6)
    assert found.p_value == 1.0
    assert not found.present


def test_counts_that_chance_gives_are_not_knowledge() -> None:
    assert not WordOrder(0.0, 0, 0, 0).known
    assert WordOrder(0.5, 38, 39, 4).p_value == 0.05
    assert not WordOrder(0.5, 38, 39, 4).known
    assert not AnswerSignal(0.5, 0.2, 24, "few-shot").present


def test_prompts_without_answers_are_refused(trained: Any) -> None:
    with pytest.raises(InputError, match="0 answers for 1 prompts"):
        answer_signal(*trained, [[pair(0)[0]]], [], candidate="zero-shot")
