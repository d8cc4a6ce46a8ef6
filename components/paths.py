"""Where state and downloads live. Read from the environment at each call, so that a test can move them."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_dir", "home"]


def home() -> Path:
    """Return the state folder: `$TUNEWRIGHT_HOME`, else `.tunewright` in the current folder."""
    return Path(os.environ.get("TUNEWRIGHT_HOME", ".tunewright")).absolute()


def cache_dir() -> Path:
    """Return the per-user download folder: `$TUNEWRIGHT_CACHE`, else the platform's cache folder."""
    named = os.environ.get("TUNEWRIGHT_CACHE")
    if named:
        return Path(named).absolute()
    from platformdirs import user_cache_path

    return user_cache_path("tunewright")
