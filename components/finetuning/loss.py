"""The loss: per-token weights, one normaliser for the whole effective batch, and an output layer that is only used
where it counts.

The sum over tokens of weight x cross-entropy is divided by the sum of weights over the effective batch (all
micro-batches), so that the split into micro-batches doesn't change the gradient. Hidden states go through
the output layer only where the weight isn't zero, a chunk at a time and recomputed in the backward pass: with a
vocabulary of 49,152 the logits of a 2,048-token batch would take 400 MB, those of the answers' tokens take a tenth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["forward_loss", "hidden_states", "token_log_probs", "weighted_token_loss"]


def weighted_token_loss(
    hidden: Tensor, output_weight: Tensor, labels: Tensor, weights: Tensor, normaliser: float, chunk_tokens: int = 256
) -> Tensor:
    """Sum weighted cross-entropy over the places with weight, divided by the normaliser.

    Args:
        hidden: Last hidden states [B, T, H].
        output_weight: Weight of the output layer [V, H].
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
        logits = torch.nn.functional.linear(states, output_weight.to(states.dtype)).float()
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
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


def hidden_states(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Run the decoder without its output layer.

    Args:
        model: A causal language model, bare or wrapped by peft.
        batch: `input_ids`, `position_ids` [B, T] and `attention_mask` [B, 1, T, T] bool, as `collate` gives them.

    Returns:
        Hidden states [B, T, H].
    """
    decoder = causal_model(model).get_decoder()
    output = decoder(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        attention_mask=batch["attention_mask"],
        use_cache=False,
    )
    states: Tensor = output.last_hidden_state
    return states


def causal_model(model: Any) -> Any:
    """Return the transformers model inside whatever wraps it (accelerate, peft)."""
    inner = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def forward_loss(model: Any, batch: dict[str, Tensor], normaliser: float) -> Tensor:
    """Compute the weighted loss of one micro-batch.

    Args:
        model: A causal language model, bare or wrapped by peft.
        batch: As `collate` gives it.
        normaliser: Sum of weights over the effective batch.

    Returns:
        A float32 scalar.
    """
    states = hidden_states(model, batch)
    output_weight = causal_model(model).get_output_embeddings().weight
    return weighted_token_loss(states, output_weight, batch["labels"], batch["weights"], normaliser)


def token_log_probs(model: Any, batch: dict[str, Tensor], chunk_tokens: int = 256) -> Tensor:
    """Return the log probability of each label that carries weight.

    Args:
        model: A causal language model, bare or wrapped by peft.
        batch: As `collate` gives it.
        chunk_tokens: Places that go through the output layer at once.

    Returns:
        Log probabilities [B, T] float32, 0 where there is no weight.
    """
    import torch

    states = hidden_states(model, batch)
    output_weight = causal_model(model).get_output_embeddings().weight
    chosen = (batch["weights"] > 0) & (batch["labels"] >= 0)
    chosen_states, chosen_labels = states[chosen], batch["labels"][chosen]
    found = []
    for start in range(0, chosen_states.shape[0], chunk_tokens):
        part = chosen_states[start : start + chunk_tokens]
        logits = torch.nn.functional.linear(part, output_weight.to(part.dtype)).float()
        targets = chosen_labels[start : start + chunk_tokens]
        found.append(-torch.nn.functional.cross_entropy(logits, targets, reduction="none"))
    result = torch.zeros(batch["labels"].shape, dtype=torch.float32, device=states.device)
    if found:
        result[chosen] = torch.cat(found)
    return result
