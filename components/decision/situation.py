"""What the tactics look at: the rows, the base and the memory. Read before them, without loading the base."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.decision.base_facts import BaseFacts, read_base_facts
from components.memory.formula import INFERENCE_OVERHEAD
from components.memory.hardware import machine, parse_size

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["Situation", "read_situation", "whole_memory"]

BYTES_PER_VALUE = 2
# Memory is tight where the base alone takes more than this part of it.
TIGHT_SHARE = 0.5


@dataclass(frozen=True)
class Situation:
    """What the rules look at.

    Attributes:
        rows: Number of training rows.
        prompt_characters: Mean length of a prompt.
        answer_characters: Mean length of an answer.
        base: The base.
        memory_bytes: Memory of the machine, or the recipe's budget.
        memory_source: Which of the two, in words.
        text: The rows are raw text, every token of which is learned.
    """

    rows: int
    prompt_characters: float
    answer_characters: float
    base: BaseFacts
    memory_bytes: int
    memory_source: str
    text: bool = False

    @property
    def tight(self) -> bool:
        """Whether the base takes so much of the memory that training should be spared what it can be."""
        return self.share_of_memory > TIGHT_SHARE

    @property
    def share_of_memory(self) -> float:
        """The base's part of the memory, in 16 bits with a fifth on top."""
        return self.base.parameters * BYTES_PER_VALUE * INFERENCE_OVERHEAD / self.memory_bytes


def read_situation(base_folder: Path, rows: Sequence[Row], budget: str, *, text: bool = False) -> Situation:
    """Look at a base folder, the training rows and the memory.

    Args:
        base_folder: Folder with config.json and safetensors.
        rows: The training rows.
        budget: The recipe's memory.budget: a size, or `auto`.
        text: Whether the rows are raw text.

    Raises:
        InputError: A base folder without config or weights.
    """
    count = max(1, len(rows))
    memory_bytes, source = whole_memory(budget)
    return Situation(
        rows=len(rows),
        # characters stand for tokens in their ratio
        prompt_characters=sum(len(message.content) for row in rows for message in row.prompt) / count,
        answer_characters=sum(len(row.answer) for row in rows) / count,
        base=read_base_facts(base_folder),
        memory_bytes=memory_bytes,
        memory_source=source,
        text=text,
    )


def whole_memory(budget: str) -> tuple[int, str]:
    """Return the memory that settings are chosen for, in bytes, and its name.

    What is free at the moment is no ground for a setting: the same machine gets the same weights.

    Args:
        budget: The recipe's memory.budget: a size, or `auto` for all that the GPU or the machine has.
    """
    if budget != "auto":
        return parse_size(budget), f"the budget of {budget}"
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(0).total_memory), "the GPU's memory"
    return machine().memory_bytes, "this machine's memory"
