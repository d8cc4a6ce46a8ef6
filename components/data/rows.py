"""The one shape of a data row: chat messages that end in the answer. Every later step reads rows, never files."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.files import write_atomic

__all__ = ["ROLES", "Message", "Row", "RowProblem", "parse_row", "read_lines", "read_rows", "write_rows"]

ROLES = ("system", "user", "assistant")
KEYS = ("messages", "metadata")
# What steps read out of the metadata: names that rows are chosen and kept apart by. Other keys are the user's own.
TEXT_METADATA = ("subset", "database")
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


def parse_row(text: str, line: int) -> Row:
    """Parse one line of a JSONL file.

    Args:
        text: The line.
        line: Its number, from 1.

    Raises:
        RowProblem: The line is not a row; the code says in which way.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise RowProblem("malformed_json", f"malformed JSON at column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise RowProblem("malformed_json", f"malformed JSON: {error}") from error
    if not isinstance(value, dict):
        raise RowProblem("not_an_object", f"a JSON object is expected, not {type(value).__name__}")
    _check_keys(value)
    messages = value.get("messages")
    if not isinstance(messages, list) or not messages:
        raise RowProblem("no_messages", "`messages` is missing or empty")
    metadata = value.get("metadata", {})
    if not isinstance(metadata, dict):
        raise RowProblem("bad_metadata", f"`metadata` must be an object, not {type(metadata).__name__}")
    for key in TEXT_METADATA:
        if not isinstance(metadata.get(key, ""), str):
            raise RowProblem("bad_metadata", f"metadata.{key} must be text, not {json.dumps(metadata[key])}")
    parsed = tuple(_parse_message(message, index) for index, message in enumerate(messages, start=1))
    if any(m.role == "system" for m in parsed[1:]):
        raise RowProblem("late_system", "a system message stands only at the beginning")
    if parsed[-1].role != "assistant":
        raise RowProblem("no_answer", f"the last message must be the assistant's answer, not {parsed[-1].role}'s")
    if not parsed[-1].content.strip():
        raise RowProblem("empty_answer", "the assistant's answer is empty")
    if not any(m.role == "user" for m in parsed):
        raise RowProblem("no_question", "there is no user message")
    return Row(messages=parsed, metadata=metadata, line=line)


def _check_keys(row: Mapping[str, Any]) -> None:
    """Refuse a key that nothing reads: a misspelt `metadata` would be passed over without a word."""
    for key in row:
        if key not in KEYS:
            nearest = difflib.get_close_matches(key, KEYS, n=1)
            advice = f"did you mean `{nearest[0]}`?" if nearest else "what else is known of a row goes into `metadata`"
            raise RowProblem("unknown_key", f"unknown key {json.dumps(key)}; allowed: {', '.join(KEYS)}; {advice}")


def _parse_message(message: Any, index: int) -> Message:
    if not isinstance(message, dict):
        raise RowProblem("bad_message", f"message {index} must be an object with role and content")
    role, content = message.get("role"), message.get("content")
    if role not in ROLES:
        raise RowProblem("bad_role", f"message {index} has role {role!r}; allowed: {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise RowProblem("bad_content", f"the content of message {index} must be text, not {type(content).__name__}")
    try:
        content.encode()
    except UnicodeEncodeError as error:
        raise RowProblem("bad_text", f"the content of message {index} has half a surrogate pair") from error
    return Message(role=role, content=content)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def read_rows(path: Path) -> list[Row]:
    """Read every row of a JSONL data file; blank lines are skipped.

    Raises:
        InputError: The file is missing, not UTF-8, empty, or has a line that is not a row (file and line are named).
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


def read_lines(path: Path) -> list[tuple[int, str]]:
    """Return (line number from 1, text) of every line that is not blank.

    Raises:
        InputError: The file is missing, a folder, unreadable or not UTF-8.
    """
    try:
        # split on \n only: JSON strings may hold U+2028, which splitlines() would cut at
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"no data file {path}", allowed="a JSONL file", next_step="check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: byte {error.start}", allowed="JSONL in UTF-8") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", allowed="a readable JSONL file") from error
    return [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """Write rows as JSONL, one a line, whole or not at all; equal rows give equal bytes."""
    lines = [json.dumps(row.to_dict(), ensure_ascii=False, sort_keys=True) for row in rows]
    write_atomic(path, "".join(line + "\n" for line in lines))
