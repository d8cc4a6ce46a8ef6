"""Perplexity by position: does a model still read where its positions end? Behind `tunewright long-context`.

A text goes through the model once, and each token's loss is counted where the token stands. A model that uses its
context gets better with the position; past the positions that it was trained on the loss of a plain model jumps
(Press et al. 2022, arXiv:2108.12409; Chen et al. 2023, arXiv:2306.15595).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from components.errors import InputError
from components.models.forward import label_losses, text_states

__all__ = ["Bucket", "measure_perplexity", "token_losses"]


@dataclass(frozen=True)
class Bucket:
    """Neighbouring positions of all texts.

    Attributes:
        start: First position.
        end: Behind the last one.
        tokens: Tokens predicted there, over all texts.
        perplexity: exp of their mean loss.
        lowest: That of the text with the lowest.
        highest: That of the text with the highest.
    """

    start: int
    end: int
    tokens: int
    perplexity: float
    lowest: float
    highest: float


def measure_perplexity(
    model: Any,
    texts: Sequence[Sequence[int]],
    edges: Sequence[int],
    *,
    progress: Callable[[int, int], None] | None = None,
) -> list[Bucket]:
    """Measure how well texts are predicted, by position.

    Dynamic frequencies are those of each text's whole length, at its first positions too.

    Args:
        model: A causal language model, bare or wrapped by peft; it is put into evaluation mode and back.
        texts: Token ids of each text, all of the same length.
        edges: Positions that part the buckets, rising; the first is 0 and the last the texts' length.
        progress: Called with (done, all) after each text.

    Returns:
        A bucket between any two edges. A text's first token is predicted from nothing and counts nowhere.

    Raises:
        InputError: No text, texts of different lengths, or edges that don't part them.
    """
    lengths = {len(text) for text in texts}
    if len(lengths) != 1 or min(lengths) < 2:
        raise InputError(f"texts of {sorted(lengths)} tokens", allowed="one text or more, all of one length above 1")
    if list(edges) != sorted(set(edges)) or len(edges) < 2 or edges[0] != 0 or edges[-1] != lengths.pop():
        raise InputError(f"edges {list(edges)}", allowed="rising positions from 0 to the texts' length")
    losses: list[list[float]] = []
    for number, text in enumerate(texts, start=1):
        losses.append(token_losses(model, text))
        if progress is not None:
            progress(number, len(texts))
    return [_bucket(losses, start, end) for start, end in pairwise(edges)]


def token_losses(model: Any, ids: Sequence[int]) -> list[float]:
    """Return -log p of every token but the first, each given all before it.

    Args:
        model: A causal language model, bare or wrapped by peft; it is put into evaluation mode and back.
        ids: Token ids, T of them.

    Returns:
        T - 1 losses in nats; the first belongs to the token at position 1.
    """
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            states = text_states(model, ids)
            labels = torch.tensor(list(ids[1:]), device=states.device)
            found: list[float] = label_losses(model, states[:-1], labels).tolist()
    finally:
        model.train(was_training)
    return found


def _bucket(losses: Sequence[Sequence[float]], start: int, end: int) -> Bucket:
    # the loss of the token at position p stands at p - 1
    parts = [text[max(0, start - 1) : end - 1] for text in losses]
    means = sorted(sum(part) / len(part) for part in parts)
    tokens = sum(map(len, parts))
    mean = sum(map(sum, parts)) / tokens
    return Bucket(start, end, tokens, math.exp(mean), math.exp(means[0]), math.exp(means[-1]))
