"""Rows whose answers a model wrote: data for distillation on texts (Kim & Rush 2016, arXiv:1606.07947, section 3.2).

A teacher's likeliest answers in the place of people's: what `tunewright data generate` writes is trained on like any
other rows. Costs the teacher's decoding, once; unlike its logits (components/finetuning/distill.py) they can be a
teacher's of another tokenizer.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.data.rows import Message, Row, examine_row, read_lines
from components.errors import InputError

__all__ = ["Generated", "generate_rows", "read_prompts"]


@dataclass(frozen=True)
class Generated:
    """What a model wrote.

    Attributes:
        rows: The rows whose answers came to an end, with the model's name as `generated_by` in their metadata.
        left_out: (line, reason) of the others.
    """

    rows: list[Row]
    left_out: list[tuple[int, str]]


def read_prompts(path: Path) -> list[Row]:
    """Read rows to be answered: as `read_rows`, but for the last answer, which may be missing.

    Raises:
        InputError: The file is missing, empty, or has a line that is no row (file and line are named).
    """
    rows = []
    for number, text in read_lines(path):
        row, problems = examine_row(text, number)
        if [problem.code for problem in problems] == ["no_answer"]:
            value = json.loads(text)
            # in the place of an answer that nobody reads
            value["messages"].append({"role": "assistant", "content": "?"})
            row, problems = examine_row(json.dumps(value), number)
        if row is None:
            raise InputError(
                f"{path}, line {number}: {problems[0].message}",
                allowed="rows of chat messages, whose last answer may be missing",
                next_step=f"list every problem with `tunewright data check {path}`",
            )
        rows.append(row)
    if not rows:
        raise InputError(f"{path} has no rows", next_step="put at least one row into it")
    return rows


def generate_rows(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    name: str,
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> Generated:
    """Let a model answer every row greedily, in the place of the answer that it has.

    Args:
        model: A causal language model, bare or wrapped by peft.
        tokenizer: Its tokenizer, with a chat template.
        rows: Whose prompts are answered.
        name: Of the model, for the rows' metadata.
        max_new_tokens: Most tokens of an answer with its turn end; one that is as long may have been cut off, which
            would teach never to stop, and is left out.
        batch_size: Prompts decoded at once.
        progress: Called with (finished, all) after each finished prompt.

    Raises:
        InputError: A prompt and its answer don't fit the model's positions.
    """
    from components.data.chat import control_token
    from components.evaluation.generation import generate

    answers = generate(
        model, tokenizer, [row.prompt for row in rows], max_new_tokens=max_new_tokens, batch_size=batch_size,
        progress=progress,
    )  # fmt: skip
    found, left_out = [], []
    for row, answer in zip(rows, answers, strict=True):
        text = answer.text.strip()
        said = Message("assistant", text)
        # the one that ends the turn is counted
        if answer.completion_tokens >= max_new_tokens:
            left_out.append((row.line, f"no end within {max_new_tokens} tokens"))
        elif not text:
            left_out.append((row.line, "an empty answer"))
        elif control_token(tokenizer, [said]) is not None:
            left_out.append((row.line, "a special token spelt out in the answer"))
        else:
            metadata = {**row.metadata, "generated_by": name}
            found.append(replace(row, messages=(*row.prompt, said), metadata=metadata))
    return Generated(found, left_out)
