"""Versions laid out for other tools: verified bytes only, in a folder that is there whole or not at all.

hf     whole weights as transformers loads them
peft   an adapter as peft loads it, with the name of its base
vllm   base and adapter side by side, or whole weights, with the command that serves them
oci    an OCI image layout (oci.py)

A layout is a plan, path -> what goes there; `write_folder` carries it out. Files are copies, never links to blobs:
what is exported is somebody else's to change.
"""

from __future__ import annotations

import itertools
import json
import os
import shlex
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry.blobs import BlobStore
from registry.entities import Version
from registry.errors import ExportRefused, RegistryPathError
from registry.manifest import WHOLE_KINDS, FileEntry
from registry.whole_file import flush_folder

__all__ = [
    "CARD_FILE",
    "Layout",
    "Source",
    "check_destination",
    "hf_layout",
    "peft_layout",
    "unmerged_problem",
    "vllm_adapter_layout",
    "vllm_whole_layout",
    "write_folder",
]

CARD_FILE = "README.md"
ADAPTER_CONFIG = "adapter_config.json"
# What a file of an export is: a stored blob, a text that is written, or a file that was made for the export.
Source = FileEntry | str | Path
# Kinds of adapters that peft itself reads.
PEFT_TYPES = ("LORA", "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
# The ranks that vLLM makes room for.
VLLM_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


@dataclass(frozen=True)
class Layout:
    """A plan of a folder.

    Attributes:
        files: Path inside the folder -> what goes there.
        command: What loads or serves it, for people; relative paths are from inside the folder.
        notes: What whoever uses it has to know.
    """

    files: Mapping[str, Source]
    command: str
    notes: tuple[str, ...] = ()


def check_destination(destination: Path) -> Path:
    """Return the absolute path of a folder that is to be made, if nothing would be overwritten.

    Raises:
        RegistryPathError: A link, a file, or a folder with something in it.
    """
    absolute = destination.absolute()
    if absolute.is_symlink() or (absolute.exists() and not absolute.is_dir()):
        raise RegistryPathError(f"{destination} is not a folder", allowed="a new or an empty folder")
    if absolute.is_dir() and any(absolute.iterdir()):
        raise RegistryPathError(
            f"{destination} is not empty",
            allowed="a new or an empty folder",
            next_step="choose another folder; nothing is overwritten",
        )
    return absolute


def write_folder(blobs: BlobStore, files: Mapping[str, Source], destination: Path) -> int:
    """Write a layout aside, every blob verified on the way, then rename it into place.

    Args:
        blobs: Where the contents are.
        files: Path inside the folder -> what goes there.
        destination: As `check_destination` takes it.

    Returns:
        How many bytes were written.

    Raises:
        BlobCorrupted: A blob is gone or damaged; nothing is left behind.
        RegistryPathError: The destination is in use or can't be written.
    """
    destination = check_destination(destination)
    incoming = destination.with_name(f".{destination.name}.{uuid.uuid4().hex}")
    try:
        incoming.mkdir(parents=True)
        total = 0
        for path, source in files.items():
            target = incoming / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as stream:
                if isinstance(source, FileEntry):
                    blobs.read(source.sha256, stream.write)
                elif isinstance(source, Path):
                    with source.open("rb") as made:
                        shutil.copyfileobj(made, stream, 1 << 20)
                else:
                    stream.write(source.encode())
                stream.flush()
                os.fsync(stream.fileno())
                total += stream.tell()
        for folder in {incoming, *((incoming / path).parent for path in files)}:
            flush_folder(folder)
        # an empty folder gives way; one that has been filled meanwhile does not
        os.replace(incoming, destination)
        try:
            flush_folder(destination.parent)
        except OSError:
            os.replace(destination, incoming)  # what was refused isn't there
            raise
    except OSError as error:
        raise RegistryPathError(
            f"{destination} can't be written: {error.strerror or error}",
            allowed="a new or empty folder with room, where this user may write",
            next_step="choose another folder, or free space",
        ) from error
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
    return total


def card_path(version: Version) -> str:
    """Return where an export has the model card: a version's own files keep their places."""
    others = (f"tunewright-card-{number}.md" for number in itertools.count(2))
    names = itertools.chain((CARD_FILE, "tunewright-card.md"), others)
    return next(name for name in names if name not in version.manifest.files)


def hf_layout(version: Version, card: str) -> Layout:
    """Return the layout of whole weights as transformers loads them.

    Args:
        version: Of a kind with whole weights.
        card: Its model card.

    Raises:
        ExportRefused: Another kind, or weights as integers.
    """
    if version.kind == "quantized":
        raise ExportRefused(
            f"{version.label} holds integers in files of Tunewright's own, which neither transformers nor vLLM loads",
            allowed="weights in floating point, or --format oci, which carries any version",
            next_step=f"export the version that it was made from (tunewright registry lineage {version.label}), and "
            "quantize it with the tool that is to serve it",
        )
    if version.kind not in WHOLE_KINDS:
        raise ExportRefused(
            f"{version.label} is of kind {version.kind!r}, which has no whole weights",
            allowed="whole weights; peft for adapters; oci for any version",
            next_step=f"tunewright registry export {version.label} DEST --format "
            + ("peft" if version.kind == "adapter" else "oci"),
        )
    return Layout(
        {card_path(version): card, **version.manifest.files},
        'AutoModelForCausalLM.from_pretrained(".")',
        _scaling_note(version),
    )


def peft_layout(blobs: BlobStore, version: Version, base_name: str, card: str) -> Layout:
    """Return the layout of an adapter as peft loads it.

    Args:
        blobs: Where its config is read from.
        version: Of kind adapter.
        base_name: What peft takes for its base when none is given: an id of the hub, or a path.
        card: Its model card.

    Raises:
        ExportRefused: Another kind, or an adapter that peft doesn't know.
        BlobCorrupted: Its config is gone or damaged.
    """
    kind = (version.manifest.peft_config or {}).get("peft_type")
    if version.kind != "adapter" or kind not in PEFT_TYPES:
        what = f"an adapter of type {kind}" if version.kind == "adapter" else f"of kind {version.kind!r}"
        raise ExportRefused(
            f"{version.label} is {what}, which peft doesn't load",
            allowed=f"adapters of the types {', '.join(PEFT_TYPES)}",
            next_step=f"tunewright registry export {version.label} DEST --format "
            + ("hf" if version.kind in WHOLE_KINDS and version.kind != "quantized" else "oci"),
        )
    config = {**_json(blobs, version, ADAPTER_CONFIG), "base_model_name_or_path": base_name}
    files: dict[str, Source] = {**version.manifest.files, ADAPTER_CONFIG: _text(config), card_path(version): card}
    notes = [f"the base is version fingerprint {version.base_fingerprint}; peft doesn't check that it is this one"]
    if (version.manifest.quantization or {}).get("method") == "nf4":
        notes.append("it was trained and measured on its base in 4 bits (NF4, double quantization): load the base so")
    command = f'PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained({json.dumps(base_name)}), ".")'
    return Layout(files, command, (*notes, *_scaling_note(version)))


def vllm_whole_layout(version: Version, card: str) -> Layout:
    """Return the layout of whole weights for vLLM.

    Raises:
        ExportRefused: As `hf_layout`.
    """
    layout = hf_layout(version, card)
    command = f"vllm serve . --served-model-name {shlex.quote(version.name)}"
    return Layout({**layout.files, card_path(version): _with_command(card, command)}, command)


def vllm_adapter_layout(blobs: BlobStore, version: Version, base: Version, card: str) -> Layout:
    """Return the layout of an adapter and its base for vLLM.

    Args:
        blobs: Where the adapter's config is read from.
        version: An adapter for which `unmerged_problem` returned None.
        base: Its base.
        card: The adapter's model card.
    """
    config = {**_json(blobs, version, ADAPTER_CONFIG), "base_model_name_or_path": "base"}
    rank = next(rank for rank in VLLM_RANKS if rank >= int(config["r"]))
    command = (
        f"vllm serve base --served-model-name {shlex.quote(base.name)} --enable-lora --max-lora-rank {rank} "
        f"--lora-modules {shlex.quote(f'{version.name}=adapter')}"
    )
    files: dict[str, Source] = {CARD_FILE: _with_command(card, command)}
    files |= {f"base/{path}": entry for path, entry in base.manifest.files.items()}
    files |= {f"adapter/{path}": entry for path, entry in version.manifest.files.items()}
    files[f"adapter/{ADAPTER_CONFIG}"] = _text(config)
    notes: tuple[str, ...] = ()
    if (version.manifest.quantization or {}).get("method") == "nf4":
        notes = ("it was measured on its base in 4 bits (NF4); vLLM computes with the base's weights as they lie here",)
    return Layout(files, command, notes)


def unmerged_problem(blobs: BlobStore, version: Version, base: Version) -> str | None:
    """Say why vLLM can't serve an adapter beside its base, or return None where it can.

    By what vLLM's own reader of adapters refuses or leaves unread (vllm/lora/peft_helper.py).
    """
    config = _json(blobs, version, ADAPTER_CONFIG)
    kind, rank = config.get("peft_type"), config.get("r")
    if kind != "LORA":
        return f"vLLM loads LoRA alone, and this is {kind}"
    if config.get("use_dora"):
        return "vLLM has no DoRA"
    if config.get("bias", "none") != "none" or config.get("lora_bias"):
        return "vLLM has no adapters with a bias"
    if config.get("modules_to_save"):
        return "vLLM has no adapters with whole modules (modules_to_save)"
    if config.get("rank_pattern") or config.get("alpha_pattern"):
        return "vLLM scales all layers of an adapter alike, and this one's ranks differ"
    if type(rank) is not int or not 1 <= rank <= VLLM_RANKS[-1]:
        return f"vLLM has room for ranks up to {VLLM_RANKS[-1]}, and this one's is {rank}"
    if version.manifest.metadata.get("rope_scaling"):
        return "it was trained under a RoPE scaling that vLLM would not give its base"
    if base.kind == "quantized":
        return "its base is in integers"
    return None


def _scaling_note(version: Version) -> tuple[str, ...]:
    scaling = version.manifest.metadata.get("rope_scaling")
    if not isinstance(scaling, Mapping) or version.kind != "adapter":
        return ()
    told = f"{scaling.get('type')}:{scaling.get('factor')}"
    return (f"it was trained under RoPE scaling {told}: set it in the base's config, or answers to long texts differ",)


def _with_command(card: str, command: str) -> str:
    return f"{card}\n## Serving\n\nFrom inside this folder:\n\n```\n{command}\n```\n"


def _json(blobs: BlobStore, version: Version, path: str) -> dict[str, Any]:
    if path not in version.manifest.files:
        raise ExportRefused(
            f"{version.label} has no {path}",
            allowed="an adapter in peft's form; --format oci carries any version",
            next_step=f"tunewright registry export {version.label} DEST --format oci",
        )
    content = bytearray()
    blobs.read(version.manifest.files[path].sha256, content.extend)
    found: dict[str, Any] = json.loads(content)
    return found


def _text(config: Mapping[str, Any]) -> str:
    """Return an adapter's config as it is registered: so that an import of it is the same file again."""
    return json.dumps(config, indent=2, sort_keys=True) + "\n"
