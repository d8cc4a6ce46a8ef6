"""The loss: per-token weights, one normaliser for the whole effective batch, and an output layer that is only used
where it counts.

The sum over tokens of weight x cross-entropy is divided by the sum of weights over the effective batch (all
micro-batches), so that the split into micro-batches doesn't change the gradient. Hidden states go through
the output layer only where the weight isn't zero, a chunk at a time and recomputed in the backward pass: with a
vocabulary of 49,152 the logits of a 2,048-token batch would take 400 MB, those of the answers' tokens take a tenth.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["forward_loss", "weighted_token_loss"]


def weighted_token_loss(
    hidden: Tensor,
    head: Callable[[Tensor], Tensor],
    labels: Tensor,
    weights: Tensor,
    normaliser: float,
    chunk_tokens: int = 256,
) -> Tensor:
    """Sum weighted cross-entropy over the places with weight, divided by the normaliser.

    Args:
        hidden: Last hidden states [B, T, H].
        head: From hidden states [N, H] to logits [N, V] float32.
        labels: Token to predict at each place [B, T], -100 where there is none.
        weights: Weight of each prediction [B, T].
        normaliser: Sum of weights over the effective batch; greater than 0.
        chunk_tokens: Places that go through the output layer at once.

    Returns:
        A float32 scalar. It is 0, and still has a gradient, for a micro-batch without weights.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    chosen = (weights > 0) & (labels >= 0)
    chosen_hidden, chosen_labels, chosen_weights = hidden[chosen], labels[chosen], weights[chosen]

    def chunk_loss(states: Tensor, targets: Tensor, scale: Tensor) -> Tensor:
        losses = torch.nn.functional.cross_entropy(head(states), targets, reduction="none")
        return (losses * scale).sum()

    total = (hidden.float() * 0.0).sum() if chosen_hidden.shape[0] == 0 else torch.zeros((), device=hidden.device)
    for start in range(0, chosen_hidden.shape[0], chunk_tokens):
        part = slice(start, start + chunk_tokens)
        arguments = (chosen_hidden[part], chosen_labels[part], chosen_weights[part].float())
        # a single chunk is small by definition: keeping its logits costs less than computing them twice
        if chosen_hidden.shape[0] > chunk_tokens and torch.is_grad_enabled():
            total = total + checkpoint(chunk_loss, *arguments, use_reentrant=False)
        else:
            total = total + chunk_loss(*arguments)
    return total / normaliser


def forward_loss(model: Any, batch: dict[str, Tensor], normaliser: float) -> Tensor:
    """Compute the weighted loss of one micro-batch.

    Args:
        model: A causal language model, bare or wrapped by peft.
        batch: As `collate` gives it.
        normaliser: Sum of weights over the effective batch.

    Returns:
        A float32 scalar.
    """
    from components.models.forward import hidden_states, logits

    states = hidden_states(model, batch)
    return weighted_token_loss(
        states, lambda chosen: logits(model, chosen), batch["labels"], batch["weights"], normaliser
    )
