"""Checks before time is spent and after weights are saved: what makes a finetuning run silently worthless.

A run can end without an error and have taught nothing: nothing was trainable, no label counted, the turn end was never
trained, or what was saved isn't what was trained.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.chat import Encoded
from components.errors import InputError, TunewrightError

if TYPE_CHECKING:
    from components.data.packing import PackedSequence

__all__ = ["LOGIT_TOLERANCE", "check_before", "check_gradients", "check_saved_adapter", "trainable_counts"]

# reloaded float32 weights are the same bits; kernels may sum in another order
LOGIT_TOLERANCE = 1e-4


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


def check_before(model: Any, tokenizer: Any, encoded: Sequence[Encoded], longest_tokens: int) -> None:
    """Refuse a run that can't teach anything, or would teach something else, before it starts.

    Args:
        model: The model with its trainable parameters.
        tokenizer: Its tokenizer.
        encoded: The training rows.
        longest_tokens: Longest row position that the run will use.

    Raises:
        InputError: No trainable parameter; no row trains the turn end; pad and turn end are one token; rows longer than
            the positions that the model knows; token ids beyond the embedding; logits that the loss can't reproduce.
    """
    from components.models.forward import check_logits

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
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None and longest_tokens > positions:
        raise InputError(
            f"a training sequence has {longest_tokens} positions",
            allowed=f"at most the base's {positions}",
            next_step="lower finetune.max_tokens, or choose a base with a longer context",
        )
    vocabulary = model.get_input_embeddings().weight.shape[0]
    highest = max(token for row in encoded for token in row.input_ids)
    if highest >= vocabulary:
        raise InputError(
            f"the rows use token {highest}, the embedding has {vocabulary} rows",
            next_step="use the base's own tokenizer, or resize and save its embeddings",
        )
    check_logits(model)


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


def check_saved_adapter(
    model: Any, base_folder: Path, adapter_folder: Path, probe: PackedSequence, dtype: str
) -> float:
    """Load the saved adapter beside the trained one and compare what the two say.

    Args:
        model: The trained model in memory, an adapter on its base.
        base_folder: The base that it was trained on.
        adapter_folder: What was saved.
        probe: A sequence to compare on.
        dtype: Of the base's weights.

    Returns:
        The largest change of a logit that the adapter makes against the base.

    Raises:
        TunewrightError: The saved weights give other logits, or the adapter changes nothing.
        InputError: What was saved is bound to another base.
    """
    import torch

    from components.data.packing import collate
    from components.models.fingerprint import check_binding
    from components.models.forward import hidden_states, logits

    check_binding(adapter_folder, base_folder)
    batch = collate([probe], 0)
    device = next(model.parameters()).device
    batch = {name: value.to(device) for name, value in batch.items()}

    def probed() -> Any:
        return logits(model, hidden_states(model, batch)[0, -64:])

    model.eval()
    with torch.no_grad():
        in_memory = probed()
        with model.disable_adapter():
            of_base = probed()
        # on the same base: a second one would need the memory of the whole run again
        trained = model.active_adapter
        model.load_adapter(str(adapter_folder), adapter_name="saved", is_trainable=False, local_files_only=True)
        model.set_adapter("saved")
        saved = probed()
        model.set_adapter(trained)
        model.delete_adapter("saved")
    # bfloat16 keeps 8 bits: two kernels may differ in the last of them
    tolerance = LOGIT_TOLERANCE if dtype == "float32" else 2**-6 * float(in_memory.abs().max())
    difference = float((saved - in_memory).abs().max())
    if not difference <= tolerance:
        raise TunewrightError(
            f"the saved adapter gives other logits than the trained one: largest difference {difference:.3g}",
            allowed=f"at most {tolerance:.3g}",
            next_step="run again; if it stays, report it with the recipe",
        )
    change = float((in_memory - of_base).abs().max())
    if change == 0.0:
        raise TunewrightError(
            "the adapter changes no logit: training had no effect",
            next_step="check finetune.learning_rate, finetune.targets and the loss curve",
        )
    return change
