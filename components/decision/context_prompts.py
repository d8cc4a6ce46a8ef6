"""Prompts with passages before the question, found or gold, with or without examples. A part of baselines."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from components.decision.context import gold_ids, with_passages
from components.decision.corpus import Passage
from components.decision.prompts import CandidatePrompts, Fits, Prompt, instructed, refuse_long_prompts, with_examples

if TYPE_CHECKING:
    from components.data.rows import Row
    from components.decision.context import ContextSource

__all__ = ["with_context"]


def with_context(
    name: str,
    rows: Sequence[Row],
    train_rows: Sequence[Row],
    context: ContextSource,
    examples: int,
    seed: int,
    fits: Fits,
    *,
    gold: bool = False,
    written: str | None = None,
) -> CandidatePrompts:
    """Put passages before every question, and before the questions of k seeded examples that show how to use them.

    Args:
        name: Name of the candidate.
        rows: Rows to be answered.
        train_rows: Where examples are taken from.
        context: Where passages come from.
        examples: Examples a prompt, 0 for none.
        seed: Seed of the examples.
        fits: Whether a prompt leaves the model room to answer; the worst passages are dropped until it does.
        gold: Take the gold passages, of examples too where they name them, instead of those that retrieval finds.
        written: The prompt written for the task, used where there are no examples to show it.
    """
    instruction = written if written and not examples else None
    asked, cut = [], 0
    for row, passages in zip(rows, context.gold(rows) if gold else context.retrieved(rows), strict=True):
        kept = list(passages)
        while kept and not fits(_asked_with(row, kept, instruction)):
            kept.pop()
        cut += len(kept) < len(passages)
        asked.append(with_passages(row, kept))
    if not examples:
        prompts = tuple(_asked_with(row, [], instruction) for row in asked)
        refuse_long_prompts(rows, prompts, fits)
        return CandidatePrompts(name, prompts, 0, 0, cut)
    known = {row.messages for row in rows}
    usable = [row for row in train_rows if row.messages not in known]
    chosen = random.Random(f"few-shot/{seed}").sample(usable, min(examples, len(usable)))
    source = context.gold if gold and all(map(gold_ids, chosen)) else context.retrieved
    shown = [with_passages(row, found) for row, found in zip(chosen, source(chosen), strict=True)]
    return replace(with_examples(name, asked, [shown] * len(asked), examples, fits), cut=cut)


def _asked_with(row: Row, passages: Sequence[Passage], instruction: str | None) -> Prompt:
    prompt = tuple(with_passages(row, passages).prompt)
    return instructed(prompt, instruction) if instruction else prompt
