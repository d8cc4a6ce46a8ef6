from __future__ import annotations

from collections import Counter

import pytest

from deploy.engines.sampling import make_generator, sample


@pytest.fixture
def logits() -> object:
    import torch

    return torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))


def test_frequencies_follow_the_probabilities(logits: object) -> None:
    generator = make_generator(1)
    counts = Counter(sample(logits, 1.0, 1.0, generator) for _ in range(4000))  # type: ignore[arg-type]
    assert [counts[i] / 4000 for i in range(4)] == pytest.approx([0.5, 0.3, 0.15, 0.05], abs=0.03)


def test_nucleus_keeps_the_fewest_tokens_that_reach_it(logits: object) -> None:
    generator = make_generator(1)
    assert {sample(logits, 1.0, 0.79, generator) for _ in range(300)} == {0, 1}  # type: ignore[arg-type]
    assert {sample(logits, 1.0, 1e-9, generator) for _ in range(100)} == {0}  # type: ignore[arg-type]


def test_tiny_temperature_is_greedy_and_does_not_overflow(logits: object) -> None:
    generator = make_generator(1)
    assert {sample(logits * 1000, 1e-300, 1.0, generator) for _ in range(50)} == {0}  # type: ignore[operator]


def test_any_integer_is_a_seed() -> None:
    for seed in (-1, 0, 2**63, 10**30):
        make_generator(seed)
