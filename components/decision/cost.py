"""What a way of prompting costs per request, and what finetuning would save of it. Beside the scores in decide.

A finetuned model needs no examples in its prompt: its request is the plain prompt and the answer. The saving is what
is carried in every prompt only to show the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from components.data.chat import prompt_ids

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["finetuned_tokens_per_request", "tokens_saved"]


def finetuned_tokens_per_request(tokenizer: Any, rows: Sequence[Row]) -> float:
    """Return the mean tokens of a request to a finetuned model: the plain prompt and the row's own answer.

    Args:
        tokenizer: A tokenizer with a chat template.
        rows: Rows with answers, at least one.
    """
    # one more for the token that ends the answer's turn
    total = sum(
        len(prompt_ids(tokenizer, row.prompt)) + len(tokenizer(row.answer, add_special_tokens=False)["input_ids"]) + 1
        for row in rows
    )
    return total / len(rows)


def tokens_saved(tokens_per_request: dict[str, float], finetuned: float) -> dict[str, float]:
    """Return for each candidate the tokens per request that finetuning would save; negative where it costs more."""
    return {name: tokens - finetuned for name, tokens in tokens_per_request.items()}
