"""Measure a model on raw text: how likely it finds held-out documents. In the place of task.py where no one answers.

A document's score is the geometric mean of the probabilities of its tokens, which is 1 / perplexity: a fraction of
which more is better, as gate, intervals and report take scores. Bits are no fraction, and a perplexity is better where
it is less. Documents are what is independent of each other, so that the interval is one over documents; the perplexity
that is told beside it is that of all their tokens together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import InputError
from components.evaluation.statistics import score_interval
from components.evaluation.task import TaskResult

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["TEXT_METRIC", "TextResult", "evaluate_texts"]

TEXT_METRIC = "inverse_perplexity"


@dataclass(frozen=True)
class TextResult:
    """What one model makes of documents.

    Attributes:
        task: The documents' scores, as other tasks have them; the prediction of one is its perplexity in words.
        perplexity: exp of the mean loss over all tokens.
        tokens: How many were predicted.
    """

    task: TaskResult
    perplexity: float
    tokens: int

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        return {
            **self.task.to_dict(),
            "perplexity": self.perplexity,
            "bits_per_token": math.log2(self.perplexity),
            "tokens": self.tokens,
        }


def evaluate_texts(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    max_tokens: int,
    progress: Callable[[int, int], None] | None = None,
) -> TextResult:
    """Take the loss of every token of every document.

    Args:
        model: A causal language model, bare or wrapped by peft, in evaluation mode.
        tokenizer: Its tokenizer.
        rows: Documents, at least one.
        max_tokens: Longest window; a longer document is read in several, each from the last token of the one before.
        progress: Called with (finished, all) after each document.

    Returns:
        Scores, interval and perplexity.

    Raises:
        InputError: No documents.
    """
    import time

    import torch

    from components.data.packing import collate
    from components.data.texts import encode_text
    from components.finetuning.text_schedule import pack_texts
    from components.models.forward import token_log_probs

    if not rows:
        raise InputError("there are no documents to evaluate", next_step="check data.text")
    device = next(model.parameters()).device
    losses, counts = [], []
    started = time.monotonic()
    with torch.no_grad():
        for done, row in enumerate(rows, start=1):
            loss, count = 0.0, 0
            for packed, _ in pack_texts([encode_text(tokenizer, row.answer)], max_tokens):
                batch = {name: value.to(device) for name, value in collate([packed], 0).items()}
                loss -= float(token_log_probs(model, batch).double().sum())
                count += len(packed)
            losses.append(loss)
            counts.append(count)
            if progress is not None:
                progress(done, len(rows))
    seconds = time.monotonic() - started
    scores = tuple(math.exp(-loss / count) for loss, count in zip(losses, counts, strict=True))
    interval = score_interval(scores)
    n, tokens = len(rows), sum(counts)
    task = TaskResult(
        TEXT_METRIC,
        scores,
        tuple(f"perplexity {1 / score:.4g}" if score else "perplexity beyond measure" for score in scores),
        interval.delta,
        interval.low,
        interval.high,
        n,
        tokens / n,
        tokens / n,
        seconds / n,
    )
    return TextResult(task, math.exp(sum(losses) / tokens), tokens)
