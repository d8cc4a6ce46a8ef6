"""What may enter a version: safetensors and allow-listed text, judged by content as well as by suffix.

Nothing here imports or executes what it looks at. Formats: safetensors' header is 8 bytes of little-endian length and
that much JSON; pickle's opcodes are walked with pickletools, never run. `components.models.scan` judges a base's
files by the same rules before they come here; a test holds both against the same files.
"""

from __future__ import annotations

import io
import json
import pickletools
import struct
from pathlib import PurePosixPath
from typing import IO, Any, NoReturn

from registry.errors import FileRefused

__all__ = ["ALLOWED_NAMES", "ALLOWED_SUFFIXES", "scan"]

TEXT_SUFFIXES = (".json", ".jsonl", ".txt", ".md", ".jinja", ".yaml", ".yml")
# .model is sentencepiece's own format: a protocol buffer, refused below when it is anything that executes.
ALLOWED_SUFFIXES = (".safetensors", *TEXT_SUFFIXES, ".model")
ALLOWED_NAMES = ("LICENSE", "LICENCE", "NOTICE", "README", "USE_POLICY")
MAX_TEXT_BYTES = 256 * 2**20
MAX_HEADER_BYTES = 100_000_000  # the limit that safetensors' own reader has
# Keys that make a loader import code named by the folder.
CODE_KEYS = frozenset({"auto_map", "custom_pipelines", "trust_remote_code"})
# Any text may be a token, and no loader looks for code keys in a vocabulary.
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")

_MAGIC = {
    b"PK\x03\x04": "a zip archive (PyTorch and NumPy keep pickles in these)",
    b"PK\x05\x06": "a zip archive",
    b"\x93NUMPY": "a NumPy array file (may hold pickled objects)",
    b"\x89HDF": "an HDF5 file (may hold code)",
    b"\x1f\x8b": "gzip data",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"\x7fELF": "a program",
    b"MZ": "a program",
    b"GGUF": "a GGUF file",
    b"#!": "a script",
}
_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


def scan(path: str, stream: IO[bytes], size: int) -> None:
    """Refuse a file that could execute something, or that isn't what its suffix says.

    Args:
        path: The file's path inside the version; its suffix decides what the content must be.
        stream: The content, seekable; read from its start.
        size: The content's length in bytes.

    Raises:
        FileRefused: Suffix not allowed, pickle, archive, program or script by its first bytes, broken text, a
            safetensors header that lies, a key that asks for code to be imported in a JSON file, or a shard index
            that names a path.
    """
    name = PurePosixPath(path)
    if name.suffix.lower() not in ALLOWED_SUFFIXES and name.name.upper() not in ALLOWED_NAMES:
        _refuse(path, f"has a suffix that isn't allowed ({name.suffix or 'none'})")
    stream.seek(0)
    head = stream.read(16)
    stream.seek(0)
    if name.suffix.lower() == ".safetensors":
        _check_safetensors(path, stream, size)
        return
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            _refuse(path, f"is {what}")
    if head[:1] == b"\x80" and len(head) > 1 and head[1] <= 5:
        _refuse(path, "is a pickle")
    if name.suffix.lower() == ".model":
        return
    if size > MAX_TEXT_BYTES:
        _refuse(path, f"is text of {size} bytes; the limit is {MAX_TEXT_BYTES}")
    content = stream.read()
    if _is_text_pickle(content):
        _refuse(path, "is a pickle (protocol 0)")
    try:
        text = content.decode()
    except UnicodeDecodeError:
        _refuse(path, "is not UTF-8 text")
    if "\0" in text:
        _refuse(path, "holds NUL bytes")
    if name.suffix.lower() == ".json":
        _check_json(path, text)


def _refuse(path: str, why: str) -> NoReturn:
    raise FileRefused(
        f"file {path!r} {why}",
        allowed=f"safetensors weights and text: {', '.join(ALLOWED_SUFFIXES)}, {', '.join(ALLOWED_NAMES)}",
        next_step="convert weights to safetensors; leave other files out",
    )


def _is_text_pickle(content: bytes) -> bool:
    """Say whether the bytes are a whole pickle that imports something; plain words end the walk after a few bytes."""
    imports = False
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(content)):
            if opcode.name in {"GLOBAL", "INST"}:
                module, _, name = str(argument).partition(" ")
                imports = imports or all(part.isidentifier() for part in [*module.split("."), *name.split(".")])
            imports = imports or opcode.name in {"STACK_GLOBAL", "EXT1", "EXT2", "EXT4"}
            if opcode.name == "STOP":
                return imports
    except Exception:  # pickletools raises many kinds on what isn't a pickle, and each means just that
        return False
    return False


def _check_json(path: str, text: str) -> None:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        _refuse(path, f"is not JSON: {error}")
    name = PurePosixPath(path).name
    pending: list[Any] = [] if name in VOCABULARIES else [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key in CODE_KEYS & value.keys():
                if value[key]:
                    _refuse(path, f"has {key!r}, which makes a loader import code from the model's folder")
            _check_auto_mapping(path, value.get("auto_mapping"))
            pending.extend(v for v in value.values() if isinstance(v, dict | list))
        elif isinstance(value, list):
            pending.extend(v for v in value if isinstance(v, dict | list))
    if name.endswith(".safetensors.index.json"):
        _check_index(path, document)


def _check_auto_mapping(path: str, mapping: Any) -> None:
    """Refuse a peft config that names a library to import other than transformers."""
    if isinstance(mapping, dict) and mapping.get("parent_library"):
        library = str(mapping["parent_library"])
        if library.split(".")[0] != "transformers":
            _refuse(path, f"has 'auto_mapping', which makes peft import {library!r}")


def _check_index(path: str, document: Any) -> None:
    shards = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(shards, dict) or not shards:
        _refuse(path, "is a shard index without a weight_map")
    for shard in shards.values():
        if not isinstance(shard, str) or shard in {"", ".", ".."} or "/" in shard or "\\" in shard:
            _refuse(path, f"names the shard {shard!r}, which is no plain file name")


def _check_safetensors(path: str, stream: IO[bytes], size: int) -> None:
    if size < 8:
        _refuse(path, f"is {size} bytes long, shorter than a safetensors header")
    (length,) = struct.unpack("<Q", stream.read(8))
    if length > min(size - 8, MAX_HEADER_BYTES):
        _refuse(path, f"says that its safetensors header has {length} bytes, in a file of {size}")
    try:
        header = json.loads(stream.read(length).decode())
        tensors = [
            (*entry["data_offsets"], _tensor_bits(entry)) for key, entry in header.items() if key != "__metadata__"
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        _refuse(path, "has a safetensors header that can't be read")
    end = 0
    for begin, stop, bits in sorted(tensors):
        if begin != end or (stop - begin) * 8 != bits:
            _refuse(path, "has a safetensors header whose offsets leave gaps, overlap, or don't fit the shapes")
        end = stop
    if end != size - 8 - length:
        _refuse(path, f"has a safetensors header for {end} bytes of tensors, and {size - 8 - length} bytes of them")


def _tensor_bits(entry: dict[str, Any]) -> int:
    bits = _DTYPE_BITS[entry["dtype"]]
    for extent in entry["shape"]:
        if type(extent) is not int or extent < 0:
            raise ValueError("shape")
        bits *= extent
    begin, stop = entry["data_offsets"]
    if type(begin) is not int or type(stop) is not int or not 0 <= begin <= stop:
        raise ValueError("offsets")
    return bits
