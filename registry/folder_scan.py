"""A whole folder judged before an import stores anything: names, links, content, every weight, every chat template.

Each file is opened once, judged and hashed in one pass over what that opening gives, so that the digests returned are
of the very bytes that were judged; registering holds what it stores against them. `scan.py` judges a single file.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import stat
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from registry.allowed_files import MAX_TEXT_BYTES, refuse
from registry.errors import FileRefused, RegistryError, RegistryPathError
from registry.manifest import FileEntry, check_path, open_regular
from registry.scan import INDEX_SUFFIX, scan
from registry.settings import TOKENIZER
from registry.template_sandbox import SandboxFailed, hostile_template, templates_in
from registry.tensors import MAX_TENSORS, TensorEntry, check_finite, read_parts

__all__ = ["ScannedFolder", "check_templates", "scan_folder"]

# What downloading and version control leave beside a model; no loader reads it, and it is never stored.
SKIPPED_FOLDERS = frozenset({".git", ".cache"})
MAX_FILES = 10_000
MAX_SEGMENTS = 8  # as `check_path` takes them
MAX_HEADER_BYTES = 128 * 2**20  # of all safetensors headers together; 250,000 tensors take about 40 MB
SHOWN_PROBLEMS = 8


@dataclass(frozen=True)
class ScannedFolder:
    """What was found in a folder in which nothing was refused.

    Attributes:
        files: Path inside the folder -> size and sha256 of what was judged.
        tensors: Path of each safetensors file -> its tensors by name.
        metadata: Path of each safetensors file -> what its header says beside the tensors.
        templates: Labels of the chat templates that were rendered.
        kept: Path -> content of the files that were asked for, as they were judged.
    """

    files: Mapping[str, FileEntry]
    tensors: Mapping[str, Mapping[str, TensorEntry]]
    metadata: Mapping[str, Mapping[str, str]]
    templates: tuple[str, ...]
    kept: Mapping[str, bytes]

    @property
    def dtypes(self) -> list[str]:
        """The types of the tensors, as safetensors names them."""
        return sorted({tensor.dtype for tensors in self.tensors.values() for tensor in tensors.values()})

    @property
    def parameters(self) -> int:
        """How many numbers the tensors hold together."""
        total = 0
        for tensors in self.tensors.values():
            for tensor in tensors.values():
                count = 1
                for extent in tensor.shape:
                    count *= extent
                total += count
        return total


def scan_folder(folder: Path, keep: Collection[str] = ()) -> ScannedFolder:
    """Judge everything in a model's or adapter's folder; nothing of it is imported, unpickled or executed.

    Args:
        folder: The folder itself, no link to it. Hidden files are left out, as are `.git` and `.cache`.
        keep: Paths of text files whose contents are wanted: read again by path, they could be others.

    Returns:
        What is in it.

    Raises:
        FileRefused: Names every file that may not enter, with its reason: a link, a device, a name that reaches
            outside or can't be carried elsewhere, a suffix that isn't allowed, pickle or another archive by its
            bytes, keys that make a loader import code, a safetensors header that lies, a number that is NaN or
            infinite, a shard index that doesn't fit its shards, or a hostile chat template.
        RegistryPathError: There is no such folder, or it can't be read.
    """
    if folder.is_symlink() or not folder.is_dir():
        raise RegistryPathError(
            f"{folder} is {'a link' if folder.is_symlink() else 'no folder'}",
            allowed="a folder of safetensors and text",
            next_step="give the folder itself",
        )
    problems: list[str] = []
    files: dict[str, FileEntry] = {}
    tensors: dict[str, Mapping[str, TensorEntry]] = {}
    metadata: dict[str, Mapping[str, str]] = {}
    templates: dict[str, str] = {}
    indexes: dict[str, Any] = {}
    kept: dict[str, bytes] = {}
    count = header_bytes = 0
    try:
        for name, path in _walk(folder, folder, problems):
            if len(files) + len(problems) >= MAX_FILES:
                problems.append(f"there are more than {MAX_FILES} files")
                break
            try:
                files[name], content = _judge(name, path, tensors, metadata, templates, indexes)
            except FileRefused as error:
                problems.append(error.problem)
                continue
            if name in keep:
                kept[name] = content
            if held := tensors.get(name):
                count += len(held)
                header_bytes += files[name].size - max(tensor.stop for tensor in held.values())
            if count > MAX_TENSORS or header_bytes > MAX_HEADER_BYTES:
                problems.append(
                    f"the safetensors headers up to {name!r} have {count} tensors in {header_bytes} bytes; the limits "
                    f"are {MAX_TENSORS} and {MAX_HEADER_BYTES}"
                )
                break
    except OSError as error:
        raise RegistryPathError(f"{folder} can't be read: {error.strerror}: {error.filename}") from error
    if not problems:
        problems += [problem for name, index in indexes.items() for problem in _index_lies(name, index, tensors)]
        problems += _same_name(files)
    if not problems:
        try:
            check_templates(templates)
        except FileRefused as error:
            problems.append(error.problem)
    if problems:
        _raise(folder, problems)
    return ScannedFolder(files, tensors, metadata, tuple(templates), kept)


def check_templates(templates: Mapping[str, str]) -> None:
    """Render each template for a few short conversations and refuse the hostile.

    Args:
        templates: As `templates_in` gave them.

    Raises:
        FileRefused: A hostile template, as `hostile_template` finds it.
        RegistryError: The process that renders could not be started, failed by itself, or was ended.
    """
    try:
        hostile = hostile_template(templates)
    except SandboxFailed as error:
        raise RegistryError(
            str(error),
            next_step="run again once memory, processor and temporary files have room; if it stays, check that jinja2 "
            "is installed for this Python",
        ) from error
    if hostile:
        refuse(*hostile)


def _raise(folder: Path, problems: list[str]) -> None:
    shown = problems[:SHOWN_PROBLEMS]
    more = f"\n  and {len(problems) - len(shown)} more" if len(problems) > len(shown) else ""
    raise FileRefused(
        f"{folder} can't be imported; nothing of it was stored:\n  " + "\n  ".join(shown) + more,
        allowed="a folder of safetensors, JSON, tokenizer, template and licence files, without code, pickles or links",
        next_step="fetch the model without these files, or convert its weights to safetensors",
    )


def _walk(folder: Path, root: Path, problems: list[str]) -> Iterator[tuple[str, Path]]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda item: item.name):
            path = Path(entry.path)
            name = path.relative_to(root).as_posix()
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                problems.append(f"file {name!r} is a link; copy what it points to in its place")
            elif stat.S_ISDIR(mode):
                if entry.name in SKIPPED_FOLDERS:
                    continue
                if name.count("/") + 1 == MAX_SEGMENTS:
                    problems.append(f"folder {name!r} lies deeper than any file may: {MAX_SEGMENTS} parts of a path")
                else:
                    yield from _walk(path, root, problems)
            elif not stat.S_ISREG(mode):
                problems.append(f"file {name!r} is neither a file nor a folder")
            elif not entry.name.startswith("."):
                yield name, path


def _judge(
    name: str,
    path: Path,
    tensors: dict[str, Mapping[str, TensorEntry]],
    metadata: dict[str, Mapping[str, str]],
    templates: dict[str, str],
    indexes: dict[str, Any],
) -> tuple[FileEntry, bytes]:
    """Return what a file is, and its content where it is text."""
    check_path(name)
    with open_regular(name, path) as opened:
        size = os.fstat(opened.fileno()).st_size
        if PurePosixPath(name).suffix.lower() == ".safetensors":
            scan(name, opened, size)
            opened.seek(0)
            stream = _Hashed(opened)
            # read again, from what is hashed: the file may have changed since
            tensors[name], metadata[name] = read_parts(name, stream, size)
            check_finite(name, stream, tensors[name])
            if opened.read(1):
                refuse(name, "became longer while it was read")
            return FileEntry(stream.length, stream.hasher.hexdigest()), b""
        if size > MAX_TEXT_BYTES:
            refuse(name, f"has {size} bytes and is no safetensors file; the limit is {MAX_TEXT_BYTES}")
        content = opened.read(MAX_TEXT_BYTES + 1)
    settings = PurePosixPath(name)
    beside = path.parent.iterdir() if settings.name.lower() == TOKENIZER else ()
    names = [str(settings.with_name(other.name)) + ("" if other.is_file() else "/") for other in beside]
    scan(name, io.BytesIO(content), len(content), names)
    if not name.lower().endswith(".model"):
        text = content.decode()
        templates.update(templates_in(name, text))
        if name.lower().endswith(INDEX_SUFFIX):
            indexes[name] = json.loads(text)
    return FileEntry(len(content), hashlib.sha256(content).hexdigest()), content


class _Hashed:
    """A stream that is hashed as it is read, from beginning to end."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self.hasher = hashlib.sha256()
        self.length = 0

    def read(self, size: int, /) -> bytes:
        piece = self._stream.read(size)
        self.hasher.update(piece)
        self.length += len(piece)
        return piece


def _index_lies(name: str, index: Any, tensors: Mapping[str, Mapping[str, TensorEntry]]) -> list[str]:
    """Hold a shard index against the shards beside it."""
    above = name.rpartition("/")[0]
    beside = {path.rpartition("/")[2]: held for path, held in tensors.items() if path.rpartition("/")[0] == above}
    said: dict[str, set[str]] = {}
    for tensor, shard in index["weight_map"].items():
        said.setdefault(shard, set()).add(tensor)
    if missing := sorted(said.keys() - beside.keys()):
        return [f"file {name!r} names the shard {missing[0]!r}, which isn't there"]
    if extra := sorted(beside.keys() - said.keys()):
        return [f"file {name!r} doesn't name {extra[0]!r}, which lies beside it: no loader would read it"]
    for shard, held in beside.items():
        if odd := sorted(said[shard] ^ held.keys()):
            where = "lacks" if odd[0] in held else "puts there"
            return [f"file {name!r} and shard {shard!r} differ: the index {where} tensor {odd[0][:80]!r}"]
    return []


def _same_name(files: Mapping[str, FileEntry]) -> list[str]:
    folded: dict[str, str] = {}
    clashes = [(name, folded.setdefault(name.casefold(), name)) for name in files]
    return [f"{one!r} and {other!r} are one file where case is ignored" for other, one in clashes if one != other]
