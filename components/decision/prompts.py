"""Prompts of one candidate: examples as earlier turns, a system message, what is dropped until they fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from components.data.rows import Message
from components.errors import InputError

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["CandidatePrompts", "Fits", "Prompt", "instructed", "refuse_long_prompts", "with_examples"]

Fits = Callable[[Sequence[Message]], bool]
Prompt = tuple[Message, ...]


@dataclass(frozen=True)
class CandidatePrompts:
    """One way of prompting, applied to every row.

    Attributes:
        name: One of CANDIDATES.
        prompts: One a row.
        examples: Number of examples asked for.
        shortened: Number of prompts that had to drop examples to fit the model.
        cut: Number of prompts that had to drop passages.
    """

    name: str
    prompts: tuple[Prompt, ...]
    examples: int
    shortened: int
    cut: int = 0

    @property
    def note(self) -> str | None:
        """Say how many prompts dropped examples or passages, or nothing."""
        lost = [f"fewer than {self.examples} examples"] if self.shortened else []
        lost += ["fewer passages than were found"] if self.cut else []
        if not lost:
            return None
        number = max(self.shortened, self.cut)
        return f"{self.name}: {number} of {len(self.prompts)} prompts carry {' and '.join(lost)}"


def instructed(prompt: Sequence[Message], written: str) -> Prompt:
    """Put a text before the system message, or make it one where there is none."""
    if prompt and prompt[0].role == "system":
        return (Message("system", f"{written}\n\n{prompt[0].content}"), *prompt[1:])
    return (Message("system", written), *prompt)


def with_examples(
    name: str, rows: Sequence[Row], chosen: Sequence[Sequence[Row]], examples: int, fits: Fits
) -> CandidatePrompts:
    """Put each row's examples before its question, dropping the first ones until the prompt fits.

    Args:
        name: Name of the candidate.
        rows: Rows to be answered.
        chosen: Examples of each row, the best last.
        examples: Examples asked for.
        fits: Whether a prompt leaves the model room to answer.

    Raises:
        InputError: A prompt that doesn't fit without examples either.
    """
    prompts, shortened = [], 0
    for row, before in zip(rows, chosen, strict=True):
        kept = list(before)
        # the first is the least similar one, or as good as any
        while kept and not fits(_conversation(kept, row)):
            kept.pop(0)
        shortened += len(kept) < len(before)
        prompt = _conversation(kept, row)
        prompts.append(prompt)
    refuse_long_prompts(rows, prompts, fits)
    return CandidatePrompts(name, tuple(prompts), examples, shortened)


def refuse_long_prompts(rows: Sequence[Row], prompts: Sequence[Prompt], fits: Fits) -> None:
    """Refuse rows whose prompt leaves the model no room to answer.

    Raises:
        InputError: Such a prompt, by the line of its row.
    """
    for row, prompt in zip(rows, prompts, strict=True):
        if not fits(prompt):
            raise InputError(
                f"line {row.line} of the dev rows: the prompt does not fit the model's positions, even by itself",
                allowed="prompts that leave max_new_tokens of the model's positions free",
                next_step="shorten the row, or lower task.max_new_tokens",
            )


def _conversation(examples: Sequence[Row], row: Row) -> Prompt:
    """Return the examples as earlier turns, then the row; without examples just the row's own prompt.

    A conversation has one system message, but each example has its own (its schema): it goes before its question.
    """
    if not examples:
        return tuple(row.prompt)
    turns: list[Message] = []
    for example in examples:
        turns += [*_without_system(example.prompt), Message("assistant", example.answer)]
    return (*turns, *_without_system(row.prompt))


def _without_system(messages: Sequence[Message]) -> list[Message]:
    turns = list(messages)
    if len(turns) > 1 and turns[0].role == "system" and turns[1].role == "user":
        merged = Message("user", f"{turns[0].content}\n\n{turns[1].content}")
        return [merged, *turns[2:]]
    return turns
