"""The one shape of a data row: chat messages that end in the answer. Every later step reads rows, never files."""

from __future__ import annotations

import codecs
import difflib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.files import write_atomic

__all__ = [
    "ROLES",
    "Message",
    "Row",
    "RowProblem",
    "examine_row",
    "parse_row",
    "read_lines",
    "read_rows",
    "write_rows",
]

ROLES = ("system", "user", "assistant")
KEYS = ("messages", "metadata")
MESSAGE_KEYS = ("role", "content")
# What steps read out of the metadata: names that rows are chosen and kept apart by. Other keys are the user's own.
TEXT_METADATA = ("subset", "database")
# Problems of the last answer alone.
ANSWER_CODES = ("empty_answer", "no_answer")
SHAPE = '{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}], "metadata": {}}'


@dataclass(frozen=True)
class Message:
    """One turn of a chat; `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Row:
    """One example: the messages, what is known about it, and the line (from 1) of its file."""

    messages: tuple[Message, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    line: int = 0

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Return all messages but the last assistant message."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """Return the content of the last assistant message."""
        return self.messages[-1].content

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON value of one line of a data file."""
        messages = [{"role": m.role, "content": m.content} for m in self.messages]
        return {"messages": messages, "metadata": dict(self.metadata)}


class RowProblem(Exception):  # noqa: N818 - a finding that `data check` lists, turned into InputError by read_rows
    """What is wrong with one line: a stable code for programs and a message for people."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(message)


def parse_row(text: str | bytes, line: int) -> Row:
    """Parse one line of a JSONL file.

    Args:
        text: The line; bytes are UTF-8.
        line: Its number, from 1.

    Raises:
        RowProblem: The line is not a row; the code says in which way. Of several problems it is the first.
    """
    row, problems = examine_row(text, line)
    if row is None:
        raise problems[0]
    return row


def examine_row(text: str | bytes, line: int, *, answered: bool = True) -> tuple[Row | None, list[RowProblem]]:
    """Parse one line of a JSONL file and find all that is wrong with it.

    Args:
        text: The line; bytes are UTF-8.
        line: Its number, from 1.
        answered: Whether the row has to have an answer; if not, the one that it may have isn't kept, and the row's is
            empty.

    Returns:
        The row and no problems, or None and at least one.
    """
    try:
        value = _parse_json(text)
        if not isinstance(value, dict):
            raise RowProblem("not_an_object", f"a JSON object is expected, not {type(value).__name__}")
    except RowProblem as problem:
        return None, [problem]
    problems = [*_key_problems(value, KEYS), *_metadata_problems(value.get("metadata", {}))]
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        return None, [*problems, RowProblem("no_messages", "`messages` is missing or empty")]
    for index, message in enumerate(messages, start=1):
        problems += _message_problems(message, index)
    # whose turn it is can be told only of messages that are some
    if all(isinstance(message, dict) and message.get("role") in ROLES for message in messages):
        problems += _order_problems([message["role"] for message in messages])
        answer = messages[-1].get("content")
        if messages[-1]["role"] == "assistant" and isinstance(answer, str) and not answer.strip():
            problems.append(RowProblem("empty_answer", "the assistant's answer is empty"))
    if not answered:
        problems = [problem for problem in problems if problem.code not in ANSWER_CODES]
    if problems:
        return None, problems
    parsed = tuple(Message(role=message["role"], content=message["content"]) for message in messages)
    if not answered:
        prompt = parsed[:-1] if parsed[-1].role == "assistant" else parsed
        parsed = (*prompt, Message("assistant", ""))
    return Row(messages=parsed, metadata=value.get("metadata", {}), line=line), []


class _RepeatedKey(ValueError):  # noqa: N818 - caught below, where it becomes a RowProblem
    """A JSON object has a key twice."""


def _parse_json(text: str | bytes) -> Any:
    try:
        decoded = text if isinstance(text, str) else text.decode()
        return json.loads(decoded, parse_constant=_refuse_constant, object_pairs_hook=_distinct_keys)
    except UnicodeDecodeError as error:
        raise RowProblem("not_utf8", f"not UTF-8 text: byte {error.start + 1} of the line") from error
    except json.JSONDecodeError as error:
        raise RowProblem("malformed_json", f"malformed JSON at column {error.colno}: {error.msg}") from error
    except _RepeatedKey as error:
        raise RowProblem("repeated_key", str(error)) from error
    except (ValueError, RecursionError) as error:
        raise RowProblem("malformed_json", f"malformed JSON: {error}") from error


def _distinct_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RepeatedKey(f"the key {json.dumps(twice)} stands twice in one object; only one can be meant")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _key_problems(found: Mapping[str, Any], known: Sequence[str], where: str = "") -> Iterator[RowProblem]:
    """Find keys that nothing reads: a misspelt `metadata` would be passed over without a word."""
    for key in found:
        if key not in known:
            nearest = difflib.get_close_matches(key, known, n=1)
            advice = f"did you mean `{nearest[0]}`?" if nearest else "what else is known of a row goes into `metadata`"
            yield RowProblem(
                "unknown_key", f"unknown key {json.dumps(key)}{where}; allowed: {', '.join(known)}; {advice}"
            )


def _metadata_problems(metadata: Any) -> Iterator[RowProblem]:
    if not isinstance(metadata, dict):
        yield RowProblem("bad_metadata", f"`metadata` must be an object, not {type(metadata).__name__}")
        return
    for key in TEXT_METADATA:
        if key not in metadata:
            continue
        if not isinstance(metadata[key], str):
            yield RowProblem("bad_metadata", f"metadata.{key} must be text, not {json.dumps(metadata[key])}")
        elif not metadata[key].strip():
            yield RowProblem("bad_metadata", f"metadata.{key} is empty; leave it out, or name the row's {key}")


def _message_problems(message: Any, index: int) -> Iterator[RowProblem]:
    if not isinstance(message, dict):
        yield RowProblem("bad_message", f"message {index} must be an object with role and content")
        return
    yield from _key_problems(message, MESSAGE_KEYS, f" in message {index}")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        yield RowProblem("bad_role", f"message {index} has role {role!r}; allowed: {', '.join(ROLES)}")
    if not isinstance(content, str):
        yield RowProblem("bad_content", f"the content of message {index} must be text, not {type(content).__name__}")
        return
    try:
        content.encode()
    except UnicodeEncodeError:
        yield RowProblem("bad_text", f"the content of message {index} has half a surrogate pair")


def _order_problems(roles: Sequence[str]) -> Iterator[RowProblem]:
    if "system" in roles[1:]:
        yield RowProblem("late_system", "a system message stands only at the beginning")
    for index, (one, other) in enumerate(pairwise(roles), start=1):
        # many templates refuse it, and the others train on a chat that no client sends
        if one == other and one != "system":
            yield RowProblem(
                "repeated_role", f"messages {index} and {index + 1} are both the {one}'s; join them into one"
            )
    if roles[-1] != "assistant":
        yield RowProblem("no_answer", f"the last message must be the assistant's answer, not {roles[-1]}'s")
    if "user" not in roles:
        yield RowProblem("no_question", "there is no user message")


def read_rows(path: Path) -> list[Row]:
    """Read every row of a JSONL data file; blank lines are skipped.

    Raises:
        InputError: The file is missing, empty, or has a line that is not a row (file and line are named).
    """
    rows = []
    for number, text in read_lines(path):
        try:
            rows.append(parse_row(text, number))
        except RowProblem as problem:
            raise InputError(
                f"{path}, line {number}: {problem.message}",
                allowed=SHAPE,
                next_step=f"list every problem with `tunewright data check {path}`",
            ) from problem
    if not rows:
        raise InputError(f"{path} has no rows", allowed=SHAPE, next_step="put at least one row into it")
    return rows


def read_lines(path: Path) -> list[tuple[int, bytes]]:
    """Return (line number from 1, bytes) of every line that is not blank.

    Raises:
        InputError: The file is missing, a folder or unreadable.
    """
    try:
        # split on \n only: JSON strings may hold U+2028, which splitlines() would cut at
        lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n")
    except FileNotFoundError as error:
        raise InputError(f"no data file {path}", allowed="a JSONL file", next_step="check the path") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", allowed="a readable JSONL file") from error
    return [(number, line) for number, line in enumerate(lines, start=1) if line.strip()]


def write_rows(path: Path, rows: Iterable[Row], *, replace: bool = True) -> None:
    """Write rows as JSONL, one a line, whole or not at all; equal rows give equal bytes.

    Args:
        path: The file.
        rows: What it holds.
        replace: Whether a file that is there is written over.

    Raises:
        InputError: The folder can't be created or written.
        ConflictError: Something is there that isn't to be replaced; names the file beside it that has the rows.
    """
    lines = [json.dumps(row.to_dict(), ensure_ascii=False, sort_keys=True) for row in rows]
    write_atomic(path, "".join(line + "\n" for line in lines), replace=replace)
