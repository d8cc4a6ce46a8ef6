"""What to try before finetuning: ways of prompting, each a function from rows to prompts. Read by decide.

zero-shot asks as the rows do; few-shot puts k training examples before the question, the same for every row;
few-shot-retrieved picks for each row the k examples whose questions resemble it most (Liu et al. 2022, "What Makes
Good In-Context Examples for GPT-3?").
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.data.rows import Message
from components.errors import InputError

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["CANDIDATES", "CandidatePrompts", "Fits", "build_prompts", "few_shot", "few_shot_retrieved", "zero_shot"]

CANDIDATES = ("zero-shot", "few-shot", "few-shot-retrieved")

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
    """

    name: str
    prompts: tuple[Prompt, ...]
    examples: int
    shortened: int

    @property
    def note(self) -> str | None:
        """Say how many prompts dropped examples, or nothing."""
        if not self.shortened:
            return None
        return f"{self.name}: {self.shortened} of {len(self.prompts)} prompts carry fewer than {self.examples} examples"


def build_prompts(
    name: str,
    rows: Sequence[Row],
    train_rows: Sequence[Row],
    *,
    tokenizer: Any,
    positions: int,
    max_new_tokens: int,
    examples: int,
    seed: int,
) -> CandidatePrompts:
    """Build a candidate's prompts for the rows.

    Args:
        name: One of CANDIDATES.
        rows: Rows to be answered.
        train_rows: Where examples are taken from.
        tokenizer: Tells whether a prompt fits.
        positions: Most tokens the model takes, prompt and answer together.
        max_new_tokens: Tokens left free for the answer.
        examples: Examples a prompt, k.
        seed: Seed of the random examples.

    Returns:
        One prompt a row.

    Raises:
        InputError: An unknown candidate, or a prompt that doesn't even fit without examples.
    """
    from components.data.chat import prompt_ids

    def fits(messages: Sequence[Message]) -> bool:
        return len(prompt_ids(tokenizer, messages)) + max_new_tokens <= positions

    if name == "zero-shot":
        return zero_shot(rows)
    if name == "few-shot":
        return few_shot(rows, train_rows, examples, seed, fits)
    if name == "few-shot-retrieved":
        return few_shot_retrieved(rows, train_rows, examples, fits)
    raise InputError(
        f"unknown candidate {name!r}", allowed=", ".join(CANDIDATES), next_step="change `candidates` in the recipe"
    )


def zero_shot(rows: Sequence[Row]) -> CandidatePrompts:
    """Ask every row as it stands."""
    return CandidatePrompts("zero-shot", tuple(tuple(row.prompt) for row in rows), 0, 0)


def few_shot(rows: Sequence[Row], train_rows: Sequence[Row], examples: int, seed: int, fits: Fits) -> CandidatePrompts:
    """Put the same k seeded examples before every question, so that their tokens are computed once for all.

    Args:
        rows: Rows to be answered.
        train_rows: Where examples are taken from; rows to be answered are never among them.
        examples: Examples a prompt, k.
        seed: Seed of the choice.
        fits: Whether a prompt leaves the model room to answer.
    """
    asked = {row.messages for row in rows}
    usable = [row for row in train_rows if row.messages not in asked]
    chosen = random.Random(f"few-shot/{seed}").sample(usable, min(examples, len(usable)))
    return _with_examples("few-shot", rows, [chosen] * len(rows), examples, fits)


def few_shot_retrieved(
    rows: Sequence[Row],
    train_rows: Sequence[Row],
    examples: int,
    fits: Fits,
    embed: Callable[[Sequence[str]], Any] | None = None,
) -> CandidatePrompts:
    """Put the k most similar training examples before each question, the most similar one last.

    Args:
        rows: Rows to be answered.
        train_rows: Where examples are taken from; the row to be answered is never among its own.
        examples: Examples a prompt, k.
        fits: Whether a prompt leaves the model room to answer.
        embed: Gives one vector of length 1 a text [n, d]; the MiniLM of components/data/embeddings when not given.
    """
    if embed is None:
        from components.data.embeddings import embed as minilm

        embed = minilm
    if not train_rows or not rows:
        return _with_examples("few-shot-retrieved", rows, [[] for _ in rows], examples, fits)
    vectors = embed([_question(row) for row in (*train_rows, *rows)])
    similarity = (vectors[len(train_rows) :] @ vectors[: len(train_rows)].T).tolist()
    chosen = []
    for row, similar in zip(rows, similarity, strict=True):
        order = sorted(range(len(train_rows)), key=lambda index: (-similar[index], index))
        nearest = [train_rows[index] for index in order if train_rows[index].messages != row.messages][:examples]
        chosen.append(nearest[::-1])
    return _with_examples("few-shot-retrieved", rows, chosen, examples, fits)


def _question(row: Row) -> str:
    return row.prompt[-1].content if row.prompt else ""


def _with_examples(
    name: str, rows: Sequence[Row], chosen: Sequence[Sequence[Row]], examples: int, fits: Fits
) -> CandidatePrompts:
    prompts, shortened = [], 0
    for row, before in zip(rows, chosen, strict=True):
        kept = list(before)
        # the first is the least similar one, or as good as any
        while kept and not fits(_conversation(kept, row)):
            kept.pop(0)
        shortened += len(kept) < len(before)
        prompt = _conversation(kept, row)
        if not kept and not fits(prompt):
            raise InputError(
                f"line {row.line}: the prompt does not fit the model's positions, even without examples",
                next_step="shorten the row, or lower max_new_tokens",
            )
        prompts.append(prompt)
    return CandidatePrompts(name, tuple(prompts), examples, shortened)


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
