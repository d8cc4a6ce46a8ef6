from __future__ import annotations

import random
from typing import Any

from components.data.rows import Message, Row
from components.decision.word_order import WordOrder, _in_order, _other_order, word_order
from tests.components.decision.conftest import QUESTIONS

ROWS = [Row((Message("user", text), Message("assistant", "yes"))) for text in QUESTIONS]


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


def test_counts_that_chance_gives_are_not_knowledge() -> None:
    assert WordOrder(0.5, 38, 39, 4).p_value == 0.05
    assert not WordOrder(0.5, 38, 39, 4).known
