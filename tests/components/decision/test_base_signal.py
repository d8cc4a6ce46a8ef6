from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from components.data.rows import Message, Row
from components.decision.base_signal import AnswerSignal, WordOrder, _in_order, _other_order, answer_signal, word_order
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
    assert found is not None
    assert found.known
    assert (found.beaten, found.shuffles) == (24, 24)
    assert found.nats > 1
    unknown = word_order(tiny_model, tokenizer, ROWS)
    assert unknown is not None
    assert not unknown.known
    assert unknown.beaten < 24


def asked(*texts: str) -> list[Row]:
    return [Row((Message("user", text), Message("assistant", "b"))) for text in texts]


def test_rows_without_an_order_to_shuffle_can_not_be_tested(trained: Any) -> None:
    """Questions of a word or two say nothing about the base: that must not read as a base without language."""
    assert word_order(*trained, asked("a")) is None
    assert word_order(*trained, asked("a a a a a a a a")) is None
    assert word_order(*trained, []) is None


def test_short_questions_are_taken_until_there_are_enough_tokens(tiny_model: Any, tiny_tokenizer: Any) -> None:
    words = ("over", "dog", "lazy", "quick", "brown", "number", "red", "blue")
    short = [f"the {word}" for word in words]
    ids = [tiny_tokenizer(text, add_special_tokens=False)["input_ids"] for text in short]
    usable = [tokens for tokens in ids if len(set(tokens)) >= 4]
    assert sum(map(len, usable)) <= 40, "all are wanted"
    found = word_order(tiny_model, tiny_tokenizer, asked(*short))
    assert found is not None
    assert found.n == len(usable) > 3
    many = word_order(tiny_model, tiny_tokenizer, ROWS)
    assert many is not None
    assert many.n == 3, "three of 16 tokens are enough"


def test_no_shuffle_leaves_a_question_as_it_is() -> None:
    questions = [[5, 6, 7, 8], [1, 2, 3, 4, 1, 2]]
    for seed in range(200):
        order = _other_order(random.Random(seed), questions)
        assert sorted(order) == list(range(16))
        assert all(_in_order(ids, order) != ids for ids in questions)


def test_likelihoods_of_a_model_that_knows_tie_answers_to_questions(trained: Any, tiny_model: Any) -> None:
    model, tokenizer = trained
    prompts, answers = [[pair(n)[0]] for n in range(16)], [pair(n)[1].content for n in range(16)]
    found = answer_signal(model, tokenizer, prompts, answers, candidate="zero-shot")
    assert found is not None
    assert found.present
    assert found.nats > 0.5
    assert (found.n, found.candidate) == (8, "zero-shot"), "the first look was clear enough"
    shifted = answers[1:] + answers[:1]
    absent = answer_signal(model, tokenizer, prompts, shifted, candidate="zero-shot")
    assert absent is not None
    assert not absent.present


def test_answers_that_do_not_differ_enough_can_not_be_tested(trained: Any) -> None:
    """Equal answers, and too few pairings for one to be rare, are no sign that the base ties nothing to questions."""
    prompts = [[pair(n)[0]] for n in range(8)]
    assert answer_signal(*trained, prompts, ["red"] * 8, candidate="few-shot") is None
    assert answer_signal(*trained, prompts, ["red"] * 7 + ["blue"], candidate="few-shot") is None
    assert answer_signal(*trained, prompts[:3], ["red", "blue", "nine"], candidate="few-shot") is None
    assert answer_signal(*trained, prompts, ["red"] * 6 + ["blue"] * 2, candidate="few-shot") is not None


def test_rows_behind_the_first_look_are_tested_where_that_sees_one_answer(trained: Any) -> None:
    prompts = [[pair(n)[0]] for n in range(16)]
    found = answer_signal(*trained, prompts, ["red"] * 8 + ["blue"] * 8, candidate="few-shot")
    assert found is not None
    assert found.n == 16


def test_counts_that_chance_gives_are_not_knowledge() -> None:
    assert WordOrder(0.5, 38, 39, 4).p_value == 0.05
    assert not WordOrder(0.5, 38, 39, 4).known
    assert not AnswerSignal(0.5, 0.2, 24, "few-shot").present


def test_prompts_without_answers_are_refused(trained: Any) -> None:
    with pytest.raises(InputError, match="0 answers for 1 prompts"):
        answer_signal(*trained, [[pair(0)[0]]], [], candidate="zero-shot")
