from __future__ import annotations

from typing import Any

import pytest

from components.data.chat import encode, prompt_ids
from components.data.rows import Message, Row
from components.decision.cost import finetuned_request, shared_prefix_tokens, tokens_saved

Prompt = tuple[Message, ...]


def test_finetuned_request_is_the_plain_prompt_the_answer_and_its_end(tiny_tokenizer: Any) -> None:
    rows = [
        Row((Message("user", "How many singers?"), Message("assistant", "SELECT count(*) FROM singer"))),
        Row((Message("system", "s(id)"), Message("user", "q"), Message("assistant", "a"))),
    ]
    # the template adds a line break behind the turn end, which no answer carries
    break_tokens = len(tiny_tokenizer("\n", add_special_tokens=False)["input_ids"])
    expected = sum(len(encode(tiny_tokenizer, row.messages).input_ids) - break_tokens for row in rows) / 2
    found = finetuned_request(tiny_tokenizer, rows)
    assert found.tokens_per_request == expected
    assert found.prompt_tokens_per_request == sum(len(prompt_ids(tiny_tokenizer, row.prompt)) for row in rows) / 2


def test_saving_is_what_a_candidate_carries_beyond_the_finetuned_request() -> None:
    saved = tokens_saved({"zero-shot": 130.0, "few-shot": 520.5}, 120.0)
    assert saved == {"zero-shot": pytest.approx(10.0), "few-shot": pytest.approx(400.5)}


def test_examples_that_stand_in_every_prompt_are_shared_and_the_question_is_not(tiny_tokenizer: Any) -> None:
    shown: Prompt = (Message("user", "How many singers are there?"), Message("assistant", "SELECT count(*) FROM s"))
    prompts = [(*shown, Message("user", question)) for question in ("What is the name?", "The quick brown fox")]
    shared = shared_prefix_tokens(tiny_tokenizer, prompts)
    one, other = (prompt_ids(tiny_tokenizer, prompt) for prompt in prompts)
    assert shared[0] == shared[1]
    assert one[: shared[0]] == other[: shared[0]]
    assert one[shared[0]] != other[shared[0]]


def test_prefix_is_shared_with_the_nearest_prompt_not_with_all(tiny_tokenizer: Any) -> None:
    prompts: list[Prompt] = [
        (Message("system", system), Message("user", question))
        for system in ("singer(id, name)", "stadium(id, capacity)")
        for question in ("What is the name?", "The quick brown fox")
    ]
    alone = (Message("system", "yes no true false"), Message("user", "0 1 2"))
    shared = shared_prefix_tokens(tiny_tokenizer, [*prompts, alone])
    every = shared_prefix_tokens(tiny_tokenizer, [prompts[0], prompts[2]])[0]
    assert min(shared[:4]) > every
    assert shared[4] <= every
    # what has to be computed to answer is not cached, even of a prompt that was asked before
    assert shared_prefix_tokens(tiny_tokenizer, [alone, alone]) == [len(prompt_ids(tiny_tokenizer, alone)) - 1] * 2
    assert shared_prefix_tokens(tiny_tokenizer, [alone]) == [0]
