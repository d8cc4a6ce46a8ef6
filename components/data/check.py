"""Look at data before anything costly reads them: problems by line, statistics, leakage between splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.rows import Row, RowProblem, examine_row, read_lines
from components.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ["FORMAT", "check_file", "check_splits", "row_statistics", "show_row"]

FORMAT = "chat-jsonl"  # one JSON object a line: messages that end in the assistant's answer, and metadata


def check_file(path: Path, tokenizer: Any = None, positions: int | None = None) -> dict[str, Any]:
    """List every problem of a data file; a line may have several.

    Args:
        path: The file.
        tokenizer: The base's tokenizer, to find text that would become its special tokens, and to count; None leaves
            that out.
        positions: How many tokens the base takes at once; None where that isn't known.

    Returns:
        {"rows": lines that are rows, "problems": [{"line", "code", "message"}], "notes": the same of rows that are
        trained under a setting alone, "format"}; an empty file is a problem of line 0.

    Raises:
        InputError: The file can't be read.
    """
    rows = 0
    problems: list[dict[str, Any]] = []
    notes: list[dict[str, Any]] = []
    for number, text in read_lines(path):
        row, found = examine_row(text, number)
        if row is not None and tokenizer is not None:
            found += _token_problems(row, tokenizer)
            if positions is not None and not found:
                try:
                    notes += _told(number, _length_notes(row, tokenizer, positions))
                except InputError as error:
                    found.append(RowProblem("template", error.problem))
        problems += _told(number, found)
        rows += not found
    if not rows and not problems:
        problems.append({"line": 0, "code": "empty", "message": "the file has no rows"})
    return {"rows": rows, "problems": problems, "notes": notes, "format": FORMAT}


def _told(line: int, found: Sequence[RowProblem]) -> list[dict[str, Any]]:
    return [{"line": line, "code": problem.code, "message": problem.message} for problem in found]


def _token_problems(row: Row, tokenizer: Any) -> list[RowProblem]:
    from components.data.chat import control_token

    found = control_token(tokenizer, row.messages)
    if found is None:
        return []
    number, token = found
    message = f"the content of message {number} holds {token}, a special token of the tokenizer"
    return [RowProblem("control_token", message)]


def _length_notes(row: Row, tokenizer: Any, positions: int) -> list[RowProblem]:
    from components.data.chat import rendered_ids

    length = len(rendered_ids(tokenizer, row.messages, add_generation_prompt=False))
    if length <= positions:
        return []
    factor = -(-length // positions)
    message = f"it has {length} tokens, and the base {positions} positions: training takes it under a "
    return [RowProblem("long", f"{message}finetune.rope_scaling of {factor} or more")]


def row_statistics(rows: Sequence[Row], tokenizer: Any = None) -> dict[str, Any]:
    """Count rows, turns, characters, subsets, groups and repeats; with a tokenizer, tokens as they are trained.

    Args:
        rows: At least one row.
        tokenizer: A tokenizer with a chat template, or None.

    Returns:
        rows, turns, characters {prompt, answer: {mean, max}}, subsets, databases {name: rows}, duplicates {rows:
        repeats of a whole row, prompts: repeats of a prompt with another answer}; tokens {total, trained, mean, max}
        with a tokenizer.
    """
    prompts = [sum(len(m.content) for m in row.prompt) for row in rows]
    answers = [len(row.answer) for row in rows]
    whole = Counter(row.messages for row in rows)
    prompt_counts = Counter(key[:-1] for key in whole)
    document: dict[str, Any] = {
        "rows": len(rows),
        "turns": sum(len(row.messages) for row in rows),
        "characters": {"prompt": _mean_and_max(prompts), "answer": _mean_and_max(answers)},
        "subsets": _counts(rows, "subset"),
        "databases": _counts(rows, "database"),
        "duplicates": {
            "rows": len(rows) - len(whole),
            "prompts": sum(count - 1 for count in prompt_counts.values()),
        },
    }
    if tokenizer is not None:
        from components.data.chat import encode

        encoded = [encode(tokenizer, row.messages, prompt_loss_weight=0.0) for row in rows]
        lengths = [len(e.input_ids) for e in encoded]
        trained = sum(weight > 0 for e in encoded for weight in e.weights)
        document["tokens"] = {"total": sum(lengths), "trained": trained, **_mean_and_max(lengths)}
    return document


def _mean_and_max(values: Sequence[int]) -> dict[str, float]:
    return {"mean": round(sum(values) / len(values), 1), "max": max(values)}


def _counts(rows: Sequence[Row], key: str) -> dict[str, int]:
    return dict(sorted(Counter(str(row.metadata[key]) for row in rows if key in row.metadata).items()))


def show_row(row: Row, tokenizer: Any = None, prompt_loss_weight: float = 0.0) -> dict[str, Any]:
    """Return a row as the model is trained on it: text, and every token with its loss weight.

    Args:
        row: The row.
        tokenizer: A tokenizer with a chat template; without one the text is plain and `tokens` is empty.
        prompt_loss_weight: Weight of the tokens that no assistant wrote, 0 to 1.

    Returns:
        {"line", "text", "tokens": [{"id", "text", "weight"}], "metadata"}.
    """
    text = "\n".join(f"[{m.role}] {m.content}" for m in row.messages)
    tokens: list[dict[str, Any]] = []
    if tokenizer is not None:
        from components.data.chat import encode

        encoded = encode(tokenizer, row.messages, prompt_loss_weight=prompt_loss_weight)
        text = tokenizer.decode(encoded.input_ids)
        pairs = zip(encoded.input_ids, encoded.weights, strict=True)
        tokens = [{"id": i, "text": tokenizer.decode([i]), "weight": weight} for i, weight in pairs]
    return {"line": row.line, "text": text, "tokens": tokens, "metadata": dict(row.metadata)}


def check_splits(train: Sequence[Row], dev: Sequence[Row], test: Sequence[Row], group: str = "database") -> None:
    """Refuse splits that would flatter the score: what is asked in one must not have been seen in another.

    Args:
        train: Rows trained on.
        dev: Rows that choose between prompts and checkpoints.
        test: Rows that the reported score is measured on.
        group: Metadata key that must not cross splits; rows without it are compared by their prompts only.

    Raises:
        InputError: A split is empty, a group is in two splits, or a prompt is (letter case and white space apart).
    """
    splits = {"train": train, "dev": dev, "test": test}
    for name, rows in splits.items():
        if not rows:
            raise InputError(
                f"the {name} split is empty", allowed="rows in train, dev and test", next_step="split anew"
            )
    for one, other in (("test", "train"), ("test", "dev"), ("dev", "train")):
        groups = {r.metadata[group]: r for r in splits[other] if group in r.metadata}
        prompts = {_prompt_key(r): r for r in splits[other]}
        for row in splits[one]:
            seen = groups.get(row.metadata[group]) if group in row.metadata else None
            if seen is not None:
                _leak(one, row, other, seen, f"the {group} {row.metadata[group]!r}")
            same = prompts.get(_prompt_key(row))
            if same is not None:
                _leak(one, row, other, same, "the same prompt")


def _prompt_key(row: Row) -> Hashable:
    return tuple((m.role, " ".join(m.content.casefold().split())) for m in row.prompt)


def _leak(one: str, row: Row, other: str, seen: Row, what: str) -> None:
    raise InputError(
        f"leakage: {what} is in {one} (line {row.line}) and in {other} (line {seen.line})",
        allowed="splits that share neither groups nor prompts",
        next_step="split by group, or drop the repeated rows",
    )
