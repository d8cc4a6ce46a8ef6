"""What a server loads: one folder with base, adapter and a description of every byte, checked before it is used.

    <folder>/tunewright-bundle.json   name, version, digest, fingerprints, canary, sha256 of each file
    <folder>/base/                    config, safetensors, tokenizer, template
    <folder>/adapter/                 an adapter or a head, where the version is one
    <folder>/tunewright-signatures.json   who signed it, where somebody did (signature.py)

Staged from verified registry checkouts; read by the plain server and by the bundle alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.errors import ConflictError, InputError
from components.files import sha256_file
from components.models.fingerprint import (
    BINDING_FILE,
    Fingerprint,
    file_digest,
    fingerprint,
    read_binding,
    read_rope_scaling,
)
from components.models.head import CONFIG_FILE
from components.models.rope import RopeScaling, read_scaling
from deploy.canary import Canary
from deploy.signature import SIGNATURES_FILE, asked_keys, check_asked_keys, check_signature

__all__ = ["ADAPTER", "BASE", "DESCRIPTION_FILE", "DTYPE", "FORMAT", "ServedModel", "check_base"]

DESCRIPTION_FILE = "tunewright-bundle.json"
BASE, ADAPTER = "base", "adapter"
FORMAT = 1
# What versions are measured in, and served in.
DTYPE = "float32"


@dataclass(frozen=True)
class ServedModel:
    """A folder that can be served.

    Attributes:
        folder: Where it lies.
        name: The model's name in the registry.
        version: Its version number.
        digest: The version's digest; servers send it with each answer.
        fingerprint: Digests of the base, its tokenizer and its template.
        files: Path inside the folder -> sha256.
        dtype: What the weights are loaded as.
        quantization: None or "nf4", as the adapter was trained and measured.
        canary: The recorded probe.
        created: Unix time of the staging.
        max_new_tokens: Longest answer in the version's evaluation; None where its manifest doesn't say.
    """

    folder: Path
    name: str
    version: int
    digest: str
    fingerprint: Fingerprint
    files: Mapping[str, str]
    dtype: str
    quantization: str | None
    canary: Canary
    created: int
    max_new_tokens: int | None = None

    @property
    def label(self) -> str:
        """The version as people write it."""
        return f"{self.name}:v{self.version}"

    @property
    def adapter(self) -> Path | None:
        """The adapter's or head's folder, or None when the base's folder is the whole model."""
        return self.folder / ADAPTER if any(name.startswith(f"{ADAPTER}/") for name in self.files) else None

    @property
    def rope_scaling(self) -> RopeScaling | None:
        """How positions are scaled when the folder is loaded, by the adapter's binding or the whole model's config."""
        if self.adapter is not None:
            return read_rope_scaling(self.adapter)
        from transformers import AutoConfig

        config = AutoConfig.from_pretrained(str(self.folder / BASE), local_files_only=True, trust_remote_code=False)
        return read_scaling(config)

    @property
    def has_head(self) -> bool:
        """Whether what stands beside the base is a head, which answers labels or numbers."""
        return f"{ADAPTER}/{CONFIG_FILE}" in self.files

    @classmethod
    def read(cls, folder: Path) -> ServedModel:
        """Read a folder's description; its files are not looked at.

        Raises:
            InputError: There is none, or it can't be understood.
        """
        path = folder / DESCRIPTION_FILE
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document.pop("format") != FORMAT:
                raise ValueError(f"format is not {FORMAT}")
            prints, canary = Fingerprint(**document.pop("fingerprint")), Canary.from_dict(document.pop("canary"))
            return cls(folder=folder, fingerprint=prints, canary=canary, **document)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{folder} can't be served: {path.name} is missing or can't be read ({error})",
                allowed="a folder that `tunewright bundle` or `tunewright serve` made",
                next_step="bundle the version again",
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the description that `read` reads."""
        document = {name: getattr(self, name) for name in ("name", "version", "digest", "dtype", "quantization")}
        document |= {"created": self.created, "fingerprint": asdict(self.fingerprint)}
        document |= {"max_new_tokens": self.max_new_tokens}
        return {"format": FORMAT, **document, "canary": self.canary.to_dict(), "files": dict(self.files)}

    def verify(self, public_key: Path | None = None) -> None:
        """Hold every file against the description, and the adapter against the base.

        Args:
            public_key: Hold the description against what the key in this file has signed, too. Every byte is read then;
                without a key weights that were read in this process are known by their size and time.

        Raises:
            VerdictError: The key has not signed it, or its policy asks for the signature of another key, or of one.
            ConflictError: A file is missing, added, changed or damaged, or the base is not the one described or not
                the one that the adapter was trained on.
        """
        check_asked_keys(self.label, asked_keys(self.folder), public_key)
        if public_key is not None:
            check_signature(self, public_key)
        present = {
            path.relative_to(self.folder).as_posix()
            for path in self.folder.rglob("*")
            # a link to a folder: what lies in it would be loaded and isn't listed here
            if path.is_file() or path.is_symlink()
        }
        odd = sorted((present - {DESCRIPTION_FILE, SIGNATURES_FILE}) ^ set(self.files))
        if odd:
            what = "is missing" if odd[0] in self.files else "was added"
            raise _changed(self, f"file {odd[0]} {what}")
        read: dict[Path, str] = {}

        def digest_of_file(path: Path) -> str:
            if path not in read:
                # a time can be set back: a signature is not held against what a file was
                known = public_key is None and path.suffix == ".safetensors"
                read[path] = file_digest(path) if known else sha256_file(path)
            return read[path]

        for name, digest in self.files.items():
            if digest_of_file(self.folder / name) != digest:
                raise _changed(self, f"file {name} is not what was bundled")
        try:
            found = fingerprint(self.folder / BASE, digest_of_file)
        except (InputError, ValueError) as error:
            raise _changed(self, f"its base can't be read: {error}") from error
        check_base(self.label, found, self.fingerprint, self.adapter)

    def load(self) -> tuple[Any, Any]:
        """Load (model, tokenizer) as the version was measured.

        Raises:
            InputError: The folder is unsafe, or can't be loaded.
        """
        from components.models.load import load_as_served

        return load_as_served(
            self.folder / BASE, adapter=self.adapter, quantization=self.quantization, dtype=self.dtype
        )


def check_base(label: str, found: Fingerprint, expected: Fingerprint, adapter: Path | None) -> None:
    """Refuse a base, tokenizer or template other than the version's.

    Args:
        label: The version, for the message.
        found: What lies in the base's folder.
        expected: What the version was registered with.
        adapter: The adapter's folder, whose own record must agree.

    Raises:
        ConflictError: Any digest differs.
    """
    records = [(f"{label} was registered for", expected)]
    if adapter is not None and (adapter / BINDING_FILE).is_file():
        records.append(("the adapter was trained on", read_binding(adapter)))
    for says, record in records:
        for what in ("base", "tokenizer", "template"):
            one, other = getattr(record, what), getattr(found, what)
            if one != other:
                raise ConflictError(
                    f"another {what}: {says} {one[:12]}, the base's folder has {other[:12]}",
                    allowed="exactly the base, tokenizer and chat template that the version was made with",
                    next_step="serve it with that base, or train and register the adapter again on this one",
                )


def _changed(model: ServedModel, problem: str) -> ConflictError:
    return ConflictError(
        f"{model.label} in {model.folder}: {problem}",
        allowed="the files whose sha256 the description lists",
        next_step="remove the folder and bundle the version again from the registry",
    )
