"""Checkpoints that are whole or not there: written aside, digested, flushed, renamed. Used by the trainer.

`transformers.Trainer` writes its checkpoints in place and takes an incomplete one for the last. Here a checkpoint is a
folder `checkpoint-<step>` whose manifest.json lists the sha256 of each of its files; a folder without a fitting
manifest doesn't count. Only safetensors and JSON, no pickle.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import ConflictError
from components.files import place_folder, sha256_file
from components.finetuning.tensor_file import write_tensors

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Checkpoint", "damage", "find", "latest", "load_tensors", "save", "sweep"]

PREFIX = "checkpoint-"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        folder: Where its files are.
        step: Optimizer steps done.
        identity: Digests of what the run is made of; a resumed run must have the same.
    """

    folder: Path
    step: int
    identity: Mapping[str, str]


def save(
    run_folder: Path,
    step: int,
    *,
    tensors: Mapping[str, Mapping[str, Tensor]],
    documents: Mapping[str, Any],
    identity: Mapping[str, str],
    keep: int,
    best: int | None = None,
    whole: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> Checkpoint:
    """Write a checkpoint, then drop damaged ones and the oldest of the whole ones.

    Args:
        run_folder: Holds the run's checkpoints.
        step: Optimizer steps done.
        tensors: File stem -> named tensors, each written as `<stem>.safetensors`.
        documents: File stem -> JSON value, each written as `<stem>.json`.
        identity: Digests of data, base and settings.
        keep: Whole checkpoints that stay, this one among them, at least 2.
        best: Step of one more that stays, however old it is.
        whole: Gathers a tensor that lies in parts in several processes.

    Returns:
        The checkpoint.
    """
    run_folder.mkdir(parents=True, exist_ok=True)
    final = run_folder / f"{PREFIX}{step}"
    aside = run_folder / f".{PREFIX}{step}.{os.getpid()}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    for stem, named in tensors.items():
        write_tensors(aside / f"{stem}.safetensors", named, whole)
    for stem, value in documents.items():
        (aside / f"{stem}.json").write_text(json.dumps(value, sort_keys=True))
    files = {path.name: sha256_file(path) for path in sorted(aside.iterdir())}
    manifest = {"step": step, "identity": dict(identity), "files": files}
    (aside / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True))
    place_folder(aside, final)
    _prune(run_folder, step, keep, best)
    return Checkpoint(final, step, dict(identity))


def latest(run_folder: Path, identity: Mapping[str, str], warn: Any) -> Checkpoint | None:
    """Find the newest whole checkpoint of this very run.

    Args:
        run_folder: Holds the run's checkpoints; may be absent.
        identity: Digests of data, base and settings of the run that wants to go on.
        warn: Called with a text for each damaged checkpoint that is passed over.

    Returns:
        The checkpoint, or None when there is none.

    Raises:
        ConflictError: The newest whole checkpoint belongs to other data, another base or other settings.
    """
    for step in reversed(_steps(run_folder)):
        folder = run_folder / f"{PREFIX}{step}"
        problem = damage(run_folder, step)
        if problem:
            warn(f"checkpoint of step {step} is damaged ({problem}); falling back to an older one")
            continue
        found = json.loads((folder / "manifest.json").read_text())["identity"]
        different = [key for key in sorted({*found, *identity}) if found.get(key) != identity.get(key)]
        if different:
            shown = "; ".join(f"{key}: {found.get(key)} there, {identity.get(key)} here" for key in different)
            raise ConflictError(
                f"{folder} was written by another run ({shown})",
                allowed="the same data, base and settings",
                next_step=f"move {run_folder} away to start afresh",
            )
        return Checkpoint(folder, step, found)
    return None


def find(run_folder: Path, step: int) -> Checkpoint | None:
    """Return the whole checkpoint of a step, or None where there is none.

    Args:
        run_folder: Holds the checkpoints of one run.
        step: Optimizer steps done.
    """
    if damage(run_folder, step):
        return None
    folder = run_folder / f"{PREFIX}{step}"
    return Checkpoint(folder, step, json.loads((folder / "manifest.json").read_text())["identity"])


def damage(run_folder: Path, step: int) -> str | None:
    """Say why a step's checkpoint doesn't count, or None where it is whole.

    Args:
        run_folder: Holds the run's checkpoints.
        step: Optimizer steps done.
    """
    folder = run_folder / f"{PREFIX}{step}"
    if not folder.is_dir():
        return "it is not there"
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        for name, expected in manifest["files"].items():
            if sha256_file(folder / name) != expected:
                return f"{name} does not have its digest"
    except (OSError, ValueError, KeyError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def sweep(run_folder: Path) -> None:
    """Remove what killed processes left half-written. Call it under the run's lock."""
    for pattern in (f".{PREFIX}*", ".adapter.*", ".full.*", ".quantized.*", "untrained"):
        for aside in run_folder.glob(pattern):
            shutil.rmtree(aside, ignore_errors=True)


def load_tensors(checkpoint: Checkpoint, stem: str) -> dict[str, Tensor]:
    """Read the named tensors of one of a checkpoint's files."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = load_file(checkpoint.folder / f"{stem}.safetensors")
    return tensors


def _steps(run_folder: Path) -> list[int]:
    if not run_folder.is_dir():
        return []
    names = [path.name.removeprefix(PREFIX) for path in run_folder.glob(f"{PREFIX}*")]
    return sorted(int(name) for name in names if name.isdigit())


def _prune(run_folder: Path, written: int, keep: int, best: int | None) -> None:
    """Keep the one just written, the best and the newest others that are whole: a damaged one is no way back."""
    others = {step: run_folder / f"{PREFIX}{step}" for step in _steps(run_folder) if step != written}
    whole = [step for step in others if damage(run_folder, step) is None]
    newest = set(whole[len(whole) - (keep - 1) :])
    for step in others.keys() - newest - ({best} & set(whole)):
        shutil.rmtree(others[step])
