"""From registry checkouts to a folder that can be served: checked, linked, probed once, renamed into place."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import ConflictError, InputError
from components.files import digest_of, sha256_file, write_json
from components.models.fingerprint import Fingerprint, fingerprint
from components.models.rope import RopeScaling
from components.models.safety import check_chat_template, check_folder
from deploy.canary import PROBES, QUANTIZED_TIE_MARGIN, TIE_MARGIN, Canary, record_canary
from deploy.engines.threads import one_thread, wait_politely
from deploy.model import ADAPTER, BASE, DESCRIPTION_FILE, DTYPE, FORMAT, ServedModel, check_base
from deploy.signature import keep_signatures

if TYPE_CHECKING:
    from deploy.from_registry import VersionFiles

__all__ = ["link_tree", "stage_model"]


def stage_model(files: VersionFiles, *, out_home: Path) -> ServedModel:
    """Lay a version out for serving, or return the folder that is there for it and this way of staging.

    Args:
        files: The version.
        out_home: Folder for everything that is served or bundled.

    Returns:
        The staged model in `out_home/models/<digest>-<how it is staged>`.

    Raises:
        ConflictError: The base is not the version's, or a file is not what the manifest lists.
        InputError: A folder is unsafe, or the manifest lacks a fingerprint.
        CanaryFailedError: The model's logits are not finite.
    """
    from filelock import FileLock

    folder = out_home.absolute() / "models" / f"{files.digest}-{_staging_digest()[:8]}"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(str(folder.parent / f".{folder.name}.lock")):
            if folder.is_dir():
                keep_signatures(folder, files.signatures)
                return ServedModel.read(folder)
            wait_politely()
            expected = _expected(files.manifest)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{files.digest[:12]}-") as temporary:
                partial = Path(temporary) / "model"
                _collect(partial, files.base_folder, files.adapter_folder)
                model = ServedModel(
                    folder=partial,
                    name=files.name,
                    version=files.version,
                    digest=files.digest,
                    fingerprint=expected,
                    files=_digests(partial),
                    dtype=DTYPE,
                    quantization=files.quantization,
                    canary=Canary((), (), (), 0, ""),
                    created=int(time.time()),
                    max_new_tokens=files.max_new_tokens,
                )
                _check(model, files.manifest)
                with one_thread():
                    weights, tokenizer = model.load()
                    probe = record_canary(weights, tokenizer, dtype=model.dtype, quantization=model.quantization)
                model = replace(model, canary=probe)
                write_json(partial / DESCRIPTION_FILE, model.to_dict())
                keep_signatures(partial, files.signatures)
                os.replace(partial, folder)
            return replace(model, folder=folder)
    except OSError as error:
        raise InputError(
            f"cannot write {folder}: {error.strerror}",
            allowed="a folder that this user may write, with room for the model where it can't be linked",
            next_step="choose another state folder with --home",
        ) from error


def _staging_digest() -> str:
    """Return the digest of what a description says beyond its version: a release that changes it stages anew."""
    probes = [[(turn.role, turn.content) for turn in messages] for messages in PROBES]
    margins = {**TIE_MARGIN, "quantized": QUANTIZED_TIE_MARGIN}
    return digest_of({"format": FORMAT, "dtype": DTYPE, "probes": probes, "margins": margins})


def link_tree(source: Path, target: Path) -> None:
    """Lay a folder's files out a second time as hard links, or as copies across file systems."""
    for path in sorted(source.rglob("*")):
        if not path.is_file():
            continue
        destination = target / path.relative_to(source)
        destination.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(path, destination)
        except OSError:  # another file system, or one without links
            shutil.copyfile(path, destination)


def _expected(manifest: Mapping[str, Any]) -> Fingerprint:
    values = [manifest.get(key) for key in ("base_fingerprint", "tokenizer_digest", "template_digest")]
    if not all(isinstance(value, str) and value for value in values):
        raise InputError(
            "the version's manifest doesn't say which base, tokenizer and chat template it belongs to",
            allowed="base_fingerprint, tokenizer_digest and template_digest, each a sha256",
            next_step="register the version again with its fingerprints",
        )
    return Fingerprint(*map(str, values))


def _collect(partial: Path, base_folder: Path, adapter_folder: Path | None) -> None:
    check_folder(base_folder)
    check_chat_template(base_folder)
    link_tree(base_folder, partial / BASE)
    if adapter_folder is not None:
        check_folder(adapter_folder)
        link_tree(adapter_folder, partial / ADAPTER)


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}


def _check(model: ServedModel, manifest: Mapping[str, Any]) -> None:
    """Hold the files against the manifest of the version that they are said to be."""
    within = ADAPTER if model.adapter else BASE
    for name, entry in manifest.get("files", {}).items():
        if model.files.get(f"{within}/{name}") != entry["sha256"]:
            raise ConflictError(
                f"{model.label}: file {name} is not what the registry lists",
                allowed="the files of a verified checkout",
                next_step=f"tunewright registry verify {model.label}",
            )
    check_base(model.label, fingerprint(model.folder / BASE), model.fingerprint, model.adapter)
    # an adapter on a base that is scaled itself records none of its own
    trained = RopeScaling.from_record(manifest.get("metadata", {}).get("rope_scaling"))
    if trained is not None and (found := model.rope_scaling) != trained:
        raise ConflictError(
            f"{model.label} was trained under RoPE scaling {trained}, and its files say {found}",
            allowed="the scaling that its manifest names, in the adapter's binding or the weights' config",
            next_step="register the version again with the files of its training",
        )
