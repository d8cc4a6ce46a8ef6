"""Which files may enter a version by their name, and how any other is refused. Behind every scan in this package."""

from __future__ import annotations

from typing import NoReturn

from registry.errors import FileRefused

__all__ = ["ALLOWED_NAMES", "ALLOWED_SUFFIXES", "MAX_TEXT_BYTES", "TEXT_SUFFIXES", "refuse"]

TEXT_SUFFIXES = (".json", ".jsonl", ".txt", ".md", ".jinja", ".yaml", ".yml")
# .model is sentencepiece's own format: a protocol buffer, refused when it is anything that executes.
ALLOWED_SUFFIXES = (".safetensors", *TEXT_SUFFIXES, ".model")
ALLOWED_NAMES = ("LICENSE", "LICENCE", "NOTICE", "README", "USE_POLICY")
MAX_TEXT_BYTES = 256 * 2**20


def refuse(path: str, why: str) -> NoReturn:
    """Raise the error for a file that may not enter.

    Args:
        path: The file's path inside the version or folder.
        why: What is wrong with it, as the end of a sentence that begins with the file.

    Raises:
        FileRefused: Always.
    """
    raise FileRefused(
        f"file {path!r} {why}",
        allowed=f"safetensors weights and text: {', '.join(ALLOWED_SUFFIXES)}, {', '.join(ALLOWED_NAMES)}",
        next_step="convert weights to safetensors; leave other files out",
    )
