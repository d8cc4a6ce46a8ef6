"""Rows and settings of a run of seconds."""

from __future__ import annotations

from dataclasses import replace

from components.data.rows import Message, Row
from components.finetuning.finetune import FinetuneSettings
from components.finetuning.lora import LoraSettings


def rows(count: int = 12) -> list[Row]:
    return [
        Row(
            (
                Message("system", f"table{number % 3}(id, name)"),
                Message("user", f"How many rows in table {number}?"),
                Message("assistant", f"SELECT count(*) FROM table{number % 3}"),
            ),
            {"subset": "single-table"},
            number + 1,
        )
        for number in range(count)
    ]


def uneven_rows(count: int = 12) -> list[Row]:
    """Rows whose answers differ in length, so that a step's sequences have different sums of loss weights."""
    return [
        replace(row, messages=(*row.prompt, Message("assistant", "SELECT 1" + ", 1" * (7 * number % 13))))
        for number, row in enumerate(rows(count))
    ]


def settings(**changes: object) -> FinetuneSettings:
    values: dict[str, object] = {
        "method": "lora", "attachment": LoraSettings(rank=4, dropout=0.1), "learning_rate": 5e-3, "epochs": 4.0,
        "rows_per_sequence": 2, "gradient_accumulation_steps": 2,
    }  # fmt: skip
    return FinetuneSettings(**{**values, **changes})  # type: ignore[arg-type]
