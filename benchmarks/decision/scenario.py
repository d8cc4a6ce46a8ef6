"""What a scenario is: a task with data, and the verdict that is right by the way in which it was built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from components.data.rows import Message, Row
from components.decision.corpus import Passage

__all__ = ["DEV_ROWS", "Scenario", "make_row", "split"]

DEV_ROWS = 20


@dataclass(frozen=True)
class Scenario:
    """A task whose right verdict is known before anything is measured.

    Attributes:
        name: Its name.
        expected: The right verdict.
        why: By which construction it is right.
        train: Training rows.
        dev: Dev rows.
        passages: The project's corpus; empty where it has none.
        settings: What the recipe would say: candidates, target_score, max_new_tokens, few_shot, written, …
        probe: Fractions of the training rows for a probe finetune.
        base: `135m`, or `tiny` for a small random model.
    """

    name: str
    expected: str
    why: str
    train: Sequence[Row]
    dev: Sequence[Row]
    passages: Sequence[Passage] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    probe: tuple[float, ...] = ()
    base: str = "135m"


def make_row(question: str, answer: str, *, system: str | None = None, gold: str | None = None) -> Row:
    """Return a row of one question, with the id of the passage that holds its answer where there is one."""
    before = (Message("system", system),) if system else ()
    metadata = {"gold": [gold]} if gold else {}
    return Row((*before, Message("user", question), Message("assistant", answer)), metadata)


def split(rows: Sequence[Row], train: int, dev: int = DEV_ROWS) -> tuple[list[Row], list[Row]]:
    """Return (training rows, dev rows): the last rows are for dev, the first for training."""
    if len(rows) < train + dev:
        raise ValueError(f"{len(rows)} rows, {train} + {dev} wanted")
    return list(rows[:train]), list(rows[-dev:])
