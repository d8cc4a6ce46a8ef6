from __future__ import annotations

from typing import Any

import pytest

from components.data.chat import encode
from components.data.rows import Message, Row
from components.decision.cost import finetuned_tokens_per_request, tokens_saved


def test_finetuned_request_is_the_plain_prompt_the_answer_and_its_end(tiny_tokenizer: Any) -> None:
    rows = [
        Row((Message("user", "How many singers?"), Message("assistant", "SELECT count(*) FROM singer"))),
        Row((Message("system", "s(id)"), Message("user", "q"), Message("assistant", "a"))),
    ]
    # the template adds a line break behind the turn end, which no answer carries
    break_tokens = len(tiny_tokenizer("\n", add_special_tokens=False)["input_ids"])
    expected = sum(len(encode(tiny_tokenizer, row.messages).input_ids) - break_tokens for row in rows) / 2
    assert finetuned_tokens_per_request(tiny_tokenizer, rows) == expected


def test_saving_is_what_a_candidate_carries_beyond_the_finetuned_request() -> None:
    saved = tokens_saved({"zero-shot": 130.0, "few-shot": 520.5}, 120.0)
    assert saved == {"zero-shot": pytest.approx(10.0), "few-shot": pytest.approx(400.5)}
