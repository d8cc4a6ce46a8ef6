"""A registered version goes out to a folder, in the form that another tool takes: layout, merge and converter."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import InputError, TunewrightError
from components.files import existing_part
from components.models.adapters import MERGED_TYPES
from flows.origin_mark import mark_folder

if TYPE_CHECKING:
    from registry.entities import Version
    from registry.export import Layout
    from registry.store import Registry

__all__ = ["FORMATS", "export_version"]

FORMATS = ("hf", "peft", "vllm", "oci", "gguf")
# llama.cpp's own converter. Its mapping of architectures is not ours to own, and it is in no package.
CONVERTER = "convert_hf_to_gguf.py"
CONVERTER_SECONDS = 3600
# It reads what others made; passwords are no business of it.
SECRETS = ("TUNEWRIGHT_", "PGPASSWORD", "PGPASSFILE")


def export_version(
    registry: Registry, ref: str, destination: Path, form: str, *, base_name: str | None = None
) -> dict[str, Any]:
    """Write a version to a folder that isn't there yet, or is empty.

    Args:
        registry: An open registry.
        ref: The version.
        destination: The folder.
        form: One of `FORMATS`.
        base_name: For peft, what its config names as base; by default the hub's id where the base came from there,
            else the base's registered name.

    Returns:
        `version`, `digest`, `format`, `path`, `files`, `bytes`, `merged`, `command`, `notes`.

    Raises:
        InputError: An unknown form, or no converter for GGUF.
        Registry errors: ExportRefused for a version that has no such form; BlobCorrupted for a damaged file, after
            which nothing is there; RegistryPathError for a destination in use; unknown or ambiguous REF.
    """
    from registry.export import check_destination, write_folder

    if form not in FORMATS:
        raise InputError(f"unknown format {form!r}", allowed=", ".join(FORMATS))
    version = registry.resolve(ref)
    registry.require_usable(version, "exported")
    check_destination(destination)
    with _beside(destination) as temporary:
        layout, merged = _layout(registry, version, form, base_name, Path(temporary))
        size = write_folder(registry.blobs, layout.files, destination)
    return {
        "version": version.label,
        "digest": version.digest,
        "format": form,
        "path": str(destination.absolute()),
        "files": len(layout.files),
        "bytes": size,
        "merged": merged,
        "command": layout.command,
        "notes": list(layout.notes),
    }


@contextlib.contextmanager
def _beside(destination: Path) -> Iterator[str]:
    """Make a folder for merged and converted weights where they go: the system's own may be small, or in memory."""
    from registry.errors import RegistryPathError

    place = existing_part(destination.absolute().parent)
    try:
        made = tempfile.TemporaryDirectory(dir=place, prefix=f".{destination.name}.")
    except OSError as error:
        raise RegistryPathError(
            f"{destination} can't be written: {error.strerror}: {place}",
            allowed="a new or empty folder where this user may write",
            next_step="choose another folder",
        ) from error
    with made as temporary:
        yield temporary


def _layout(
    registry: Registry, version: Version, form: str, base_name: str | None, temporary: Path
) -> tuple[Layout, bool]:
    """Return the layout, and whether an adapter was merged for it."""
    from registry.card import card_of, hub_id, made_from
    from registry.export import hf_layout, peft_layout, unmerged_problem, vllm_adapter_layout, vllm_whole_layout
    from registry.oci import oci_layout

    card, base = card_of(registry, version), made_from(registry, version)
    if form == "oci":
        return oci_layout(version, card), False
    if form == "peft":
        named = base_name or hub_id(base) or (base.name if base else version.name)
        return peft_layout(registry.blobs, version, named, card), False
    if form == "gguf":
        converter = _converter(version)
        layout, merged = _layout(registry, version, "hf", None, temporary)
        return _gguf(registry, version, layout, converter, temporary), merged
    if version.kind != "adapter" or base is None:
        return (vllm_whole_layout if form == "vllm" else hf_layout)(version, card), False
    problem = "hf is a form for whole weights" if form == "hf" else unmerged_problem(registry.blobs, version, base)
    if problem is None:
        return vllm_adapter_layout(registry.blobs, version, base, card), False
    _check_merges(version, base, problem)
    return _merged(registry, version, base, form, card, temporary / "merged"), True


def _check_merges(version: Version, base: Version, problem: str) -> None:
    """Refuse an adapter whose merged weights would not be what was measured.

    Raises:
        ExportRefused: It doesn't merge, or it was measured on a base in 4 bits.
    """
    from registry.errors import ExportRefused

    kind = (version.manifest.peft_config or {}).get("peft_type")
    at_loading = (version.manifest.quantization or {}).get("method")
    if kind not in MERGED_TYPES:
        raise ExportRefused(
            f"{version.label}: {problem}, and an adapter of type {kind} can't be merged into weights",
            allowed=f"adapters of the types {', '.join(MERGED_TYPES)}, or --format peft or oci",
            next_step=f"tunewright registry export {version.label} DEST --format peft",
        )
    if at_loading or base.kind == "quantized":
        raise ExportRefused(
            f"{version.label}: {problem}, and it was measured on a base in {at_loading or 'integers'}: merged into "
            "plain weights it is another model, which nothing was measured of",
            allowed="--format peft, or a version that was measured merged",
            next_step=f"tunewright registry export {version.label} DEST --format peft",
        )


def _merged(registry: Registry, version: Version, base: Version, form: str, card: str, folder: Path) -> Layout:
    """Merge an adapter for an export, checked by its logits, as its own endpoint merges it."""
    import shlex

    from flows.version_base import merge
    from registry.export import CARD_FILE, Layout

    # beside the result, and not for the next time, where the registry's own folder takes none
    own = registry.is_writable
    laid_out = [registry.checkout(one.digest, None if own else folder.parent / one.digest) for one in (base, version)]
    merge(laid_out[0], laid_out[1], folder)
    mark_folder(folder, version)
    note = f"merged for this export from {version.label} and its base {base.label}; its logits were held against both"
    command = (
        'AutoModelForCausalLM.from_pretrained(".")'
        if form == "hf"
        else f"vllm serve . --served-model-name {shlex.quote(version.name)}"
    )
    text = f"{card}\n## Merged\n\nThese files are the adapter {note}.\n\n```\n{command}\n```\n"
    files = {path.name: path for path in sorted(folder.iterdir())}
    return Layout({CARD_FILE: text, **files}, command, (note,))


def _converter(version: Version) -> str:
    found = shutil.which(CONVERTER)
    if found is None:
        raise InputError(
            f"GGUF needs {CONVERTER} of llama.cpp, which is not on the PATH",
            allowed="a checkout of llama.cpp whose folder is on the PATH, with what its requirements name installed",
            next_step=f"tunewright registry export {version.label} FOLDER --format hf, then "
            f"python {CONVERTER} FOLDER --outfile {version.name.rpartition('/')[2]}.gguf",
        )
    return found


def _begins_as_gguf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as stream:
        return stream.read(4) == b"GGUF"


def _gguf(registry: Registry, version: Version, layout: Layout, converter: str, temporary: Path) -> Layout:
    """Let llama.cpp's converter turn the hf layout into one file."""
    from registry.export import CARD_FILE, card_path, write_folder

    source, name = temporary / "hf", f"{version.name.rpartition('/')[2]}-v{version.version}.gguf"
    write_folder(registry.blobs, layout.files, source)
    target = temporary / name
    try:
        done = subprocess.run(
            [sys.executable, converter, str(source), "--outfile", str(target)],
            env={name: value for name, value in os.environ.items() if not name.startswith(SECRETS)},
            capture_output=True,
            text=True,
            timeout=CONVERTER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TunewrightError(f"{converter} took more than {CONVERTER_SECONDS} s") from error
    if done.returncode != 0 or not _begins_as_gguf(target):
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise TunewrightError(
            f"{converter} made no GGUF file (status {done.returncode}):\n{end}",
            next_step=f"tunewright registry export {version.label} FOLDER --format hf, and convert that by hand",
        )
    card = next(layout.files[path] for path in (card_path(version), CARD_FILE) if path in layout.files)
    return replace(layout, files={name: target, CARD_FILE: card}, command=f"llama-server --model {name}")
