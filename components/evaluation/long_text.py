"""Long texts for measuring how far a model's positions reach: whole passages in a seeded order, cut to a length.

The project's own passages are those of BoolQ's questions (Wikipedia, CC BY-SA 3.0), which the suites fetch anyway; a
file of real long documents can be named instead. Behind perplexity by position.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.evaluation.suite_data import suite_file
from components.files import digest_of

__all__ = ["LongTexts", "fetched_passages", "long_texts", "read_passages"]

LongTexts = tuple[tuple[int, ...], ...]
SUITE = "boolq"


def fetched_passages(cache: Path | None = None) -> list[str]:
    """Return BoolQ's passages, each once, in the order of the file; fetched the first time.

    Args:
        cache: Download folder; the per-user cache when not given.
    """
    lines = suite_file(SUITE, cache).read_text(encoding="utf-8").splitlines()
    # a line's question stands behind its passage
    passages = (json.loads(line)["question"].rpartition("\n")[0].strip() for line in lines)
    return list(dict.fromkeys(passage for passage in passages if passage))


def read_passages(path: Path) -> list[str]:
    """Read a text: paragraphs that blank lines part, so that documents stay in their order.

    Args:
        path: A UTF-8 text file.

    Raises:
        InputError: It can't be read, or holds nothing.
    """
    try:
        found = [part.strip() for part in path.read_text(encoding="utf-8").split("\n\n") if part.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}", allowed="a UTF-8 text file") from error
    if not found:
        raise InputError(f"{path} is empty", allowed="a UTF-8 text file of some thousand words")
    return found


def long_texts(
    tokenizer: Any, passages: Sequence[str], *, count: int, tokens: int, seed: int | None
) -> tuple[LongTexts, str]:
    """Join passages to texts that share none of them.

    Args:
        tokenizer: The base's.
        passages: What the texts are made of.
        count: Texts.
        tokens: Length of each.
        seed: Seed of the passages' order; None leaves them as they are.

    Returns:
        Token ids of each text, all of the same length, and a digest of them.

    Raises:
        InputError: The passages are too short for this.
    """
    order = list(passages)
    if seed is not None:
        random.Random(f"long texts/{seed}").shuffle(order)
    waiting = iter(order)
    texts: list[tuple[int, ...]] = []
    for _ in range(count):
        ids: list[int] = []
        for passage in waiting:
            ids += tokenizer(passage + "\n\n", add_special_tokens=False)["input_ids"]
            if len(ids) >= tokens:
                break
        else:
            raise InputError(
                f"{count} texts of {tokens} tokens out of {len(passages)} passages, which hold fewer",
                allowed="fewer or shorter texts, or a longer source",
                next_step="lower --texts or --lengths, or name another file with --text",
            )
        texts.append(tuple(ids[:tokens]))
    return tuple(texts), digest_of([list(ids) for ids in texts])
