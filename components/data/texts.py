"""Raw text for self-supervised finetuning: documents from files, split by their content. Between files and packing.

A document is a row whose only message is the text: it has an answer and no prompt, and everything that counts, samples
or digests rows takes it as it is.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.data.chat import control_token
from components.data.rows import Message, Row, read_lines
from components.data.text_files import TEXT_SUFFIXES, find_text_files, read_text_file
from components.errors import InputError

__all__ = ["SPLITS", "check_texts", "encode_text", "read_texts", "split_texts", "text_files"]

SHAPE = 'lines of {"text": "…"}, or a folder of .md and .txt files'
SPLITS = ("train", "dev", "test")
ROLE = "text"


def text_files(path: Path) -> list[Path]:
    """Return the files that raw text is made of, sorted: the file itself, or the texts below a folder.

    Raises:
        InputError: There is no such file or folder, or the folder holds no text.
    """
    return find_text_files(path, "data.text", "text", SHAPE)


def read_texts(path: Path) -> list[Row]:
    """Read every document; of those that are the same to the byte the first one stays.

    Args:
        path: A JSONL file with a `text` in each line, whose other keys are passed over, or a folder of texts, a
            document a file.

    Returns:
        The documents: rows with one message, their line in the file or the number of their file from 1.

    Raises:
        InputError: Nothing there, not UTF-8, or a line of another shape.
    """
    documents: list[tuple[str, int, dict[str, Any]]]
    if path.is_file() and path.suffix.lower() not in TEXT_SUFFIXES:
        documents = [(_parse(path, number, line), number, {}) for number, line in read_lines(path)]
    else:
        documents = [
            (_read(file), number, {"id": file.relative_to(path if path.is_dir() else path.parent).as_posix()})
            for number, file in enumerate(text_files(path), start=1)
        ]
    rows: dict[str, Row] = {}
    for text, number, metadata in documents:
        rows.setdefault(text, Row((Message(ROLE, text),), metadata, number))
    if not rows:
        raise InputError(f"{path} has no documents", allowed=SHAPE, next_step="check data.text in the recipe")
    return list(rows.values())


def split_texts(rows: Sequence[Row], held_out: float, seed: int, path: Path) -> dict[str, list[Row]]:
    """Deal documents into train, dev and test by a digest of their text: more documents don't move the others.

    Args:
        rows: Documents that differ.
        held_out: The part that dev and test get each, in expectation.
        seed: Another one splits anew.
        path: Where they are from, for the error.

    Returns:
        Split -> documents, in their order.

    Raises:
        InputError: A split without a document.
    """
    found: dict[str, list[Row]] = {split: [] for split in SPLITS}
    for row in rows:
        digest = hashlib.sha256(f"{seed}\0{row.answer}".encode()).digest()
        place = int.from_bytes(digest[:8]) / 2**64
        found["test" if place < held_out else "dev" if place < 2 * held_out else "train"].append(row)
    empty = [split for split in SPLITS if not found[split]]
    if empty:
        raise InputError(
            f"{path}: of {len(rows)} documents none falls to {empty[0]} with data.text_held_out {held_out:g}",
            allowed="documents for train, dev and test",
            next_step="add documents, cut long ones in several (one a line of JSONL), or raise data.text_held_out",
        )
    return found


def check_texts(tokenizer: Any, rows: Sequence[Row], path: Path) -> None:
    """Refuse documents whose text would turn into special tokens.

    Raises:
        InputError: Names the file or line, and the token.
    """
    for row in rows:
        found = control_token(tokenizer, row.messages)
        if found is not None:
            where = path / str(row.metadata["id"]) if "id" in row.metadata and path.is_dir() else path
            raise InputError(
                f"{where}{'' if path.is_dir() else f', line {row.line}'}: the text holds {found[1]}, a special token "
                "of the tokenizer",
                allowed="text without the tokenizer's special tokens: they mark where turns and documents end",
                next_step="take it out of the text, or write it in another way",
            )


def encode_text(tokenizer: Any, text: str) -> list[int]:
    """Return a document's tokens with what they are predicted from before them, and the end of text behind them.

    Args:
        tokenizer: The base's.
        text: The document.

    Returns:
        Token ids. The first is what the tokenizer itself puts before a text, or else the end of the document before.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    own: list[int] = tokenizer(text)["input_ids"]
    end = tokenizer.eos_token_id
    begins = own[: len(own) - len(ids)] if own[-len(ids) :] == ids else []
    return [begins[-1] if begins else end, *ids, end]


def _parse(path: Path, number: int, line: bytes) -> str:
    correct = f"correct that line of {path}"
    try:
        value = json.loads(line.decode())
    except ValueError as error:
        raise InputError(f"{path}, line {number}: not JSON in UTF-8: {error}", allowed=SHAPE, next_step=correct) from (
            error
        )
    text = value.get("text") if isinstance(value, dict) else None
    if not isinstance(text, str) or not text.strip():
        raise InputError(
            f"{path}, line {number}: `text` must be a text that is not empty", allowed=SHAPE, next_step=correct
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}, line {number}: `text` has half a surrogate pair", next_step=correct) from error
    return text


def _read(file: Path) -> str:
    text = read_text_file(file)
    if not text.strip():
        raise InputError(f"{file} is empty", allowed="UTF-8 text", next_step="write something into it, or take it out")
    return text
