"""The dev loss of a training run: when it is measured, and how. Called by the trainer through finetune.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from components.finetuning.run_schedule import dev_schedule
from components.finetuning.settings import FinetuneSettings

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["dev_loss", "dev_steps"]


def dev_steps(steps: int, passes: int) -> frozenset[int]:
    """Return the steps after which the dev rows are measured: evenly spread, the last one among them.

    Args:
        steps: Optimizer steps of the run.
        passes: Measurements; no more than there are steps.
    """
    return frozenset(round(steps * part / passes) for part in range(1, passes + 1)) - {0}


def dev_loss(model: Any, tokenizer: Any, rows: Sequence[Row], settings: FinetuneSettings) -> Callable[[], float] | None:
    """Return a function that measures the loss of the answers' tokens on the dev rows.

    Args:
        model: The model in training; it is put back into training mode.
        tokenizer: The base's.
        rows: Dev rows; none, no function.
        settings: The run's.

    Returns:
        The function; its loss is in nats for a token.

    Raises:
        InputError: A row without an answer, or longer than allowed.
    """
    if not rows:
        return None
    import torch

    from components.data.packing import collate
    from components.finetuning.loss import forward_loss

    packed = dev_schedule(tokenizer, rows, settings)
    batches = [collate(batch, tokenizer.pad_token_id) for step in packed.steps for batch in step]
    total = sum(float(batch["weights"].sum()) for batch in batches)
    device = next(model.parameters()).device

    def measure() -> float:
        model.eval()
        with torch.no_grad():
            on_device = ({name: value.to(device) for name, value in batch.items()} for batch in batches)
            loss = sum(float(forward_loss(model, batch, total)) for batch in on_device)
        model.train()
        return loss

    return measure
