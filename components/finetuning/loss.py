"""The loss: per-token weights, one normaliser for the whole effective batch, and an output layer that is only used
where it counts.

The sum over tokens of weight x cross-entropy is divided by the sum of weights over the effective batch (all
micro-batches), so that the split into micro-batches doesn't change the gradient. Hidden states go through
the output layer only where the weight isn't zero, a chunk at a time and recomputed in the backward pass: with a
vocabulary of 49,152 the logits of a 2,048-token batch would take 400 MB, those of the answers' tokens take a tenth.

With a teacher a part of each token's loss is the distance from the teacher's distribution (Hinton et al. 2015,
arXiv:1503.02531): KL(teacher || student) at a temperature, times its square, which keeps the size of the gradient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from components.finetuning.distill import Teacher

__all__ = ["SoftTargets", "forward_loss", "weighted_token_loss"]


@dataclass(frozen=True)
class SoftTargets:
    """What a teacher says of a batch.

    Attributes:
        hidden: Its last hidden states [B, T, H].
        head: From its hidden states [N, H] to its logits [N, V] float32.
        weight: Part of a token's loss that is the distance from the teacher, 0 to 1.
        temperature: Greater than 0.
    """

    hidden: Tensor
    head: Callable[[Tensor], Tensor]
    weight: float
    temperature: float

    def blend(self, losses: Tensor, student: Tensor, states: Tensor) -> Tensor:
        """Put the distance from the teacher into the losses of some places.

        Args:
            losses: Cross-entropy at each [N].
            student: The student's logits [N, V].
            states: The teacher's hidden states there [N, H].
        """
        import torch
        from torch.nn.functional import kl_div, log_softmax

        with torch.no_grad():
            teacher = self.head(states)
        # models of one family pad the same vocabulary to different sizes; no text has the tokens beyond it
        common = min(teacher.shape[-1], student.shape[-1])
        soft = log_softmax(teacher[:, :common] / self.temperature, dim=-1)
        own = log_softmax(student[:, :common] / self.temperature, dim=-1)
        distance = kl_div(own, soft, reduction="none", log_target=True).sum(-1)
        return (1 - self.weight) * losses + self.weight * self.temperature**2 * distance


def weighted_token_loss(
    hidden: Tensor,
    head: Callable[[Tensor], Tensor],
    labels: Tensor,
    weights: Tensor,
    normaliser: float,
    chunk_tokens: int = 256,
    soft: SoftTargets | None = None,
) -> Tensor:
    """Sum weighted cross-entropy over the places with weight, divided by the normaliser.

    Args:
        hidden: Last hidden states [B, T, H].
        head: From hidden states [N, H] to logits [N, V] float32.
        labels: Token to predict at each place [B, T], -100 where there is none.
        weights: Weight of each prediction [B, T].
        normaliser: Sum of weights over the effective batch; greater than 0.
        chunk_tokens: Places that go through the output layer at once.
        soft: What a teacher says; None learns from the labels alone.

    Returns:
        A float32 scalar. It is 0, and still has a gradient, for a micro-batch without weights.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    chosen = (weights > 0) & (labels >= 0)
    chosen_hidden, chosen_labels, chosen_weights = hidden[chosen], labels[chosen], weights[chosen]

    def chunk_loss(states: Tensor, targets: Tensor, scale: Tensor, taught: Tensor | None = None) -> Tensor:
        logits = head(states)
        losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
        if soft is not None and taught is not None:
            losses = soft.blend(losses, logits, taught)
        return (losses * scale).sum()

    taught = soft.hidden[chosen] if soft is not None else None
    total = torch.zeros((), device=hidden.device)
    if chosen_hidden.shape[0] == 0:
        # through the head too: of several processes each has to have a gradient for whatever the others have one for
        total = (hidden.float() * 0.0).sum() + (head(hidden[:1, 0]) * 0.0).sum()
    for start in range(0, chosen_hidden.shape[0], chunk_tokens):
        part = slice(start, start + chunk_tokens)
        arguments: tuple[Tensor, ...] = (chosen_hidden[part], chosen_labels[part], chosen_weights[part].float())
        if taught is not None:
            arguments += (taught[part],)
        # a single chunk is small by definition: keeping its logits costs less than computing them twice
        if chosen_hidden.shape[0] > chunk_tokens and torch.is_grad_enabled():
            total = total + checkpoint(chunk_loss, *arguments, use_reentrant=False)
        else:
            total = total + chunk_loss(*arguments)
    return total / normaliser


def forward_loss(model: Any, batch: dict[str, Tensor], normaliser: float, teacher: Teacher | None = None) -> Tensor:
    """Compute the weighted loss of one micro-batch.

    Args:
        model: A causal language model, bare or wrapped by peft.
        batch: As `collate` gives it.
        normaliser: Sum of weights over the effective batch.
        teacher: Who is learned from besides the labels.

    Returns:
        A float32 scalar.
    """
    from components.models.forward import hidden_states, logits

    soft = None
    if teacher is not None:
        import torch

        frozen = teacher.model
        # before the student's: what its blocks compute is gone when the student's are kept for the backward pass
        with torch.no_grad():
            taught = hidden_states(frozen, batch)
        soft = SoftTargets(taught, lambda chosen: logits(frozen, chosen), teacher.weight, teacher.temperature)
    states = hidden_states(model, batch)
    return weighted_token_loss(
        states, lambda chosen: logits(model, chosen), batch["labels"], batch["weights"], normaliser, soft=soft
    )
