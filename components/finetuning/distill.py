"""A teacher beside the model in training: what it would say at every place that is trained (Hinton et al. 2015,
arXiv:1503.02531).

The teacher is frozen and reads the same tokens, so that its tokenizer has to be the base's, to the digest. Only its
hidden states are computed for a whole batch; its logits, like the student's, where the loss has weight, a chunk at a
time. It costs its weights in the dtype of computation and a forward pass of its own beside every one of the student's;
nothing at inference.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import InputError

__all__ = ["Teacher", "check_teacher", "load_teacher"]


@dataclass(frozen=True)
class Teacher:
    """Who is learned from, and how much.

    Attributes:
        model: A frozen causal language model in evaluation mode.
        weight: Part of the loss that is the distance from the teacher; the rest is that from the labels.
        temperature: Both distributions are flattened by it: above 1, what the teacher finds unlikely counts for more.
    """

    model: Any
    weight: float
    temperature: float


def check_teacher(folder: Path, base_folder: Path) -> str:
    """Refuse a teacher that reads other tokens than the base.

    Args:
        folder: The teacher's whole weights.
        base_folder: The base.

    Returns:
        The teacher's fingerprint.

    Raises:
        InputError: Another tokenizer.
    """
    from components.models.fingerprint import fingerprint

    teacher, base = fingerprint(folder), fingerprint(base_folder)
    if teacher.tokenizer != base.tokenizer:
        raise InputError(
            f"the teacher in {folder} has another tokenizer than the base: {teacher.tokenizer[:12]}, and the base "
            f"{base.tokenizer[:12]}",
            allowed="a teacher with the base's tokenizer, to the digest: its logits are over the same tokens",
            next_step="choose a larger model of the base's family as finetune.teacher",
        )
    return teacher.base


def load_teacher(
    folder: Path, *, dtype: str, weight: float, temperature: float, longest_tokens: int, vocabulary: int
) -> Teacher:
    """Load a teacher, frozen.

    Args:
        folder: Its whole weights, checked by `check_teacher`.
        dtype: What it is kept and computes in.
        weight: Its part of the loss.
        temperature: That of both distributions.
        longest_tokens: Positions that the run will use.
        vocabulary: Tokens that the rows may use.

    Raises:
        InputError: Fewer positions or tokens than the run uses, or a model that can't be loaded.
    """
    from components.models.load import load_model

    model = load_model(folder, dtype=dtype)
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and longest_tokens > positions:
        raise InputError(
            f"a training sequence has {longest_tokens} positions, the teacher {positions}",
            allowed=f"at most {positions}",
            next_step="lower finetune.max_tokens, or choose a teacher with a longer context",
        )
    if model.get_input_embeddings().weight.shape[0] < vocabulary:
        raise InputError(
            f"the rows use token {vocabulary - 1}, the teacher's embedding has "
            f"{model.get_input_embeddings().weight.shape[0]} rows",
            next_step="choose another teacher",
        )
    model.requires_grad_(False)
    return Teacher(model, weight, temperature)
