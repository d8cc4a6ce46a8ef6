"""The one adapter to DVC: bring the data that dvc.lock names into the workspace, and say what is really there.

First step of every flow. DVC takes a second to import, so digests are compared here and DVC runs, as a process of its
own that no user setting reaches, only when something is missing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.errors import InputError, TunewrightError
from components.files import sha256_file
from components.paths import home
from flows.dvc_workspace import (
    locked_outputs,
    md5_of,
    remote_folder,
    remote_has,
    run_dvc,
    stages_behind,
    stale_reasons,
    stored,
)

__all__ = ["DataFile", "DataVersion", "can_be_brought", "materialise", "relative_path"]


@dataclass(frozen=True)
class DataFile:
    """One data file as it is on disk.

    Attributes:
        path: Path relative to the repository.
        md5: Digest that dvc.lock names; None for a file that no stage makes.
        sha256: Digest of the bytes on disk.
        rows: Lines that aren't blank, for JSONL; else None.
        modified: The bytes on disk are not those that dvc.lock names.
    """

    path: str
    md5: str | None
    sha256: str
    rows: int | None
    modified: bool


@dataclass(frozen=True)
class DataVersion:
    """The data of a run.

    Attributes:
        files: Every file asked for, sorted by path.
        stale: Code, parameters or inputs that changed since dvc.lock was written, one line each.
        source: Where missing files came from: workspace (none was missing), cache, remote or repro.
        pushed: Files that were added to the local remote.
    """

    files: tuple[DataFile, ...]
    stale: tuple[str, ...]
    source: str
    pushed: int

    @property
    def modified(self) -> bool:
        """Say whether any file was changed by hand since dvc.lock was written."""
        return any(file.modified for file in self.files)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON value that run documents hold."""
        files = [asdict(file) for file in self.files]
        return {"files": files, "stale": list(self.stale), "source": self.source, "modified": self.modified}


def materialise(
    repo: Path, files: Sequence[Path] | None = None, say: Callable[[str], None] | None = None
) -> DataVersion:
    """Make sure that the data files are in the workspace, and return their digests.

    A missing file is checked out of DVC's cache, else pulled from the remote, else made by `dvc repro`, in this order.
    A file whose bytes differ from dvc.lock is used as it is and marked `modified`; only where those bytes are an
    earlier output that DVC's cache holds (dvc.lock was updated, the workspace was not) is it replaced. What the local
    remote lacks is pushed to it.

    Args:
        repo: Root of the repository; one without dvc.yaml is fine, its files are then digested as they are.
        files: Files that the run reads, absolute or relative to the repository; all outputs in dvc.lock by default.
        say: Where progress and warnings go, line by line.

    Raises:
        InputError: A file is missing and no stage makes it.
        TunewrightError: DVC failed, or brought bytes that are not those that dvc.lock names.
    """
    repo = repo.resolve()
    tell = say or (lambda _line: None)
    with _alone(repo):
        locked = locked_outputs(repo)
        if not locked and (repo / "dvc.yaml").is_file():
            tell("no dvc.lock yet: running the data stages")
            run_dvc(repo, "repro")
            locked, source = locked_outputs(repo), "repro"
        else:
            source = _bring(repo, locked if files is None else [relative_path(repo, f) for f in files], tell)
            locked = locked_outputs(repo)
        wanted = sorted({relative_path(repo, f) for f in files}) if files is not None else sorted(locked)
        described = tuple(_describe(repo, path, locked.get(path)) for path in wanted)
        stale = tuple(stale_reasons(repo))
        for file in described:
            if file.modified:
                tell(f"{file.path} differs from dvc.lock: the data on disk are used")
        for line in stale:
            tell(f"{line} since dvc.lock was written: `dvc repro` brings the data up to date")
        pushed = _push(repo, locked)
    return DataVersion(described, stale, source, pushed)


def can_be_brought(repo: Path, file: Path) -> bool:
    """Say whether a file that is missing may still come from a stage of dvc.yaml.

    Args:
        repo: Root of the repository.
        file: The file, absolute or relative to the repository.
    """
    repo = repo.resolve()
    if not (repo / "dvc.yaml").is_file():
        return False
    locked = locked_outputs(repo)
    return not locked or relative_path(repo, file) in locked


@contextmanager
def _alone(repo: Path) -> Iterator[None]:
    """Let one process of this workspace at a time bring data: DVC fails instead of waiting."""
    from filelock import FileLock

    key = hashlib.sha256(str(repo).encode()).hexdigest()[:16]
    folder = home() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"data-{key}.lock"):
        yield


def relative_path(repo: Path, file: Path) -> str:
    """Return how a data document names a file: relative to the repository, absolute where it lies outside."""
    absolute = Path(os.path.normpath(repo / file))
    return absolute.relative_to(repo).as_posix() if absolute.is_relative_to(repo) else str(absolute)


def _bring(repo: Path, files: Iterable[str], say: Callable[[str], None]) -> str:
    """Bring what the stages behind some files make; the data of other recipes stay where they are."""
    cache = repo / ".dvc" / "cache"
    stages = stages_behind(repo, files)
    makes = {path for outputs in stages.values() for path in outputs}

    def locked_here() -> dict[str, str]:
        return {path: md5 for path, md5 in locked_outputs(repo).items() if path in makes}

    locked = locked_here()

    def differing() -> list[str]:
        """Return the outputs that are missing, or that hold an earlier output which DVC still has."""
        found = []
        for path, md5 in locked.items():
            file = repo / path
            present = md5_of(file) if file.is_file() else None
            if present is None or (present != md5 and stored(cache, present).is_file()):
                found.append(path)
        return found

    missing = differing()
    if not missing:
        return "workspace"
    say(f"bringing {len(missing)} data files into the workspace")
    if all(stored(cache, locked[path]).is_file() for path in missing):
        run_dvc(repo, "checkout", *missing)
        source = "cache"
    elif remote_has(repo, [locked[path] for path in missing]) and _pulled(repo, missing, say):
        source = "remote"
    else:
        _reproduce(repo, sorted(stages), locked, say)
        locked, source = locked_here(), "repro"
    still = differing()
    if still:
        raise TunewrightError(
            f"{', '.join(still)} could not be brought into the workspace",
            next_step="run `dvc status` and `dvc repro` by hand",
        )
    return source


def _pulled(repo: Path, paths: Sequence[str], say: Callable[[str], None]) -> bool:
    try:
        run_dvc(repo, "pull", *paths)
    except TunewrightError as error:
        if remote_folder(repo) is not None:  # it was seen to hold the files: something else is wrong
            raise
        say(f"{error.problem}; making the data anew")
        return False
    return True


def _reproduce(repo: Path, stages: Sequence[str], locked: dict[str, str], say: Callable[[str], None]) -> None:
    """Run stages. They would overwrite what was edited by hand, and must make the bytes that dvc.lock names."""
    edited = [path for path, md5 in locked.items() if (repo / path).is_file() and md5_of(repo / path) != md5]
    if edited:
        raise InputError(
            f"data are missing, and making them anew would overwrite {', '.join(edited)}, which differ from dvc.lock",
            next_step="move the edited files elsewhere, run `dvc repro`, then put them back",
        )
    reasons = list(stale_reasons(repo))
    run_dvc(repo, "repro", *stages)
    changed = [path for path, md5 in locked_outputs(repo).items() if locked.get(path, md5) != md5]
    if changed and not reasons:
        raise TunewrightError(
            f"the data stages made other bytes for {', '.join(changed)} than before; dvc.lock was rewritten",
            allowed="data that are reproduced byte for byte",
            next_step="look at `git diff dvc.lock`",
        )
    if changed:
        say(f"dvc.lock was rewritten ({', '.join(reasons)}): {', '.join(changed)}")


def _describe(repo: Path, path: str, md5: str | None) -> DataFile:
    file = repo / path
    if not file.is_file():
        raise InputError(
            f"no data file {path}",
            allowed="a file, or an output of a stage in dvc.yaml",
            next_step="check the path in the recipe",
        )
    rows = None
    if file.suffix == ".jsonl":
        with file.open("rb") as stream:
            rows = sum(1 for line in stream if line.strip())
    return DataFile(path, md5, sha256_file(file), rows, md5 is not None and md5_of(file) != md5)


def _push(repo: Path, locked: dict[str, str]) -> int:
    """Push what a local remote lacks; a remote elsewhere is the user's to push to."""
    folder = remote_folder(repo)
    if folder is None:
        return 0
    cache = repo / ".dvc" / "cache"
    lacking = [path for path, md5 in locked.items() if not stored(folder, md5).is_file()]
    able = [path for path in lacking if stored(cache, locked[path]).is_file()]
    if able:
        run_dvc(repo, "push", *able)
    return len(able)
