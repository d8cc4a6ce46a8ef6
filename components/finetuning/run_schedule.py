"""The order of a run's rows, from rows and settings: behind the trainer, the dev loss and the memory plan alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from components.data.chat import Encoded, encode
from components.data.texts import encode_text
from components.finetuning.mixing import TaskRows, build_mixed_schedule
from components.finetuning.schedule import Schedule, build_schedule
from components.finetuning.settings import DevSettings, FinetuneSettings
from components.finetuning.text_schedule import build_text_schedule
from components.memory.workload import Workload

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["dev_schedule", "run_workload", "training_schedule"]


def run_workload(
    tokenizer: Any,
    rows: Sequence[Row],
    dev_rows: Sequence[Row],
    settings: FinetuneSettings,
    watched: DevSettings = DevSettings(),  # noqa: B008 - frozen
) -> Workload:
    """Return the sequences that a run will put through the model, for the memory plan and its time.

    Args:
        tokenizer: The base's.
        rows: Training rows.
        dev_rows: Rows behind the dev loss.
        settings: The run's; what the plan will choose (micro-batch, accumulation, checkpointing, dtype) isn't read.
        watched: How the dev rows are watched. A run that may end early is taken for a whole one.

    Returns:
        Length and labelled tokens of each sequence, in the order of training.
    """
    single = replace(settings, micro_batch_size=1, gradient_accumulation_steps=1)
    schedule = training_schedule(tokenizer, rows, single)[0]
    sequences = [sequence for step in schedule.steps for batch in step for sequence in batch]
    dev = dev_schedule(tokenizer, dev_rows, settings) if dev_rows else None
    return Workload(
        lengths=tuple(len(sequence) for sequence in sequences),
        labelled=tuple(sum(weight > 0 for weight in sequence.weights) for sequence in sequences),
        dev_lengths=tuple(len(s) for step in dev.steps for batch in step for s in batch) if dev else (),
        dev_passes=watched.passes if dev else 0,
        positions=schedule.positions,
    )


def training_schedule(
    tokenizer: Any, rows: Sequence[Row], settings: FinetuneSettings
) -> tuple[Schedule, list[Encoded]]:
    """Render, pack and order the training rows.

    Args:
        tokenizer: The base's.
        rows: Training rows.
        settings: The run's.

    Returns:
        The order, and the rows as they were rendered.
    """
    if settings.objective == "text":
        return _text_schedule(tokenizer, rows, settings, settings.epochs)
    encoded = [encode(tokenizer, row.messages, prompt_loss_weight=settings.prompt_loss_weight) for row in rows]
    if settings.mixture:
        return _mixed_schedule(rows, encoded, settings), encoded
    schedule = build_schedule(
        encoded,
        [_shared_text(row) for row in rows],
        [row.line for row in rows],
        epochs=settings.epochs,
        rows_per_sequence=settings.rows_per_sequence,
        micro_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
    )
    return schedule, encoded


def _mixed_schedule(rows: Sequence[Row], encoded: Sequence[Encoded], settings: FinetuneSettings) -> Schedule:
    numbers: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        numbers.setdefault(str(row.metadata["task"]), []).append(number)
    tasks = {
        name: TaskRows([encoded[n] for n in own], [_shared_text(rows[n]) for n in own], [rows[n].line for n in own])
        for name, own in numbers.items()
    }
    return build_mixed_schedule(
        tasks,
        settings.mixture,
        rows_per_sequence=settings.rows_per_sequence,
        micro_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
    )


def _text_schedule(
    tokenizer: Any, rows: Sequence[Row], settings: FinetuneSettings, epochs: float
) -> tuple[Schedule, list[Encoded]]:
    documents = [encode_text(tokenizer, row.answer) for row in rows]
    schedule = build_text_schedule(
        documents,
        [row.line for row in rows],
        epochs=epochs,
        micro_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
    )
    return schedule, [Encoded(ids, [0.0, *[1.0] * (len(ids) - 1)]) for ids in documents]


def _shared_text(row: Row) -> str:
    """Rows with one system message share a prefix; a row without one stands alone with those like it."""
    first = row.messages[0]
    return first.content if first.role == "system" else ""


def dev_schedule(tokenizer: Any, rows: Sequence[Row], settings: FinetuneSettings) -> Schedule:
    """Pack the dev rows one sequence at a time; only the answers' tokens carry weight, or all of a text's."""
    if settings.objective == "text":
        single = replace(settings, micro_batch_size=1, gradient_accumulation_steps=1)
        return _text_schedule(tokenizer, rows, single, 1)[0]
    return build_schedule(
        [encode(tokenizer, row.messages, prompt_loss_weight=0.0) for row in rows],
        [_shared_text(row) for row in rows],
        [row.line for row in rows],
        split="dev",
        epochs=1,
        rows_per_sequence=settings.rows_per_sequence,
        micro_batch_size=1,
        gradient_accumulation_steps=1,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
    )
