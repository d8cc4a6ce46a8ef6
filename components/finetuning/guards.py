"""Checks before time is spent: what makes a finetuning run silently worthless.

A run can end without an error and have taught nothing: nothing was trainable, no label counted, the turn end was never
trained. That what was saved is what was trained is checked in saving.py.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from components.data.chat import Encoded
from components.errors import InputError, TunewrightError

__all__ = ["check_before", "check_gradients", "check_positions", "trainable_counts"]


def trainable_counts(model: Any) -> tuple[int, int]:
    """Return how many parameters are trained, and how many there are.

    A weight in 4 bits is stored two to a byte; it is counted as the two that it is.
    """
    trainable = total = 0
    for parameter in model.parameters():
        count = parameter.numel() * (2 if type(parameter).__name__ == "Params4bit" else 1)
        total += count
        trainable += count if parameter.requires_grad else 0
    return trainable, total


def check_before(
    model: Any, tokenizer: Any, encoded: Sequence[Encoded], longest_tokens: int, unsaved_rows: int | None
) -> None:
    """Refuse a run that can't teach anything, or would teach something else, before it starts.

    Args:
        model: The model with its trainable parameters.
        tokenizer: Its tokenizer.
        encoded: The training rows.
        longest_tokens: Longest row position that the run will use.
        unsaved_rows: Rows of the embedding before the method was attached, which are those of the base's files, where
            the run saves none of its own; None where it saves the whole model.

    Raises:
        InputError: No trainable parameter; no row trains the turn end; pad and turn end are one token; rows longer than
            the positions that the model knows; token ids beyond the embedding; an embedding that was resized and won't
            be saved; logits that the loss can't reproduce.
    """
    from components.models.forward import check_logits
    from components.models.soft_prompt import virtual_tokens

    if trainable_counts(model)[0] == 0:
        raise InputError("no parameter is trainable", next_step="check finetune.targets in the recipe")
    end = tokenizer.eos_token_id
    if not any(
        token == end and weight > 0 for row in encoded for token, weight in zip(row.input_ids, row.weights, strict=True)
    ):
        raise InputError(
            f"no training row trains the turn end {tokenizer.eos_token!r}: the model would never learn to stop",
            allowed="a chat template that ends the assistant's turn with the tokenizer's eos token",
            next_step="correct eos_token or the chat template in the base's folder",
        )
    if tokenizer.pad_token_id == end:
        raise InputError(
            f"padding and turn end are both {tokenizer.eos_token!r}",
            next_step="give the tokenizer a pad token of its own",
        )
    check_positions(model.config, longest_tokens, virtual_tokens(model))
    vocabulary = model.get_input_embeddings().weight.shape[0]
    highest = max(token for row in encoded for token in row.input_ids)
    if highest >= vocabulary:
        raise InputError(
            f"the rows use token {highest}, the embedding has {vocabulary} rows",
            next_step="use the base's own tokenizer, or resize and save its embeddings",
        )
    if unsaved_rows is not None and vocabulary != unsaved_rows:
        raise InputError(
            f"the embedding was resized from {unsaved_rows} rows to {vocabulary}, and an adapter doesn't save it",
            allowed="the base's embedding as its files have it",
            next_step="resize the base's embedding, save it as a base of its own, and train on that",
        )
    try:
        check_logits(model)
    except RuntimeError as error:
        raise InputError(
            f"{type(model).__name__} can't run with what was attached to it: {error}",
            allowed="a method and targets that its attention bears",
            next_step="choose another finetune.method or finetune.targets",
        ) from error


def check_positions(config: Any, longest_tokens: int, virtual_tokens: int = 0) -> None:
    """Refuse rows that are longer than the positions that the model knows, scaled ones included.

    Args:
        config: The model's config, with the scaling of the run.
        longest_tokens: Positions of the longest row.
        virtual_tokens: Positions that a soft prompt takes before them.

    Raises:
        InputError: With the scaling that would be enough.
    """
    from components.models.rope import LARGEST_FACTOR, config_positions, read_scaling

    positions, needed = config_positions(config), longest_tokens + virtual_tokens
    if positions is None or needed <= positions:
        return
    scaling = read_scaling(config)
    factor = math.ceil(needed / positions * (scaling.factor if scaling is not None else 1))
    scaled = "" if scaling is None else f", RoPE scaling {scaling} included"
    wider = f"set finetune.rope_scaling to {{type: yarn, factor: {factor}}}, " if factor <= LARGEST_FACTOR else ""
    raise InputError(
        f"a training sequence has {longest_tokens} positions"
        + (f" behind {virtual_tokens} virtual tokens" if virtual_tokens else ""),
        allowed=f"at most the base's {positions}{scaled}",
        next_step=f"{wider}lower finetune.max_tokens, or choose a base with a longer context",
    )


def check_gradients(model: Any) -> None:
    """Refuse to go on when a trainable parameter got no gradient: it would be saved as it began, counted as trained.

    Args:
        model: The model after the backward pass of a whole step.

    Raises:
        TunewrightError: A trainable parameter has no gradient; the first few are named.
    """
    idle = [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None]
    if idle:
        more = f" and {len(idle) - 3} more" if len(idle) > 3 else ""
        raise TunewrightError(
            f"the loss doesn't reach {', '.join(idle[:3])}{more}: trainable, but without a gradient after a step",
            allowed="targets that the decoder or its head uses",
            next_step="leave these modules out of finetune.targets",
        )
