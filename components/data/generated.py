"""Rows whose answers a model wrote: data for distillation on texts (Kim & Rush 2016, arXiv:1606.07947, section 3.2).

A teacher's likeliest answers in the place of people's: what `tunewright data generate` writes is trained on like any
other rows. Costs the teacher's decoding, once; unlike its logits (components/finetuning/distill.py) they can be a
teacher's of another tokenizer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.data.rows import Message, Row, examine_row, read_lines
from components.errors import InputError

__all__ = ["GENERATED_BY", "Generated", "check_prompts", "generate_rows", "read_prompts"]

# The metadata key that says whose an answer is.
GENERATED_BY = "generated_by"


@dataclass(frozen=True)
class Generated:
    """What a model wrote.

    Attributes:
        rows: The rows whose answers came to an end, with who wrote them as `generated_by` in their metadata.
        left_out: (line, reason) of the others.
    """

    rows: list[Row]
    left_out: list[tuple[int, str]]


def read_prompts(path: Path) -> list[Row]:
    """Read rows to be answered: as `read_rows`, but for the last answer, which may be missing and isn't kept.

    Returns:
        The rows, with an empty answer.

    Raises:
        InputError: The file is missing, empty, or has a line that is no row, or says already whose its answer is (file
            and line are named).
    """
    rows = []
    for number, text in read_lines(path):
        row, problems = examine_row(text, number, answered=False)
        if row is None:
            raise InputError(
                f"{path}, line {number}: {problems[0].message}",
                allowed="rows of chat messages, whose last answer may be missing",
                next_step="correct that line",
            )
        if GENERATED_BY in row.metadata:
            raise InputError(
                f"{path}, line {number}: metadata.{GENERATED_BY} is there, and would be replaced",
                allowed=f"rows without {GENERATED_BY}, which says whose the new answer is",
                next_step="take it out, or give it another name",
            )
        rows.append(row)
    if not rows:
        raise InputError(f"{path} has no rows", next_step="put at least one row into it")
    return rows


def check_prompts(
    tokenizer: Any, rows: Sequence[Row], path: Path, *, positions: int | None, max_new_tokens: int
) -> None:
    """Refuse prompts that can't be answered, before a model is loaded.

    Args:
        tokenizer: The model's, with a chat template.
        rows: What `read_prompts` gave.
        path: Their file, for the message.
        positions: How many a prompt and its answer may take together; None where the model doesn't say.
        max_new_tokens: Most tokens of an answer.

    Raises:
        InputError: A prompt that holds a special token, that the template refuses, or that is too long; names file and
            line.
    """
    from components.data.chat import check_control_tokens, prompt_ids

    check_control_tokens(tokenizer, rows, path)
    for row in rows:
        try:
            tokens = len(prompt_ids(tokenizer, row.prompt))
        except InputError as error:
            problem = f"{path}, line {row.line}: {error.problem}"
            raise InputError(problem, allowed=error.allowed, next_step=error.next_step) from error
        if positions is not None and tokens + max_new_tokens > positions:
            raise InputError(
                f"{path}, line {row.line}: the prompt has {tokens} tokens, which with {max_new_tokens} new ones is "
                f"more than the model's {positions} positions for answers",
                allowed=f"prompts of at most {positions - max_new_tokens} tokens",
                next_step="shorten it or take it out, or lower --max-new-tokens",
            )


def generate_rows(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    by: Mapping[str, str],
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
        by: Who the model is, for the rows' metadata.
        max_new_tokens: Most tokens of an answer with its turn end; one that hasn't ended by then would teach never to
            stop, and is left out.
        batch_size: Prompts decoded at once.
        progress: Called with (finished, all) after each finished prompt.

    Raises:
        InputError: A prompt and its answer don't fit the model's positions.
    """
    from components.data.chat import prompt_ids, special_ids
    from components.evaluation.generation import generate_ids, stop_ids

    stops, special = stop_ids(model, tokenizer), special_ids(tokenizer)
    answers = generate_ids(
        model, [prompt_ids(tokenizer, row.prompt) for row in rows], max_new_tokens=max_new_tokens, stops=stops,
        batch_size=batch_size, progress=progress,
    )  # fmt: skip
    found, left_out = [], []
    for row, (ids, _) in zip(rows, answers, strict=True):
        text, reason = _read_answer(tokenizer, ids, stops, special)
        if reason is not None:
            left_out.append((row.line, reason.format(max_new_tokens=max_new_tokens)))
            continue
        metadata = {**row.metadata, GENERATED_BY: dict(by)}
        found.append(replace(row, messages=(*row.prompt, Message("assistant", text)), metadata=metadata))
    return Generated(found, left_out)


def _read_answer(
    tokenizer: Any, ids: Sequence[int], stops: Collection[int], special: Collection[int]
) -> tuple[str, str | None]:
    """Return an answer's text, and why it can't be used where that is so."""
    from components.data.chat import control_token

    if ids[-1] not in stops:
        return "", "no end within {max_new_tokens} tokens"
    # the text would be without it: said by the model, and not learned from it
    if any(token in special for token in ids[:-1]):
        return "", "a special token in the answer"
    text = tokenizer.decode(ids[:-1], skip_special_tokens=True).strip()
    if not text:
        return "", "an empty answer"
    if control_token(tokenizer, [Message("assistant", text)]) is not None:
        return "", "a special token spelt out in the answer"
    return text, None
