"""The project's corpus: passages that hold the facts, out of one JSONL file or a folder of texts. Read by retrieval."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from components.data.rows import read_lines
from components.data.text_files import find_text_files, read_text_file
from components.errors import InputError

__all__ = ["Passage", "corpus_files", "read_corpus"]

SHAPE = 'lines of {"id": "…", "text": "…"}, or a folder of .md and .txt files'
# About what the sentence embedding reads (256 tokens): a longer passage would be found by its beginning only.
WORDS_A_PASSAGE = 160


@dataclass(frozen=True)
class Passage:
    """A piece of text that can be put into a prompt; rows name it by `id` in `metadata.gold`."""

    id: str
    text: str


def corpus_files(path: Path) -> list[Path]:
    """Return the files that a corpus is made of, sorted: the file itself, or the texts below a folder.

    Args:
        path: A JSONL file or a folder.

    Raises:
        InputError: There is no such file or folder, or the folder holds no text.
    """
    return find_text_files(path, "data.corpus", "corpus", SHAPE)


def read_corpus(path: Path) -> list[Passage]:
    """Read every passage.

    A text file is cut at blank lines; paragraphs are joined up to 160 words, and get the ids `file#0`, `file#1`, …

    Args:
        path: A JSONL file of {id, text}, or a folder of text and markdown files.

    Returns:
        The passages, in the order of files and lines.

    Raises:
        InputError: Nothing there, a line of another shape, or an id that stands twice.
    """
    if path.is_file():
        passages = [_parse(path, number, text) for number, text in read_lines(path)]
    else:
        passages = [passage for file in corpus_files(path) for passage in _cut(file, path)]
    seen: set[str] = set()
    for passage in passages:
        if passage.id in seen:
            raise InputError(
                f"{path}: the id {passage.id!r} stands twice",
                allowed="one passage an id",
                next_step="give one of them another id, and name it in metadata.gold where rows mean it",
            )
        seen.add(passage.id)
    if not passages:
        raise InputError(f"the corpus {path} has no passages", allowed=SHAPE, next_step="check data.corpus")
    return passages


def _parse(path: Path, number: int, text: bytes) -> Passage:
    correct = f"correct that line of {path}"
    try:
        value = json.loads(text.decode())
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}, line {number}: not UTF-8 text: byte {error.start} of the line", allowed=SHAPE, next_step=correct
        ) from error
    except ValueError as error:
        raise InputError(f"{path}, line {number}: malformed JSON: {error}", allowed=SHAPE, next_step=correct) from error
    fields = (value.get("id"), value.get("text")) if isinstance(value, dict) else (None, None)
    if not all(isinstance(field, str) and field.strip() for field in fields):
        raise InputError(
            f"{path}, line {number}: `id` and `text` must be texts that are not empty", allowed=SHAPE, next_step=correct
        )
    return Passage(str(fields[0]), str(fields[1]).strip())


def _cut(file: Path, folder: Path) -> list[Passage]:
    pieces: list[str] = []
    for paragraph in (p.strip() for p in re.split(r"\n\s*\n", read_text_file(file))):
        for part in _split_long(paragraph):
            if pieces and len(f"{pieces[-1]} {part}".split()) <= WORDS_A_PASSAGE:
                pieces[-1] = f"{pieces[-1]}\n{part}"
            elif part:
                pieces.append(part)
    name = file.relative_to(folder).as_posix()
    return [Passage(f"{name}#{number}", piece) for number, piece in enumerate(pieces)]


def _split_long(paragraph: str) -> list[str]:
    words = paragraph.split()
    if len(words) <= WORDS_A_PASSAGE:
        return [paragraph]
    return [" ".join(words[start : start + WORDS_A_PASSAGE]) for start in range(0, len(words), WORDS_A_PASSAGE)]
