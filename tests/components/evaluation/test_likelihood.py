from __future__ import annotations

from typing import Any

import pytest

from components.errors import InputError
from components.evaluation.likelihood import ChoiceItem, choice_log_likelihoods, score_choices

ITEMS = [
    ChoiceItem("What is the name of the oldest student?", (" singer", " The quick brown fox", " age"), 1),
    ChoiceItem("yes or no:", (" yes", " no"), 0),
    ChoiceItem("stadium(id, location, capacity) concert(id, title, year) " * 4, (" A", " B", " C. D.", " lazy dog"), 3),
    ChoiceItem("0 1 2", (" 3",), 0),
]


def alone(model: Any, tokenizer: Any, prompt: str, choice: str) -> float:
    """Score one choice in an ordinary sequence of its own."""
    import torch

    before = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    answer = tokenizer(choice, add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logits = model(torch.tensor([before + answer])).logits[0].float().log_softmax(-1)
    places = range(len(before) - 1, len(before) + len(answer) - 1)
    return sum(float(logits[place, token]) for place, token in zip(places, answer, strict=True)) / len(choice.strip())


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_packed_choices_score_as_each_alone(tiny_model: Any, tiny_tokenizer: Any, batch_size: int) -> None:
    expected = [[alone(tiny_model, tiny_tokenizer, item.prompt, choice) for choice in item.choices] for item in ITEMS]
    found = choice_log_likelihoods(tiny_model, tiny_tokenizer, ITEMS, batch_size=batch_size)
    for scores, right in zip(found, expected, strict=True):
        assert scores == pytest.approx(right, abs=1e-4)
    best = score_choices(tiny_model, tiny_tokenizer, ITEMS, batch_size=batch_size)
    assert best == [right.index(max(right)) for right in expected]


def test_long_choice_can_win_although_it_is_less_likely_as_a_whole(tiny_model: Any, tiny_tokenizer: Any) -> None:
    item = ChoiceItem("How many singers are there?", (" A", " concert stadium"), 1)
    (scores,) = choice_log_likelihoods(tiny_model, tiny_tokenizer, [item])
    totals = [score * len(choice.strip()) for score, choice in zip(scores, item.choices, strict=True)]
    assert totals[0] > totals[1]
    assert score_choices(tiny_model, tiny_tokenizer, [item]) == [1]


def test_progress_counts_items_and_mode_is_restored(tiny_model: Any, tiny_tokenizer: Any) -> None:
    seen: list[tuple[int, int]] = []
    tiny_model.train()
    score_choices(
        tiny_model, tiny_tokenizer, ITEMS, batch_size=3, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(3, 4), (4, 4)]
    assert tiny_model.training


def test_choice_without_tokens_is_refused(tiny_model: Any, tiny_tokenizer: Any) -> None:
    with pytest.raises(InputError, match="item 0 has a choice that adds no token"):
        score_choices(tiny_model, tiny_tokenizer, [ChoiceItem("q", ("",), 0)])
    with pytest.raises(InputError, match="item 0 has no choices"):
        score_choices(tiny_model, tiny_tokenizer, [ChoiceItem("q", (), 0)])
