"""The state folder when it is made: it is for this machine, so nothing in it belongs in a commit."""

from __future__ import annotations

from pathlib import Path

from components.files import write_atomic

__all__ = ["make_state_folder"]


def make_state_folder(home: Path) -> None:
    """Make the state folder where there is none, and let git ignore it.

    A folder that is there may be somebody's own, `--home .` for instance: nothing is written into it.

    Args:
        home: State folder.

    Raises:
        FileExistsError: A file of this name is in the way.
    """
    home.parent.mkdir(parents=True, exist_ok=True)
    try:
        home.mkdir()
    except FileExistsError:
        if not home.is_dir():
            raise
        return
    write_atomic(home / ".gitignore", "*\n")
