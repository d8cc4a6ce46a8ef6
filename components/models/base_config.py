"""A base's config.json, read without its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.errors import InputError

__all__ = ["read_config"]


def read_config(folder: Path) -> Any:
    """Read a base's config; nothing else of the folder is needed.

    Raises:
        InputError: No config.json, or an architecture that transformers doesn't have.
    """
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json", allowed="the folder of a base model")
    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the config in {folder} can't be read: {error}", allowed="architectures that transformers has"
        ) from error
