"""Losses are counted where their tokens stand, and show where a model's positions end."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from components.errors import InputError
from components.evaluation.long_text import long_texts, read_passages
from components.evaluation.perplexity_by_position import measure_perplexity, token_losses
from components.finetuning import prompt_tuning
from components.finetuning.prompt_tuning import SoftPromptSettings
from components.models.load import load_model
from components.models.rope import RopeScaling
from components.models.tiny import make_tiny


def texts(count: int, tokens: int) -> list[list[int]]:
    return torch.randint(3, 300, (count, tokens), generator=torch.Generator().manual_seed(1)).tolist()


def test_buckets_hold_the_losses_of_their_positions(tiny_model: Any) -> None:
    found = texts(3, 40)
    seen: list[tuple[int, int]] = []
    buckets = measure_perplexity(tiny_model, found, (0, 10, 40), progress=lambda *done: seen.append(done))
    expected = []
    for text in found:
        ids = torch.tensor([text])
        with torch.no_grad():
            scores = tiny_model(input_ids=ids).logits.log_softmax(-1)
        expected.append(-scores[0, :-1].gather(1, ids[0, 1:, None])[:, 0])
    first = [losses[:9].mean().item() for losses in expected]
    rest = [losses[9:].mean().item() for losses in expected]
    assert [(b.start, b.end, b.tokens) for b in buckets] == [(0, 10, 27), (10, 40, 90)]
    for bucket, means in zip(buckets, (first, rest), strict=True):
        assert bucket.perplexity == pytest.approx(math.exp(sum(means) / 3), rel=1e-3)
        assert (bucket.lowest, bucket.highest) == pytest.approx((math.exp(min(means)), math.exp(max(means))), rel=1e-3)
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_losses_behind_a_soft_prompt_are_those_of_the_real_tokens(tiny_model: Any) -> None:
    (text,) = texts(1, 30)
    plain = token_losses(tiny_model, text)
    prompted = token_losses(prompt_tuning.attach(tiny_model, SoftPromptSettings(virtual_tokens=4)), text)
    assert len(prompted) == len(plain) == 29
    assert max(abs(a - b) for a, b in zip(prompted, plain, strict=True)) > 1e-3


@pytest.mark.parametrize("edges", [(0, 10), (1, 40), (0, 20, 20, 40), (0, 50), (40,)])
def test_edges_that_dont_part_the_texts_are_refused(tiny_model: Any, edges: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="edges"):
        measure_perplexity(tiny_model, texts(1, 40), edges)
    with pytest.raises(InputError, match="of one length"):
        measure_perplexity(tiny_model, [[5] * 4, [5] * 5], (0, 4))


def echoes(count: int, tokens: int, seed: int) -> torch.Tensor:
    """Texts that say again and again what stood eight tokens before."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(3, 40, (count, 8), generator=generator).repeat(1, -(-tokens // 8))[:, :tokens]


def teach(model: Any, steps: int, count: int, tokens: int) -> None:
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for step in range(steps):
        ids = echoes(count, tokens, step)
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def test_training_under_a_scaling_reaches_past_the_positions_and_needs_it_ever_after(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "echo", positions=32)
    model = load_model(base)
    teach(model, 300, 16, 32)
    model.save_pretrained(base)
    found, edges = echoes(6, 128, 10**6).tolist(), (0, 16, 32, 64, 128)

    def by_position(model: Any) -> list[float]:
        return [bucket.perplexity for bucket in measure_perplexity(model, found, edges)]

    plain = by_position(load_model(base))
    # the first eight tokens can't be known, the next ones can; past the positions nothing is read any more
    assert plain[0] > 2 * plain[1]
    assert plain[3] > plain[2] > 5 * plain[1]
    tuned = load_model(base, rope_scaling=RopeScaling("yarn", 4))
    teach(tuned, 150, 8, 128)
    tuned.save_pretrained(tmp_path / "tuned")
    reached = by_position(load_model(tmp_path / "tuned"))
    assert max(reached[1:]) < 2 < 100 < plain[3]
    # the same weights without the scaling
    (tmp_path / "tuned" / "config.json").write_bytes((base / "config.json").read_bytes())
    assert by_position(load_model(tmp_path / "tuned"))[3] > 100


class Words:
    """Take each word for a token."""

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [int(word) for word in text.split()]}


def test_texts_share_no_passage_and_their_order_has_a_seed(tmp_path: Path) -> None:
    passages = [f"{10 * number} {10 * number + 1} {10 * number + 2}" for number in range(20)]
    one, digest = long_texts(Words(), passages, count=3, tokens=7, seed=1)
    assert [len(text) for text in one] == [7, 7, 7]
    assert len({token for text in one for token in text}) == 21
    assert (one, digest) == long_texts(Words(), passages, count=3, tokens=7, seed=1)
    assert digest != long_texts(Words(), passages, count=3, tokens=7, seed=2)[1]
    kept, _ = long_texts(Words(), passages, count=1, tokens=4, seed=None)
    assert kept == ((0, 1, 2, 10),)
    with pytest.raises(InputError, match="4 texts of 20 tokens"):
        long_texts(Words(), passages, count=4, tokens=20, seed=1)
    (tmp_path / "text.txt").write_text("one\ntwo\n\n\n\nthree\n")
    assert read_passages(tmp_path / "text.txt") == ["one\ntwo", "three"]
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(InputError, match="is empty"):
        read_passages(tmp_path / "empty.txt")
