"""What one file of a version may hold: safetensors and allow-listed text, judged by content as well as by suffix.

Nothing here imports or executes what it looks at; pickle's opcodes are walked (`pickles.py`), never run. At every
registration; an import looks further (`folder_scan.py`). `components.models.scan` judges a base's files by the same
rules before they come here; a test holds both against the same files.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import PurePosixPath
from typing import IO, Any

from registry.allowed_files import ALLOWED_NAMES, ALLOWED_SUFFIXES, MAX_TEXT_BYTES, TEXT_SUFFIXES, refuse
from registry.canonical import MAX_NESTING, canonical_json, is_too_deep, without_repeats
from registry.pickles import runs_something
from registry.settings import TOKENIZER, hides_template, odd_setting, vocabulary_elsewhere
from registry.tensors import read_header

__all__ = ["ALLOWED_NAMES", "ALLOWED_SUFFIXES", "INDEX_SUFFIX", "scan"]

# Keys that make a loader import code named by the folder.
CODE_KEYS = frozenset({"auto_map", "custom_pipelines", "trust_remote_code", "megatron_config"})
# What peft writes into every config; it imports another module that is named there.
MEGATRON_CORE = "megatron.core"
# attn_implementation, _experts_implementation and others: an implementation with "/" in it is a hub's repository, whose
# code transformers fetches and runs.
IMPLEMENTATION = "_implementation"
# Any text may be a token, and no loader looks for code keys in a vocabulary.
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
INDEX_SUFFIX = ".safetensors.index.json"
# Settings that loaders read by name; where a file system ignores case, by any that differs from it in case alone.
OBJECTS = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json",
           "adapter_config.json", "tunewright.json", "head.json")  # fmt: skip

_MAGIC = {
    b"PK\x03\x04": "a zip archive (PyTorch and NumPy keep pickles in these)",
    b"PK\x05\x06": "a zip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"\x28\xb5\x2f\xfd": "Zstandard data",
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
# The record that ends a zip has 22 bytes, the last two of them the length of a comment behind it.
_ZIP_END, _ZIP_END_BYTES = b"PK\x05\x06", 22


def scan(path: str, stream: IO[bytes], size: int, beside: Collection[str] = ()) -> None:
    """Refuse a file that could execute something, or that isn't what its suffix says.

    Args:
        path: The file's path inside the version; its suffix decides what the content must be.
        stream: The content, seekable; read from its start.
        size: The content's length in bytes.
        beside: Paths of the version's files, as far as they are known; a folder's has a slash behind.

    Raises:
        FileRefused: Suffix not allowed, pickle, archive, program or script by its first bytes, broken text, a
            safetensors header that lies, a key that asks for code to be imported in a JSON file, settings that make a
            loader take what nobody looked at, or a shard index that names a path.
    """
    name = PurePosixPath(path)
    if name.suffix.lower() not in ALLOWED_SUFFIXES and name.name.upper() not in ALLOWED_NAMES:
        refuse(path, f"has a suffix that isn't allowed ({name.suffix or 'none'})")
    if hides_template(name):
        refuse(path, "takes the place of chat_template.jinja, of which alone a digest is taken; put it there instead")
    stream.seek(0)
    head = stream.read(512)
    if name.suffix.lower() not in TEXT_SUFFIXES and _ends_as_zip(stream, size):
        refuse(path, "ends as a zip archive does, in which PyTorch finds a pickle")
    stream.seek(0)
    if name.suffix.lower() == ".safetensors":
        read_header(path, stream, size)
        return
    for magic, what in _MAGIC.items():
        if head.startswith(magic):
            refuse(path, f"is {what}")
    if head[:1] == b"\x80" and len(head) > 1 and head[1] <= 5:
        refuse(path, "is a pickle")
    if head[257:262] == b"ustar":
        refuse(path, "is a tar archive (PyTorch's oldest format, with pickles in it)")
    if size > MAX_TEXT_BYTES:
        refuse(path, f"has {size} bytes and is no safetensors file; the limit is {MAX_TEXT_BYTES}")
    content = stream.read()
    if runs_something(content):
        refuse(path, "is a pickle that imports something")
    if name.suffix.lower() == ".model":
        return
    try:
        text = content.decode()
    except UnicodeDecodeError:
        refuse(path, "is not UTF-8 text")
    if "\0" in text:
        refuse(path, "holds NUL bytes")
    if name.suffix.lower() == ".json":
        _check_json(path, text, beside)


def _ends_as_zip(stream: IO[bytes], size: int) -> bool:
    """Say whether a zip's end record closes the content: a zip is found from its end, whatever stands before it."""
    reach = min(size, _ZIP_END_BYTES + 0xFFFF)
    stream.seek(size - reach)
    tail = stream.read(reach)
    at = tail.find(_ZIP_END)
    while at >= 0:
        comment = tail[at + _ZIP_END_BYTES - 2 : at + _ZIP_END_BYTES]
        if len(comment) == 2 and int.from_bytes(comment, "little") == len(tail) - at - _ZIP_END_BYTES:
            return True
        at = tail.find(_ZIP_END, at + 1)
    return False


def _check_json(path: str, text: str, beside: Collection[str]) -> None:
    name = PurePosixPath(path).name
    try:
        # vocabularies are large, and some hold a token twice
        document = json.loads(text, object_pairs_hook=None if name in VOCABULARIES else without_repeats)
    except (ValueError, RecursionError) as error:
        refuse(path, f"is not JSON: {error}")
    if name.lower() in OBJECTS and not isinstance(document, dict):
        refuse(path, "is no JSON object, which every loader takes it for")
    if is_too_deep(document):
        refuse(path, f"is nested more than {MAX_NESTING} deep")
    if elsewhere := vocabulary_elsewhere(name, document):
        refuse(path, elsewhere)
    if name not in VOCABULARIES:
        _check_has_digest(path, document)
        _check_keys(path, document)
        # 10,000 files may lie beside each other
        names = _names_beside(path, beside) if name.lower() == TOKENIZER else set()
        if odd := odd_setting(name, document, names):
            refuse(path, odd)
    if name.lower().endswith(INDEX_SUFFIX):
        _check_index(path, document)


def _names_beside(path: str, files: Collection[str]) -> set[str]:
    """Return the names of all that lies in the same folder; those of folders have a slash behind."""
    above = path[: path.rfind("/") + 1]
    split = (other.removeprefix(above).partition("/") for other in files if other.startswith(above))
    return {name + slash for name, slash, _ in split}


def _check_has_digest(path: str, document: Any) -> None:
    """Refuse what json reads and JSON hasn't: NaN, infinity, and halves of characters; no digest is taken of them."""
    try:
        canonical_json(document).encode()
    except ValueError as error:
        refuse(path, f"holds what is no JSON: {str(error)[:120]}")


def _check_keys(path: str, document: Any) -> None:
    """Refuse the keys by which a document has a loader import code."""
    pending: list[Any] = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in CODE_KEYS and inner:
                    refuse(path, f"has {key!r}, which makes a loader import code that the model brings or names")
                if key == "megatron_core" and inner not in (None, MEGATRON_CORE):
                    refuse(path, f"has {key!r}, which makes peft import the module that it names")
                if str(key).endswith(IMPLEMENTATION) and _names_repository(inner):
                    refuse(path, f"has {key!r}, which makes transformers fetch and run code from a hub's repository")
            _check_auto_mapping(path, value.get("auto_mapping"))
            pending.extend(v for v in value.values() if isinstance(v, dict | list))
        elif isinstance(value, list):
            pending.extend(v for v in value if isinstance(v, dict | list))


def _names_repository(implementation: Any) -> bool:
    """Say whether an implementation, or the one of any part of the model, has "/" in its name."""
    if isinstance(implementation, dict):
        return any(_names_repository(inner) for inner in implementation.values())
    return isinstance(implementation, str) and "/" in implementation


def _check_auto_mapping(path: str, mapping: Any) -> None:
    """Refuse a peft config that names a library to import other than transformers."""
    if isinstance(mapping, dict) and mapping.get("parent_library"):
        library = str(mapping["parent_library"])
        if library.split(".")[0] != "transformers":
            refuse(path, f"has 'auto_mapping', which makes peft import {library!r}")


def _check_index(path: str, document: Any) -> None:
    shards = document.get("weight_map") if isinstance(document, dict) else None
    if not isinstance(shards, dict) or not shards:
        refuse(path, "is a shard index without a weight_map")
    for shard in shards.values():
        if not isinstance(shard, str) or shard in {"", ".", ".."} or "/" in shard or "\\" in shard:
            refuse(path, f"names the shard {shard!r}, which is no plain file name")
        if shard.startswith(".") or not shard.endswith(".safetensors"):
            # a hidden file isn't judged, and of another suffix transformers makes a pickle
            refuse(path, f"names the shard {shard!r}, which is hidden or no safetensors file")
