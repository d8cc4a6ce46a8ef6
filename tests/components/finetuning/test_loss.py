"""The loss doesn't depend on how the batch is split."""

from __future__ import annotations

from collections.abc import Callable

import torch

from components.finetuning.loss import weighted_token_loss


def example(
    places: int = 40,
) -> tuple[torch.Tensor, Callable[[torch.Tensor], torch.Tensor], torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(2, places, 16, generator=generator)
    output_weight = torch.randn(50, 16, generator=generator)
    labels = torch.randint(0, 50, (2, places), generator=generator)
    weights = torch.rand(2, places, generator=generator) * (torch.rand(2, places, generator=generator) > 0.5)
    return hidden, lambda states: states @ output_weight.T, labels, weights


def test_equals_cross_entropy_over_all_places() -> None:
    hidden, head, labels, weights = example()
    logits = head(hidden)
    each = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none")
    expected = (each * weights.flatten()).sum() / weights.sum()
    found = weighted_token_loss(hidden, head, labels, weights, float(weights.sum()))
    assert abs(float(found - expected)) <= 1e-6


def test_chunks_and_micro_batches_give_the_same_loss_and_gradient() -> None:
    hidden, head, labels, weights = example()
    total = float(weights.sum())
    whole = hidden.clone().requires_grad_()
    weighted_token_loss(whole, head, labels, weights, total).backward()
    parts = hidden.clone().requires_grad_()
    loss = sum(
        weighted_token_loss(parts[i : i + 1], head, labels[i : i + 1], weights[i : i + 1], total, 7) for i in range(2)
    )
    assert isinstance(loss, torch.Tensor)
    loss.backward()
    assert whole.grad is not None
    assert parts.grad is not None
    assert torch.allclose(whole.grad, parts.grad, atol=1e-6)


def test_a_micro_batch_without_weights_has_zero_loss_and_a_gradient() -> None:
    hidden, head, labels, weights = example()
    states = hidden.requires_grad_()
    loss = weighted_token_loss(states, head, labels, weights * 0, 1.0)
    loss.backward()
    assert float(loss) == 0.0
    assert states.grad is not None
    assert float(states.grad.abs().max()) == 0.0


def test_the_output_layer_sees_the_places_with_weight_alone_a_chunk_at_a_time() -> None:
    hidden, head, labels, weights = example()
    labels[0, :3], weights[0, :3] = -100, 1.0
    seen: list[torch.Tensor] = []

    def watched(states: torch.Tensor) -> torch.Tensor:
        seen.append(states.detach())
        return head(states)

    weighted_token_loss(hidden.requires_grad_(), watched, labels, weights, 1.0, 7)
    counted = (weights > 0) & (labels >= 0)
    assert 7 < int(counted.sum()) < 60
    assert max(len(states) for states in seen) == 7
    assert torch.equal(torch.cat(seen), hidden[counted].detach())
