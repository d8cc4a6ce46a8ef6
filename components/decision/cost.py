"""How many tokens a request carries, and how many of them a provider could have cached. Measured beside the scores.

A finetuned model needs no examples in its prompt: its request is the plain prompt and the answer. The saving is what
is carried in every prompt only to show the task. What tokens cost is in prices.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.data.chat import prompt_ids

if TYPE_CHECKING:
    from components.data.rows import Message, Row

__all__ = ["RequestTokens", "finetuned_request", "shared_prefix_tokens", "tokens_saved"]


@dataclass(frozen=True)
class RequestTokens:
    """The tokens of some requests.

    Attributes:
        prompt_tokens_per_request: Mean length of the prompts.
        tokens_per_request: Mean length of prompt and answer together.
        shared_prefix_tokens: For each request, how many of its first tokens another one begins with as well.
    """

    prompt_tokens_per_request: float
    tokens_per_request: float
    shared_prefix_tokens: tuple[int, ...]


def finetuned_request(
    tokenizer: Any, rows: Sequence[Row], prompts: Sequence[Sequence[Message]] | None = None
) -> RequestTokens:
    """Measure the requests to a finetuned model: the plain prompt and the row's own answer.

    Args:
        tokenizer: A tokenizer with a chat template.
        rows: Rows with answers, at least one.
        prompts: What it would be asked instead of the rows' own prompts, such as prompts with retrieved passages.

    Returns:
        The tokens; one more a row for the token that ends the answer's turn.
    """
    asked = [row.prompt for row in rows] if prompts is None else prompts
    answers = sum(len(tokenizer(row.answer, add_special_tokens=False)["input_ids"]) + 1 for row in rows)
    prompts_length = sum(len(prompt_ids(tokenizer, prompt)) for prompt in asked)
    return RequestTokens(
        prompts_length / len(rows),
        (prompts_length + answers) / len(rows),
        tuple(shared_prefix_tokens(tokenizer, asked)),
    )


def shared_prefix_tokens(tokenizer: Any, prompts: Sequence[Sequence[Message]]) -> list[int]:
    """Count for each prompt how many of its first tokens another prompt begins with as well.

    A provider that caches prompts by prefix has these tokens once traffic like the sample has passed. The last token
    of a prompt is never among them: it has to be computed to answer.

    Args:
        tokenizer: A tokenizer with a chat template.
        prompts: The prompts of one way of prompting.

    Returns:
        One number a prompt, in their order.
    """
    ids = [prompt_ids(tokenizer, prompt) for prompt in prompts]
    # in sorted order the longest shared prefix of a prompt is with a neighbour
    order = sorted(range(len(ids)), key=lambda index: ids[index])
    shared = [0] * len(ids)
    for one, other in itertools.pairwise(order):
        common = _common_prefix(ids[one], ids[other])
        for index in (one, other):
            shared[index] = max(shared[index], min(common, len(ids[index]) - 1))
    return shared


def tokens_saved(tokens_per_request: dict[str, float], finetuned: float) -> dict[str, float]:
    """Return for each candidate the tokens per request that finetuning would save; negative where it costs more."""
    return {name: tokens - finetuned for name, tokens in tokens_per_request.items()}


def _common_prefix(one: Sequence[int], other: Sequence[int]) -> int:
    for place, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return place
    return min(len(one), len(other))
