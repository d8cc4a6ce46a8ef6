"""Weights that an export made say so themselves: in their safetensors headers and in config.json.

A merged adapter's export is registered nowhere, and its card is soon lost. Without these words its weights could come
back as a base, which is served without an evaluation. Headers travel with the weights, and config.json's word with
what transformers saves again.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from components.files import write_atomic

if TYPE_CHECKING:
    from registry.entities import Version

__all__ = ["MARK", "folder_origin", "mark_folder", "stated_origin"]

MARK = "tunewright_made_from"
CONFIG_FILE = "config.json"
SHOWN_CHARACTERS = 120


def mark_folder(folder: Path, version: Version) -> None:
    """Write into a folder's weights and config which version they were made from; tensors stay where they are.

    Args:
        folder: A folder of whole weights of our own making; its files are replaced one by one.
        version: What was merged.
    """
    origin = f"{version.label} {version.digest}"
    for path in sorted(folder.glob("*.safetensors")):
        _mark_header(path, origin)
    config = folder / CONFIG_FILE
    found = json.loads(config.read_text())
    write_atomic(config, (json.dumps({**found, MARK: origin}, indent=2, ensure_ascii=False) + "\n").encode())


def stated_origin(config: object, metadata: Mapping[str, Mapping[str, str]]) -> str | None:
    """Return what a folder says that its weights were made from, or None where it says nothing.

    Args:
        config: The parsed config.json.
        metadata: File -> what its safetensors header says beside the tensors.
    """
    said: list[Any] = [held[MARK] for _, held in sorted(metadata.items()) if MARK in held]
    if isinstance(config, Mapping) and MARK in config:
        said.append(config[MARK])
    return str(said[0])[:SHOWN_CHARACTERS] if said else None


def folder_origin(folder: Path) -> str | None:
    """Return what a folder that was chosen as a base says that it was made from, or None; reads headers alone."""
    metadata = {}
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as stream:
            metadata[path.name] = _header(stream).get("__metadata__", {})
    return stated_origin(json.loads((folder / CONFIG_FILE).read_text()), metadata)


def _header(stream: IO[bytes]) -> dict[str, Any]:
    """Return a safetensors header and leave the stream behind it."""
    (length,) = struct.unpack("<Q", stream.read(8))
    header: dict[str, Any] = json.loads(stream.read(length))
    return header


def _mark_header(path: Path, origin: str) -> None:
    with path.open("rb") as stream:
        header = _header(stream)
        metadata = {**header.pop("__metadata__", {}), MARK: origin}
        text = json.dumps({"__metadata__": metadata, **header}, separators=(",", ":"), ensure_ascii=False).encode()
        text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight, as safetensors writes them
        marked = path.with_name(f"{path.name}.marked")
        with marked.open("xb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            shutil.copyfileobj(stream, out, 1 << 20)
    os.replace(marked, path)
