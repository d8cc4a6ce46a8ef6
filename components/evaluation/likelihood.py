"""Multiple choice by likelihood: which choice does the model find likeliest behind the question? Used by the suites.

A question and its choices are one packed sequence: the question is computed once, each choice is a branch. The score
of a choice is its log probability divided by its length in characters, so that long choices are not at a disadvantage
(length normalisation: Brown et al. 2020, arXiv:2005.14165, section 2.4; characters, as `acc_norm` of
lm-evaluation-harness, do not depend on the tokenizer and told a 135M model from chance where tokens did not).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.data.packing import PackedSequence, collate, pack_branches
from components.errors import InputError
from components.models.forward import causal_model, token_log_probs

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ChoiceItem", "choice_log_likelihoods", "score_choices"]

# Tokens, padding included, in one batch: the mask takes their square.
BATCH_TOKENS = 4096


@dataclass(frozen=True)
class ChoiceItem:
    """A question with choices.

    Attributes:
        prompt: Text before the choices, special tokens of a chat template included.
        choices: Text of each choice as it would follow the prompt, its leading space included.
        gold: Index of the right choice.
    """

    prompt: str
    choices: tuple[str, ...]
    gold: int


def score_choices(
    model: Any,
    tokenizer: Any,
    items: Sequence[ChoiceItem],
    *,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> list[int]:
    """Return the index of the likeliest choice of every item; the first of equals.

    Args:
        model: A causal language model, bare or wrapped by peft; it is put into evaluation mode and back.
        tokenizer: Its tokenizer.
        items: Questions with at least one choice each.
        batch_size: Most questions in one pass.
        progress: Called with (finished, all) after each batch.

    Raises:
        InputError: An item without choices, or with a choice that adds no token.
    """
    found = choice_log_likelihoods(model, tokenizer, items, batch_size=batch_size, progress=progress)
    return [scores.index(max(scores)) for scores in found]


def choice_log_likelihoods(
    model: Any,
    tokenizer: Any,
    items: Sequence[ChoiceItem],
    *,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[float]]:
    """Return the log probability per character of every choice of every item.

    Args:
        model: A causal language model, bare or wrapped by peft.
        tokenizer: Its tokenizer.
        items: Questions with at least one choice each.
        batch_size: Most questions in one pass.
        progress: Called with (finished, all) after each batch.

    Returns:
        For each item one number a choice, 0 or less.

    Raises:
        InputError: An item without choices, or with a choice that adds no token.
    """
    import torch

    packed = [_pack(tokenizer, item, number) for number, item in enumerate(items)]
    device = causal_model(model).get_input_embeddings().weight.device
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else 0
    results: list[list[float]] = [[] for _ in items]
    was_training = model.training
    model.eval()
    done = 0
    try:
        with torch.inference_mode():
            for batch in _batches(packed, batch_size):
                sequences = [packed[index] for index in batch]
                tensors = {name: tensor.to(device) for name, tensor in collate(sequences, pad).items()}
                log_probs = token_log_probs(model, tensors)
                for row, index in enumerate(batch):
                    sums = _sums(log_probs[row], packed[index])
                    lengths = [max(1, len(choice.strip())) for choice in items[index].choices]
                    results[index] = [total / length for total, length in zip(sums, lengths, strict=True)]
                done += len(batch)
                if progress:
                    progress(done, len(items))
    finally:
        model.train(was_training)
    return results


def _pack(tokenizer: Any, item: ChoiceItem, number: int) -> PackedSequence:
    if not item.choices:
        raise InputError(f"item {number} has no choices")
    # prompt and choice are encoded apart: the branches must leave the prompt's tokens as they are
    prompt = tokenizer(item.prompt, add_special_tokens=False)["input_ids"]
    branches = []
    for choice in item.choices:
        ids = tokenizer(choice, add_special_tokens=False)["input_ids"]
        if not ids:
            raise InputError(f"item {number} has a choice that adds no token: {choice!r}")
        branches.append((ids, [1.0] * len(ids)))
    return pack_branches(prompt, branches)


def _batches(packed: Sequence[PackedSequence], batch_size: int) -> list[list[int]]:
    """Group sequences of like length, longest first, so that the first batch needs the most memory."""
    batches: list[list[int]] = []
    width = 0
    for index in sorted(range(len(packed)), key=lambda index: -len(packed[index])):
        room = batches and len(batches[-1]) < batch_size and width * (len(batches[-1]) + 1) <= BATCH_TOKENS
        if not room:
            batches.append([])
            width = len(packed[index])
        batches[-1].append(index)
    return batches


def _sums(log_probs: Tensor, sequence: PackedSequence) -> list[float]:
    """Add up one sequence's log probabilities [T] over the labelled tokens of each branch."""
    sums = [0.0] * sequence.rows
    for value, segment, weight in zip(log_probs.tolist(), sequence.segments, sequence.weights, strict=False):
        if weight > 0:
            sums[segment - 1] += value
    return sums
