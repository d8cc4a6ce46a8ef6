"""The version manifest: everything that a version is and was made from, as canonical JSON whose sha256 is its digest.

Plain frozen dataclasses, validated by hand: reading one is on the path of every look-up.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

from registry.canonical import MAX_NESTING, canonical_json, finite, is_too_deep, sha256_text
from registry.errors import FileRefused, ManifestInvalid
from registry.names import is_digest

__all__ = [
    "BOUND_KINDS",
    "DERIVED_KINDS",
    "KINDS",
    "WHOLE_KINDS",
    "FileEntry",
    "Manifest",
    "Parent",
    "describe_files",
    "registered_files",
    "require_files",
    "require_shallow",
]

KINDS = ("base", "adapter", "merged", "full", "head", "prompt", "quantized")
# Whole weights: base_fingerprint is that of these weights themselves, and others may be bound to it.
WHOLE_KINDS = ("base", "merged", "full", "quantized")
# Useless without the base that they were trained on: base_fingerprint is that of the parent with role "base".
BOUND_KINDS = ("adapter", "head")
DERIVED_KINDS = ("merged", "full", "quantized")
MANIFEST_FORMAT = 1

# One segment of a file's path; this alone rules out '..', absolute, hidden, backslash, drive and control characters.
_SEGMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}")
_ROLE = re.compile(r"[a-z][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class FileEntry:
    """What is known of one file: its size in bytes and the hex sha256 of its content."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Parent:
    """A registered version that this one was made from: its digest, its role (base, source, ...) and merge weight."""

    digest: str
    role: str
    weight: float | None = None


def check_path(path: object) -> str:
    """Return a file's path inside a version, if it is relative, plain and portable.

    Raises:
        FileRefused: '..', absolute, backslash, hidden, or characters outside letters, digits and '_.+-'.
    """
    segments = path.split("/") if isinstance(path, str) else []
    if len(segments) > 8 or not segments or not all(_SEGMENT.fullmatch(s) for s in segments):
        raise FileRefused(
            f"file name {path!r} can't be used",
            allowed="a relative path of letters, digits and '_.+-', separated by '/', no part starting with '.'",
            next_step="rename the file",
        )
    return str(path)


def describe_files(files: Mapping[str, Path]) -> dict[str, FileEntry]:
    """Measure and hash the files of a version to be, for `Manifest(files=...)`.

    Args:
        files: Path inside the version -> file on disk.

    Raises:
        FileRefused: A hostile path, a symlink, or something that isn't a regular file.
    """
    return {check_path(name): _describe(name, Path(source)) for name, source in sorted(files.items())}


def _describe(name: str, source: Path) -> FileEntry:
    with open_regular(name, source) as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
        return FileEntry(size=stream.tell(), sha256=digest)


def registered_files(text: str) -> dict[str, FileEntry]:
    """Return the files of a manifest that is registered: that was found valid, and its text is what was written.

    Args:
        text: The canonical text.

    Raises:
        ManifestInvalid: Not a manifest.
    """
    try:
        return {path: FileEntry(**entry) for path, entry in json.loads(text)["files"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _unreadable(error) from error


def require_shallow(manifest: Manifest) -> None:
    """Refuse a manifest that is to be registered and is nested deeper than whatever has to show it can take.

    Raises:
        ManifestInvalid: Says which field.
    """
    for name in ("metadata", "quantization", "peft_config"):
        if is_too_deep(getattr(manifest, name)):
            raise ManifestInvalid(
                f"manifest: {name} is nested more than {MAX_NESTING} deep", allowed=f"at most {MAX_NESTING} levels"
            )


def require_files(manifest: Manifest, files: Mapping[str, Path]) -> None:
    """Refuse files that are not those that a manifest names.

    Raises:
        ManifestInvalid: A path is in one and not in the other.
    """
    if set(files) != set(manifest.files):
        odd = sorted(set(files) ^ set(manifest.files))
        raise ManifestInvalid(f"the manifest and the files given differ in {odd[0]!r}", allowed="the same paths")


def open_regular(name: str, source: Path) -> Any:
    """Open a file that is a file itself, never through a symlink in its last part.

    Raises:
        FileRefused: A symlink, a folder, a device, or nothing there.
    """
    try:
        descriptor = os.open(source, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    except OSError as error:
        why = "is a symlink" if source.is_symlink() else f"can't be read: {error.strerror}"
        raise FileRefused(
            f"file {name!r} ({source}) {why}",
            allowed="regular files",
            next_step="copy the file's content in its place",
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileRefused(f"file {name!r} ({source}) is not a regular file", allowed="regular files")
    return os.fdopen(descriptor, "rb")


@dataclass(frozen=True)
class Manifest:
    """What a version is and was made from.

    Args:
        kind: One of KINDS.
        files: Path inside the version -> size and sha256.
        base_fingerprint: For whole weights their own fingerprint; otherwise that of the base parent.
        tokenizer_digest: Hex sha256 of the tokenizer.
        template_digest: Hex sha256 of the chat template.
        quantization: The recipe that the weights were, or are to be, quantized with.
        peft_config: The adapter's PEFT configuration.
        data_digests: Data file -> hex sha256, for everything that was trained on.
        parents: Registered versions that this one was made from.
        seed: The run's seed.
        library_versions: Library -> version.
        code_revision: Digest or commit of the code that made it.
        flow_run_id: The flow run that made it.
        decision_digest: Hex sha256 of the decision document.
        plan_digest: Hex sha256 of the memory plan.
        content_key: Key over everything that the making reads; the same files under the same key are the old version.
        licence: Licence of the weights.
        metadata: Anything else, plain JSON.

    Raises:
        ManifestInvalid: A field has the wrong type, or fields contradict each other.
        FileRefused: A file's path can't be used.
    """

    kind: str
    files: Mapping[str, FileEntry]
    base_fingerprint: str | None = None
    tokenizer_digest: str | None = None
    template_digest: str | None = None
    quantization: Mapping[str, Any] | None = None
    peft_config: Mapping[str, Any] | None = None
    data_digests: Mapping[str, str] = field(default_factory=dict)
    parents: tuple[Parent, ...] = ()
    seed: int | None = None
    library_versions: Mapping[str, str] = field(default_factory=dict)
    code_revision: str | None = None
    flow_run_id: str | None = None
    decision_digest: str | None = None
    plan_digest: str | None = None
    content_key: str | None = None
    licence: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_kind()
        self._check_files()
        self._check_text()
        self._check_parents()
        if self.seed is not None and type(self.seed) is not int:
            raise ManifestInvalid(f"manifest: seed is {self.seed!r}", allowed="an integer or nothing")
        object.__setattr__(self, "parents", tuple(self.parents))
        # The text is taken now, so that a mapping changed later by the caller can't change a digest.
        canonical = self.canonical
        content = json.loads(canonical)
        for name in ("data_digests", "library_versions", "metadata", "quantization", "peft_config"):
            if content[name] is not None:
                object.__setattr__(self, name, MappingProxyType(content[name]))
        object.__setattr__(self, "files", MappingProxyType(dict(self.files)))

    def _check_kind(self) -> None:
        if self.kind not in KINDS:
            raise ManifestInvalid(f"manifest: kind is {self.kind!r}", allowed=", ".join(KINDS))
        if (self.kind in WHOLE_KINDS or self.kind in BOUND_KINDS) and self.base_fingerprint is None:
            raise ManifestInvalid(f"manifest: kind {self.kind!r} has no base_fingerprint", allowed="a hex sha256")

    def _check_files(self) -> None:
        if not isinstance(self.files, Mapping) or not self.files:
            raise ManifestInvalid("manifest: no files", allowed="at least one file")
        folded: dict[str, str] = {}
        for path, entry in self.files.items():
            check_path(path)
            if not isinstance(entry, FileEntry) or type(entry.size) is not int or entry.size < 0:
                raise ManifestInvalid(f"manifest: file {path!r} has no size", allowed="FileEntry(size >= 0, sha256)")
            if not is_digest(entry.sha256):
                raise ManifestInvalid(f"manifest: file {path!r} has sha256 {entry.sha256!r}", allowed="64 hex digits")
            other = folded.setdefault(path.casefold(), path)
            if other != path:
                raise ManifestInvalid(f"manifest: {other!r} and {path!r} are one file where case is ignored")
        for path in self.files:
            end = path.find("/")
            while end >= 0:
                if path[:end] in self.files:
                    raise ManifestInvalid(f"manifest: {path[:end]!r} is a file and a folder (of {path!r})")
                end = path.find("/", end + 1)

    def _check_text(self) -> None:
        for name in ("base_fingerprint", "tokenizer_digest", "template_digest", "decision_digest", "plan_digest"):
            value = getattr(self, name)
            if value is not None and not is_digest(value):
                raise ManifestInvalid(f"manifest: {name} is {value!r}", allowed="64 lower-case hex digits, or nothing")
        for name in ("code_revision", "flow_run_id", "content_key", "licence"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise ManifestInvalid(f"manifest: {name} is {value!r}", allowed="a text that isn't empty, or nothing")
        for name in ("data_digests", "library_versions"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) or not all(
                isinstance(k, str) and isinstance(v, str) for k, v in value.items()
            ):
                raise ManifestInvalid(f"manifest: {name} is {value!r}", allowed="a mapping from text to text")
        bad = [digest for digest in self.data_digests.values() if not is_digest(digest)]
        if bad:
            raise ManifestInvalid(f"manifest: data digest {bad[0]!r}", allowed="64 lower-case hex digits")
        for name in ("metadata", "quantization", "peft_config"):
            value = getattr(self, name)
            if not isinstance(value, Mapping) and (name == "metadata" or value is not None):
                raise ManifestInvalid(f"manifest: {name} is {value!r}", allowed="a mapping of plain JSON")

    def _check_parents(self) -> None:
        for parent in self.parents:
            weight = parent.weight
            if not is_digest(parent.digest) or not isinstance(parent.role, str) or not _ROLE.fullmatch(parent.role):
                raise ManifestInvalid(f"manifest: parent {parent!r}", allowed="a whole version digest and a role")
            if weight is not None and finite(weight) is None:
                raise ManifestInvalid(f"manifest: parent weight {weight!r}", allowed="a finite number, or nothing")
        bases = [p for p in self.parents if p.role == "base"]
        if self.kind in BOUND_KINDS and len(bases) != 1:
            raise ManifestInvalid(
                f"manifest: kind {self.kind!r} has {len(bases)} parents with role 'base'", allowed="exactly one"
            )
        if self.kind in DERIVED_KINDS and not self.parents:
            raise ManifestInvalid(f"manifest: kind {self.kind!r} has no parents", allowed="what it was made from")
        if len({(p.digest, p.role) for p in self.parents}) != len(self.parents):
            raise ManifestInvalid("manifest: a parent is named twice in one role")

    def to_dict(self) -> dict[str, Any]:
        """Return the manifest as plain JSON values, with every field present."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["files"] = {path: {"size": e.size, "sha256": e.sha256} for path, e in self.files.items()}
        values["parents"] = [{"digest": p.digest, "role": p.role, "weight": p.weight} for p in self.parents]
        for name in ("data_digests", "library_versions", "metadata", "quantization", "peft_config"):
            values[name] = None if values[name] is None else dict(values[name])
        return {"format": MANIFEST_FORMAT, **values}

    @cached_property
    def canonical(self) -> str:
        """The canonical JSON text that is stored and hashed."""
        try:
            return canonical_json(self.to_dict())
        except (TypeError, ValueError, RecursionError) as error:
            raise ManifestInvalid(
                f"manifest: {error}", allowed="plain JSON values, no NaN", next_step="convert paths, arrays and dates"
            ) from error

    @cached_property
    def digest(self) -> str:
        """The hex sha256 of the canonical text: the version's digest."""
        return sha256_text(self.canonical)

    @property
    def file_digests(self) -> dict[str, str]:
        """Path -> hex sha256 of each file: what an evaluation report's `files` must be."""
        return {path: entry.sha256 for path, entry in self.files.items()}

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest back from its canonical text.

        Raises:
            ManifestInvalid: Not a manifest of this format.
        """
        try:
            values = json.loads(text)
            if values.pop("format") != MANIFEST_FORMAT:
                raise ManifestInvalid("manifest: unknown format", allowed=f"format {MANIFEST_FORMAT}")
            values["files"] = {path: FileEntry(**entry) for path, entry in values["files"].items()}
            values["parents"] = tuple(Parent(**parent) for parent in values["parents"])
            return cls(**values)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise _unreadable(error) from error


def _unreadable(error: Exception) -> ManifestInvalid:
    return ManifestInvalid(f"manifest can't be read: {type(error).__name__}: {error}")
