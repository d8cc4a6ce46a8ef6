"""Micro-batches of a workload are those of the schedule that the trainer follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.data.packing import collate
from components.data.rows import Message, Row
from components.finetuning.lora import LoraSettings
from components.finetuning.run_schedule import run_workload, training_schedule
from components.finetuning.settings import DevSettings, FinetuneSettings
from components.memory.workload import MicroBatch, Workload, uniform_workload
from components.models.load import load_tokenizer
from components.models.tiny import make_tiny


def rows(count: int) -> list[Row]:
    return [
        Row(
            (
                Message("system", f"table{number % 2}"),
                Message("user", "How many rows? " * (1 + number % 4)),
                Message("assistant", f"SELECT count(*) FROM table{number % 2}"),
            ),
            {},
            number + 1,
        )
        for number in range(count)
    ]


@pytest.mark.parametrize("size", [1, 2, 3])
def test_micro_batches_are_the_schedules(tmp_path: Path, size: int) -> None:
    tokenizer = load_tokenizer(make_tiny(tmp_path / "tiny"))
    settings = FinetuneSettings(
        "lora", LoraSettings(), epochs=1.4, rows_per_sequence=2, micro_batch_size=size, gradient_accumulation_steps=2
    )
    schedule = training_schedule(tokenizer, rows(13), settings)[0]
    batches = [collate(batch, 0) for step in schedule.steps for batch in step]
    expected = [
        MicroBatch(batch["input_ids"].shape[0], batch["input_ids"].shape[1], int((batch["weights"] > 0).sum()))
        for batch in batches
    ]
    found = run_workload(tokenizer, rows(13), rows(3), settings, DevSettings(passes=6))
    assert list(found.micro_batches(size, 2 * size)) == expected
    assert found.tokens == schedule.tokens
    assert found.steps(2 * size) == len(schedule.steps)
    assert (found.dev_passes, len(found.dev_lengths)) == (6, 2)


def test_no_micro_batch_reaches_over_a_step() -> None:
    work = Workload((5, 9, 4, 7, 3), (1, 2, 3, 4, 5))
    assert list(work.micro_batches(2, 3)) == [MicroBatch(2, 9, 3), MicroBatch(1, 4, 3), MicroBatch(2, 7, 9)]
    assert uniform_workload(3, 8).tokens == 24
