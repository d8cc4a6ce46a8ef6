"""Files of plain text, as a recipe names them: a corpus to retrieve from and texts to train on are read alike."""

from __future__ import annotations

from pathlib import Path

from components.errors import InputError

__all__ = ["TEXT_SUFFIXES", "find_text_files", "read_text_file"]

TEXT_SUFFIXES = (".md", ".markdown", ".txt")


def find_text_files(path: Path, key: str, named: str, shape: str) -> list[Path]:
    """Return the files that a recipe's key means, sorted: the file itself, or the texts below a folder.

    Args:
        path: A file or a folder.
        key: The recipe's key, for errors.
        named: What the key names, for errors.
        shape: What may stand there, for errors.

    Raises:
        InputError: There is no such file or folder, or the folder holds no text.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"no {named} at {path}", allowed=shape, next_step=f"check {key} in the recipe")
    found = sorted(p for p in path.rglob("*") if p.is_file() and p.suffix.lower() in TEXT_SUFFIXES)
    if not found:
        raise InputError(f"the {named} folder {path} holds no text", allowed=shape, next_step="put texts into it")
    return found


def read_text_file(file: Path) -> str:
    """Return a file's text, without a byte order mark.

    Raises:
        InputError: It can't be read, or isn't UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"cannot read {file}: {error}", allowed="UTF-8 text", next_step="save it as UTF-8, or take it out"
        ) from error
