"""What is measured on dev rows in a training run, and when: a loss, and a score of answers. Called by finetune.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from components.data.packing import Layout
from components.finetuning.processes import ALONE, Processes
from components.finetuning.run_schedule import dev_schedule
from components.finetuning.settings import DevTask, FinetuneSettings

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["dev_loss", "dev_score", "dev_steps"]


def dev_steps(steps: int, passes: int) -> frozenset[int]:
    """Return the steps after which the dev rows are measured: evenly spread, the last one among them.

    Args:
        steps: Optimizer steps of the run.
        passes: Measurements; no more than there are steps.
    """
    return frozenset(round(steps * part / passes) for part in range(1, passes + 1)) - {0}


def dev_loss(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    settings: FinetuneSettings,
    layout: Layout = "mask",
    processes: Processes = ALONE,
) -> Callable[[], float] | None:
    """Return a function that measures the loss of the answers' tokens on the dev rows.

    Args:
        model: The model in training; it is put back into training mode.
        tokenizer: The base's.
        rows: Dev rows; none, no function.
        settings: The run's.
        layout: How batches say which token sees which.
        processes: Those that train together, who share the rows.

    Returns:
        The function; its loss is in nats for a token, and the same in every process.

    Raises:
        InputError: A row without an answer, or longer than allowed.
    """
    if not rows:
        return None
    import torch

    from components.data.packing import collate
    from components.finetuning.loss import forward_loss

    packed = dev_schedule(tokenizer, rows, settings)
    batches = [collate(batch, tokenizer.pad_token_id, layout) for step in packed.steps for batch in step]
    total = sum(float(batch["weights"].sum()) for batch in batches)
    own = batches[processes.rank :: processes.count]
    # where the model is in parts, a pass gathers them: all processes make as many
    shortest = min(batches, key=lambda batch: batch["weights"].numel())
    own += [{**shortest, "weights": torch.zeros_like(shortest["weights"])}] * (
        -(-len(batches) // processes.count) - len(own)
    )

    def measure() -> float:
        # looked up each time: a model may be parted among devices after this was made
        device = next(model.parameters()).device
        model.eval()
        with torch.no_grad():
            on_device = ({name: value.to(device) for name, value in batch.items()} for batch in own)
            loss = sum(float(forward_loss(model, batch, total)) for batch in on_device)
        model.train()
        return processes.sum(loss)

    return measure


def dev_score(
    model: Any, tokenizer: Any, task: DevTask | None, step_tokens: int, processes: Processes = ALONE
) -> Callable[[], float] | None:
    """Return a function that has the model answer dev rows and scores the answers.

    Args:
        model: The model in training; it is put back into training mode.
        tokenizer: The base's.
        task: The rows and their metric; None, no function.
        step_tokens: Tokens of the largest micro-batch of training. No more are answered at once, since a pass without
            gradients takes less memory than one with them.
        processes: Those that train together. Each answers its share of the rows where it has all of the model; a model
            in parts is gathered for every token, and all answer the same rows.

    Returns:
        The function; it draws nothing from the random generators of training. With a model in parts the first process's
        score is the one to decide by.

    Raises:
        InputError: An unknown metric, or a prompt that doesn't fit the model's positions together with its answer.
    """
    if task is None:
        return None
    from components.data.chat import prompt_ids
    from components.evaluation.generation import check_lengths
    from components.evaluation.metrics import check_metric
    from components.evaluation.task import evaluate_task
    from components.finetuning.out_of_memory import random_states, restore_random

    check_metric(task.metric, task.options, task.rows)
    prompts = [prompt_ids(tokenizer, row.prompt) for row in task.rows]
    check_lengths(model, prompts, task.max_new_tokens)
    batch_size = max(1, step_tokens // (max(map(len, prompts)) + task.max_new_tokens))

    rows = task.rows if processes.sharded else task.rows[processes.rank :: processes.count]

    def measure() -> float:
        states = random_states()
        scores = (
            evaluate_task(
                model, tokenizer, rows, metric=task.metric, options=task.options, max_new_tokens=task.max_new_tokens,
                batch_size=batch_size,
            ).scores
            if rows
            else ()
        )  # fmt: skip
        restore_random(states)
        if processes.sharded:
            return sum(scores) / len(rows)
        return processes.sum(sum(scores)) / len(task.rows)

    return measure
