"""A passkey's prompt is what it says, and is found exactly where greedy decoding says the number."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from components.errors import InputError
from components.evaluation.generation import generate_ids
from components.evaluation.passkey import PasskeyPrompt, make_prompt, measure_passkey, retrieves


@pytest.mark.parametrize("length", [400, 1000])
@pytest.mark.parametrize("depth", [0.0, 0.5, 1.0])
def test_a_prompt_has_its_length_and_the_number_at_its_depth(tiny_tokenizer: Any, length: int, depth: float) -> None:
    prompt = make_prompt(tiny_tokenizer, length=length, depth=depth, seed=3)
    tokens = len(prompt.ids) + len(prompt.key)
    assert length - 60 < tokens <= length
    text = tiny_tokenizer.decode(prompt.ids)
    key = tiny_tokenizer.decode(prompt.key).strip()
    assert len(key) == 5
    assert text.count(key) == 2
    body = text.partition("asked for it.")[2].rpartition("What is the pass key?")[0]
    place = body.index("The pass key is") / len(body)
    assert abs(place - depth) < 0.25
    assert text.endswith("The pass key is")
    assert prompt == make_prompt(tiny_tokenizer, length=length, depth=depth, seed=3)
    assert prompt.key != make_prompt(tiny_tokenizer, length=length, depth=depth, seed=4).key


def test_found_is_what_greedy_decoding_says(tiny_model: Any, tiny_tokenizer: Any) -> None:
    prompt = make_prompt(tiny_tokenizer, length=400, depth=0.5, seed=1)
    count = len(prompt.key)
    ((said, _),) = generate_ids(tiny_model, [prompt.ids], max_new_tokens=count, stops=frozenset())
    assert tuple(said) != prompt.key
    assert not retrieves(tiny_model, prompt)
    assert retrieves(tiny_model, PasskeyPrompt(prompt.ids, tuple(said), 400, 0.5))
    # right but for its last token is not found
    wrong = (*said[:-1], said[-1] - 1 if said[-1] else 1)
    assert not retrieves(tiny_model, PasskeyPrompt(prompt.ids, wrong, 400, 0.5))


def test_every_length_and_depth_has_its_share_with_an_interval(
    tiny_model: Any, tiny_tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("components.evaluation.passkey.retrieves", lambda _, prompt: prompt.depth == 1)
    seen: list[tuple[int, int]] = []
    found = measure_passkey(
        tiny_model.train(), tiny_tokenizer, lengths=(400, 500), depths=(0, 1), trials=3, seed=1,
        progress=lambda *done: seen.append(done),
    )  # fmt: skip
    assert [(r.length, r.depth, r.found, r.n) for r in found] == [(400, 0, 0, 3), (400, 1, 3, 3), (500, 0, 0, 3),
                                                                  (500, 1, 3, 3)]  # fmt: skip
    assert (found[0].accuracy, found[1].accuracy) == (0.0, 1.0)
    assert 0 == found[0].low < found[0].high < 1
    assert seen[-1] == (12, 12)
    assert tiny_model.training


@pytest.mark.parametrize(
    ("length", "depth", "trials", "problem"),
    [(400, 1.5, 1, "a depth of 1.5"), (60, 0.5, 1, "in 60 tokens"), (400, 0.5, 0, "0 passkeys")],
)
def test_what_cant_be_asked_is_refused(
    tiny_model: Any, tiny_tokenizer: Any, length: int, depth: float, trials: int, problem: str
) -> None:
    with pytest.raises(InputError, match=problem), torch.no_grad():
        measure_passkey(tiny_model, tiny_tokenizer, lengths=(length,), depths=(depth,), trials=trials, seed=1)
