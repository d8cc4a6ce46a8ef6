"""What DVC keeps in the repository's own files, and DVC itself as a process. Below data_version.py, which decides.

Reading dvc.lock, the cache and a local remote directly spares the second or two that importing DVC takes.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from configparser import ConfigParser
from pathlib import Path
from typing import Any

from components.errors import InputError, TunewrightError
from components.files import write_json
from components.paths import home

__all__ = [
    "forget_dead_locks",
    "locked_outputs",
    "md5_of",
    "remote_folder",
    "remote_has",
    "run_dvc",
    "stale_reasons",
    "stored",
]


def _lock(repo: Path) -> dict[str, Any]:
    import yaml

    path = repo / "dvc.lock"
    if not path.is_file():
        return {}
    try:
        document = yaml.safe_load(path.read_text()) or {}
        stages: dict[str, Any] = document["stages"]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} can't be read: {error}", next_step="restore it with `git checkout dvc.lock`"
        ) from error
    return stages


def locked_outputs(repo: Path) -> dict[str, str]:
    """Return {path: md5} of every file that a stage makes."""
    return {out["path"]: out["md5"] for stage in _lock(repo).values() for out in stage.get("outs", ())}


def stages_behind(repo: Path, files: Iterable[str]) -> dict[str, list[str]]:
    """Return the stages that make some files, and those that make what these read, each with its outputs.

    Args:
        repo: Root of the repository.
        files: Paths relative to it; those that no stage makes are passed over.
    """
    lock = _lock(repo)
    maker = {out["path"]: name for name, stage in lock.items() for out in stage.get("outs", ())}
    found: dict[str, list[str]] = {}
    looked_at = [maker[path] for path in files if path in maker]
    while looked_at:
        name = looked_at.pop()
        if name in found:
            continue
        found[name] = [out["path"] for out in lock[name].get("outs", ())]
        looked_at += [maker[part["path"]] for part in lock[name].get("deps", ()) if part["path"] in maker]
    return found


def md5_of(path: Path) -> str:
    """Return a file's hex md5, by which DVC names it."""
    with path.open("rb") as stream:
        # DVC's file digest: an address in its cache, not a protection
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def stored(store: Path, md5: str) -> Path:
    """Return where a cache or a local remote keeps the file of a digest."""
    return store / "files" / "md5" / md5[:2] / md5[2:]


def stale_reasons(repo: Path) -> Iterator[str]:
    """Name the code and parameters that changed since the stages ran; data files are judged by their digests."""
    import yaml

    stages = _lock(repo)
    outputs = locked_outputs(repo)
    changed: dict[str, None] = {}
    for stage in stages.values():
        for dependency in stage.get("deps", ()):
            path = dependency["path"]
            file = repo / path
            if path not in outputs and (not file.is_file() or md5_of(file) != dependency.get("md5")):
                changed[f"{path} changed"] = None
        for path, values in stage.get("params", {}).items():
            present = yaml.safe_load((repo / path).read_text()) if (repo / path).is_file() else {}
            changed.update({f"`{key}` in {path} changed": None for key in values if present.get(key) != values[key]})
    yield from changed


def _config(repo: Path) -> ConfigParser:
    config = ConfigParser(strict=False)
    config.read([repo / ".dvc" / "config", repo / ".dvc" / "config.local"])
    return config


def remote_folder(repo: Path) -> Path | None:
    """Return the default remote's folder if it is a local one."""
    config = _config(repo)
    name = config.get("core", "remote", fallback="")
    for section in config.sections():
        if section.strip("'") == f'remote "{name}"':
            url = config.get(section, "url", fallback="")
            return None if not url or "://" in url else (repo / ".dvc" / url).resolve()
    return None


def remote_has(repo: Path, digests: Sequence[str]) -> bool:
    """Say whether the remote holds these files; of one that is no local folder only a pull can tell."""
    folder = remote_folder(repo)
    if folder is not None:
        return all(stored(folder, md5).is_file() for md5 in digests)
    return bool(_config(repo).get("core", "remote", fallback=""))


def forget_dead_locks(repo: Path) -> None:
    """Drop the file locks of DVC processes that were killed.

    DVC drops those of processes that are gone, but takes a killed process that nobody has collected yet (a zombie, the
    rule in containers without an init) for a living one, and refuses for ever.
    """
    import psutil

    path = repo / ".dvc" / "tmp" / "rwlock"
    try:
        held = json.loads(path.read_text() or "{}")
    except (FileNotFoundError, ValueError):
        return  # no locks, or half a file, which DVC itself starts anew

    def lives(holder: dict[str, Any]) -> bool:
        try:
            return bool(psutil.Process(int(holder["pid"])).status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    kept: dict[str, Any] = {}
    for file, locks in held.items():
        writer = {"write": locks["write"]} if locks.get("write") and lives(locks["write"]) else {}
        readers = [holder for holder in locks.get("read") or [] if lives(holder)]
        if writer or readers:
            kept[file] = {**writer, **({"read": readers} if readers else {})}
    if kept != held:
        write_json(path, kept)


def run_dvc(repo: Path, *arguments: str) -> None:
    """Run DVC with settings of its own, so that neither a user's nor a system's configuration changes what happens."""
    forget_dead_locks(repo)
    private = home() / "dvc"
    environment = {
        **os.environ,
        "DVC_NO_ANALYTICS": "1",
        "DVC_SYSTEM_CONFIG_DIR": str(private / "system"),
        "DVC_GLOBAL_CONFIG_DIR": str(private / "global"),
        "DVC_SITE_CACHE_DIR": str(private / "site"),
        # stages call `python -m ...`: this interpreter, whatever the shell's PATH says
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
    }
    command = [sys.executable, "-P", "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=repo, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise TunewrightError(
            f"`dvc {' '.join(arguments)}` failed: {' / '.join(said[-4:]) or f'exit status {done.returncode}'}",
            next_step=f"run `dvc {arguments[0]}` in {repo} to see all of it",
        )
