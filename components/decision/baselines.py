"""What to try before finetuning: ways of prompting, each a function from rows to prompts. Read by decide.

zero-shot asks as the rows do; prompt adds what somebody wrote for the task; few-shot puts k training examples before
the question, the same for every row; few-shot-retrieved picks for each row the k examples whose questions resemble it
most (Liu et al. 2022, "What Makes Good In-Context Examples for GPT-3?"). rag and oracle put passages before the
question, found or gold, and before those of the examples in rag-few-shot and oracle-few-shot.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from components.data.rows import Message
from components.decision.context_prompts import with_context
from components.decision.prompts import CandidatePrompts, Fits, instructed, refuse_long_prompts, with_examples
from components.errors import InputError

if TYPE_CHECKING:
    from components.data.rows import Row
    from components.decision.context import ContextSource

__all__ = [
    "CANDIDATES",
    "ORACLE_CANDIDATES",
    "RETRIEVAL_CANDIDATES",
    "SIMPLE_CANDIDATES",
    "build_prompts",
    "counterpart",
    "few_shot",
    "few_shot_retrieved",
    "written_prompt",
    "zero_shot",
]

SIMPLE_CANDIDATES = ("zero-shot", "prompt", "few-shot", "few-shot-retrieved")
RETRIEVAL_CANDIDATES = ("rag", "rag-few-shot")
# what no request can have: the passages that are known to hold the answer
ORACLE_CANDIDATES = ("oracle", "oracle-few-shot")
CANDIDATES = (*SIMPLE_CANDIDATES, *RETRIEVAL_CANDIDATES, *ORACLE_CANDIDATES)


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
    written: str | None = None,
    context: ContextSource | None = None,
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
        written: The prompt written for the task; it also stands before passages.
        context: Where passages come from.

    Returns:
        One prompt a row.

    Raises:
        InputError: An unknown candidate, one that needs a written prompt or a corpus where there is none, or a prompt
            that doesn't even fit without examples.
    """
    from components.data.chat import prompt_ids

    def fits(messages: Sequence[Message]) -> bool:
        return len(prompt_ids(tokenizer, messages)) + max_new_tokens <= positions

    if max_new_tokens >= positions:
        raise InputError(
            f"max_new_tokens is {max_new_tokens}, which leaves a prompt no room in the model's {positions} positions",
            allowed=f"fewer than {positions}",
            next_step="lower task.max_new_tokens in the recipe",
        )
    if name in ("zero-shot", "prompt"):
        found = zero_shot(rows) if name == "zero-shot" else written_prompt(rows, written)
        refuse_long_prompts(rows, found.prompts, fits)
        return found
    if name == "few-shot":
        return few_shot(rows, train_rows, examples, seed, fits)
    if name == "few-shot-retrieved":
        return few_shot_retrieved(rows, train_rows, examples, fits)
    if name not in CANDIDATES:
        raise InputError(
            f"unknown candidate {name!r}", allowed=", ".join(CANDIDATES), next_step="change `candidates` in the recipe"
        )
    if context is None:
        raise InputError(f"candidate {name!r} needs a corpus", next_step="name data.corpus in the recipe")
    shots = examples if name.endswith("few-shot") else 0
    gold = name in ORACLE_CANDIDATES
    return with_context(name, rows, train_rows, context, shots, seed, fits, gold=gold, written=written)


def counterpart(name: str, *, written: bool) -> str | None:
    """Return the candidate that differs from one with passages by its passages alone; None for one without.

    Args:
        name: One of CANDIDATES.
        written: A prompt was written for the task; it stands before passages where no examples show the task.
    """
    if name in SIMPLE_CANDIDATES:
        return None
    if name.endswith("few-shot"):
        return "few-shot"
    return "prompt" if written else "zero-shot"


def zero_shot(rows: Sequence[Row]) -> CandidatePrompts:
    """Ask every row as it stands."""
    return CandidatePrompts("zero-shot", tuple(tuple(row.prompt) for row in rows), 0, 0)


def written_prompt(rows: Sequence[Row], written: str | None) -> CandidatePrompts:
    """Ask with the prompt written for the task: before the row's own system message, or as one where it has none.

    Raises:
        InputError: Nothing was written.
    """
    if not written:
        raise InputError("candidate 'prompt' needs a prompt", next_step="write decision.prompt in the recipe")
    return CandidatePrompts("prompt", tuple(instructed(row.prompt, written) for row in rows), 0, 0)


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
    return with_examples("few-shot", rows, [chosen] * len(rows), examples, fits)


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
        return with_examples("few-shot-retrieved", rows, [[] for _ in rows], examples, fits)
    vectors = embed([_question(row) for row in (*train_rows, *rows)])
    similarity = (vectors[len(train_rows) :] @ vectors[: len(train_rows)].T).tolist()
    chosen = []
    for row, similar in zip(rows, similarity, strict=True):
        order = sorted(range(len(train_rows)), key=lambda index: (-similar[index], index))
        nearest = [train_rows[index] for index in order if train_rows[index].messages != row.messages][:examples]
        chosen.append(nearest[::-1])
    return with_examples("few-shot-retrieved", rows, chosen, examples, fits)


def _question(row: Row) -> str:
    return row.prompt[-1].content if row.prompt else ""
