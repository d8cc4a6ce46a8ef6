"""What a head answers, in the shape of what a model writes: for the task's score and for the decision."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from components.data.chat import prompt_ids
from components.models.features import check_prompts
from components.models.head import HeadedModel, answer_ids
from components.models.rope import cached_positions

if TYPE_CHECKING:
    from components.data.rows import Message

__all__ = ["head_answers"]


def head_answers(
    model: HeadedModel,
    tokenizer: Any,
    prompts: Sequence[Sequence[Message]],
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> list[tuple[str, int, int, float]]:
    """Answer every prompt by one pass through the base and the head.

    Args:
        model: The base with its head.
        tokenizer: The base's.
        prompts: The turns before each answer.
        batch_size: Most prompts in one pass.
        progress: Called with (finished, all) after each pass.

    Returns:
        For each prompt the answer, the prompt's tokens, the answer's as a client counts them, and seconds.

    Raises:
        InputError: A prompt is longer than the base's positions.
    """
    encoded = [prompt_ids(tokenizer, messages) for messages in prompts]
    lengths = [len(ids) for ids in encoded]
    check_prompts(lengths, cached_positions(model.config))
    started = time.perf_counter()
    outputs = model.outputs(encoded, batch_size, progress)
    texts = [model.head.text(row) for row in outputs]
    each = (time.perf_counter() - started) / max(1, len(prompts))
    return [(text, length, len(answer_ids(tokenizer, text)), each) for text, length in zip(texts, lengths, strict=True)]
