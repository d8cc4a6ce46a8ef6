"""What one file of a model folder may hold, judged by content as well as by name; nothing is imported or executed.

`registry.scan` judges the files of a version by the same rules; a test holds both against the same files.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.files import canonical_json
from components.models.pickles import runs_something
from components.models.settings import TOKENIZER, hides_template, odd_setting, vocabulary_elsewhere

__all__ = ["ALLOWED_SUFFIXES", "ALLOWED_TEXT", "check_file"]

# `.model` is a sentencepiece vocabulary (protobuf); names without a suffix are LICENSE, NOTICE and the like.
TEXT_SUFFIXES = frozenset({".json", ".jsonl", ".jinja", ".txt", ".md", ".yaml", ".yml"})
ALLOWED_SUFFIXES = frozenset({".safetensors", ".model"}) | TEXT_SUFFIXES
TEXT_NAMES = frozenset({"license", "licence", "notice", "readme", "use_policy"})
# Keys that make a loader import code named by the folder.
CODE_KEYS = frozenset({"auto_map", "custom_pipelines", "trust_remote_code", "megatron_config"})
# What peft writes into every config; it imports another module that is named there.
MEGATRON_CORE = "megatron.core"
# attn_implementation, _experts_implementation and others: an implementation with "/" in it is a hub's repository, whose
# code transformers fetches and runs.
IMPLEMENTATION = "_implementation"
# Deeper than any loader's settings; whatever walks a document by recursion can take this.
MAX_NESTING = 100
MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive, as torch.save writes it around a pickle"),
    (b"PK\x05\x06", "a zip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data"),
    (b"\x7fELF", "an executable"),
    (b"MZ", "an executable"),
    (b"\x93NUMPY", "a numpy file, which may hold a pickle"),
    (b"\x89HDF", "an HDF5 file, which may hold code"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"GGUF", "a GGUF file"),
    (b"#!", "a script"),
)
# The record that ends a zip has 22 bytes, the last two of them the length of a comment behind it.
ZIP_END, ZIP_END_BYTES = b"PK\x05\x06", 22
MAX_TEXT_BYTES = 256 * 2**20
MAX_SAFETENSORS_HEADER_BYTES = 100_000_000  # the limit that safetensors' own reader has
# Every value of a header but the first stands behind a comma: counted before it is parsed into far more memory.
MAX_TENSORS, HEADER_COMMAS = 250_000, 12
# A tensor of more bits than this is in no file; products stop here, so that a shape can't cost time by itself.
MAX_TENSOR_BITS = 2**66
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
ALLOWED_TEXT = "a folder of safetensors, JSON, tokenizer and template files, without code, pickles or links"
# Any text may be a token, and no loader looks for code keys in a vocabulary.
VOCABULARIES = ("tokenizer.json", "vocab.json", "added_tokens.json")
INDEX_SUFFIX = ".safetensors.index.json"
# Settings that loaders read by name; where a file system ignores case, by any that differs from it in case alone.
OBJECTS = ("config.json", "generation_config.json", "tokenizer_config.json", "special_tokens_map.json",
           "adapter_config.json", "tunewright.json", "head.json")  # fmt: skip


def check_file(path: Path) -> None:
    """Refuse a file that could run code, or that isn't what its suffix says.

    Args:
        path: A regular file.

    Raises:
        InputError: A pickle, archive, program or script by its first bytes, a suffix that isn't on the allow list, text
            that isn't UTF-8, malformed JSON or JSON that asks for code, settings that make a loader take what nobody
            looked at, a shard index that names a path outside the folder, or a safetensors header that doesn't fit
            its file.
    """
    _check_kind(path)
    if path.suffix.lower() == ".safetensors":
        _check_safetensors(path)
    elif path.suffix.lower() == ".json":
        _check_json(path)


def _check_kind(path: Path) -> None:
    with path.open("rb") as stream:
        head = stream.read(512)
    suffix = path.suffix.lower()
    if suffix not in TEXT_SUFFIXES and _ends_as_zip(path):
        raise _refusal(path, "ends as a zip archive does, in which PyTorch finds a pickle")
    # the first bytes of safetensors are a length and may look like anything; its header is checked apart
    if suffix != ".safetensors":
        # a pickle of protocol 2 and later opens with PROTO and its number
        if len(head) > 1 and head[0] == 0x80 and head[1] <= 5:
            raise _refusal(path, "is a pickle, which can run any code when it is read")
        if head[257:262] == b"ustar":
            raise _refusal(path, "is a tar archive, PyTorch's oldest format with pickles in it")
        for magic, what in MAGIC:
            if head.startswith(magic):
                raise _refusal(path, f"is {what}")
    text = suffix in TEXT_SUFFIXES or path.name.lower() in TEXT_NAMES
    if not text and suffix not in ALLOWED_SUFFIXES:
        raise _refusal(path, f"is of a kind that is not allowed ({path.suffix or path.name})")
    if hides_template(path):
        raise _refusal(path, "takes the place of chat_template.jinja, of which alone a digest is taken; put it there")
    if suffix != ".safetensors":
        _check_content(path, text)


def _ends_as_zip(path: Path) -> bool:
    """Say whether a zip's end record closes the file: a zip is found from its end, whatever stands before it."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, size - ZIP_END_BYTES - 0xFFFF))
        tail = stream.read()
    at = tail.find(ZIP_END)
    while at >= 0:
        comment = tail[at + ZIP_END_BYTES - 2 : at + ZIP_END_BYTES]
        if len(comment) == 2 and int.from_bytes(comment, "little") == len(tail) - at - ZIP_END_BYTES:
            return True
        at = tail.find(ZIP_END, at + 1)
    return False


def _check_content(path: Path, text: bool) -> None:
    size = path.stat().st_size
    if size > MAX_TEXT_BYTES:
        raise _refusal(path, f"has {size} bytes and is no safetensors file; the limit is {MAX_TEXT_BYTES}")
    content = path.read_bytes()
    if runs_something(content):
        raise _refusal(path, "is a pickle that imports something, which can run any code when it is read")
    if not text:
        return
    try:
        decoded = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refusal(path, "is named as text, but is not UTF-8") from error
    if "\0" in decoded:
        raise _refusal(path, "is named as text, but holds zero bytes")


def _check_json(path: Path) -> None:
    try:
        # vocabularies are large, and some hold a token twice
        hook = None if path.name in VOCABULARIES else _without_repeats
        document = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=hook)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid JSON: {error}", next_step="fetch the model again") from error
    if path.name.lower() in OBJECTS and not isinstance(document, dict):
        raise InputError(f"{path} is no JSON object", next_step="fetch the model again")
    if _is_nested_deeper(document, MAX_NESTING):
        raise InputError(f"{path} is nested more than {MAX_NESTING} deep", next_step="fetch the model again")
    if elsewhere := vocabulary_elsewhere(path.name, document):
        raise _reads_elsewhere(path, elsewhere)
    if path.name not in VOCABULARIES:
        try:
            # json reads NaN, infinity and halves of characters, of which no digest can be taken
            canonical_json(document).encode()
        except ValueError as error:
            raise InputError(f"{path} holds what is no JSON: {error}", next_step="fetch the model again") from error
        found = _code_key(document)
        if found:
            raise InputError(
                f"{path} asks for code of its own through {found!r}",
                allowed="architectures that transformers itself has",
                next_step="choose a base that needs no remote code; it is never trusted here",
            )
        beside = path.parent.iterdir() if path.name.lower() == TOKENIZER else ()
        names = {other.name + ("" if other.is_file() else "/") for other in beside}
        if odd := odd_setting(path.name, document, names):
            raise _reads_elsewhere(path, odd)
    if path.name.lower().endswith(INDEX_SUFFIX):
        mapped = document.get("weight_map") if isinstance(document, dict) else None
        if not isinstance(mapped, dict) or not mapped:
            raise InputError(f"{path} has no weight_map", next_step="fetch the model again")
        for shard in mapped.values():
            if not isinstance(shard, str) or Path(shard).name != shard or "\\" in shard or shard in {"", ".", ".."}:
                raise InputError(f"{path} names the shard {shard!r}", allowed="plain file names in the same folder")
            # a hidden file isn't judged, and of another suffix transformers makes a pickle
            if shard.startswith(".") or not shard.endswith(".safetensors"):
                raise InputError(
                    f"{path} names the shard {shard!r}",
                    allowed="safetensors files that aren't hidden",
                    next_step="fetch the model again, with weights in safetensors",
                )


def _reads_elsewhere(path: Path, odd: str) -> InputError:
    return InputError(
        f"{path} {odd}",
        allowed="settings by which transformers takes the files that are judged and fingerprinted",
        next_step="change that file, or export the model again with the present version of transformers",
    )


def _code_key(document: Any) -> str | None:
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            for key, inner in value.items():
                if key in CODE_KEYS and inner:
                    return str(key)
                # peft imports the module that this names
                if key == "megatron_core" and inner not in (None, MEGATRON_CORE):
                    return str(key)
                if str(key).endswith(IMPLEMENTATION) and _names_repository(inner):
                    return str(key)
                # peft imports the library that this names
                if key == "auto_mapping" and isinstance(inner, dict):
                    library = str(inner.get("parent_library") or "transformers")
                    if library.split(".")[0] != "transformers":
                        return str(key)
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)
    return None


def _names_repository(implementation: Any) -> bool:
    """Say whether an implementation, or the one of any part of the model, has "/" in its name."""
    if isinstance(implementation, dict):
        return any(_names_repository(inner) for inner in implementation.values())
    return isinstance(implementation, str) and "/" in implementation


def _is_nested_deeper(document: Any, most: int) -> bool:
    level: list[Any] = [[document]]
    for _ in range(most + 1):
        inner = [value.values() if isinstance(value, dict) else value for value in level]
        level = [item for items in inner for item in items if isinstance(item, dict | list)]
        if not level:
            return False
    return True


def _check_safetensors(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(MAX_SAFETENSORS_HEADER_BYTES, size - 8):
            raise _refusal(path, "is not safetensors (its header's length doesn't fit)")
        raw = stream.read(length)
    if raw.count(b",") > MAX_TENSORS * HEADER_COMMAS:
        raise _refusal(path, f"has a safetensors header with more in it than {MAX_TENSORS} tensors need")
    try:
        if raw[:1] != b"{":
            raise ValueError("no object")
        header = json.loads(raw.decode(), object_pairs_hook=_without_repeats)
        if not all(isinstance(value, str) for value in header.pop("__metadata__", {}).values()):
            raise ValueError("metadata")
        tensors = sorted(_extent(entry) for entry in header.values())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _refusal(path, "is not safetensors (its header can't be read)") from error
    end = 0
    for begin, stop, bits in tensors:
        if begin != end or (stop - begin) * 8 != bits:
            raise _refusal(path, "has a safetensors header whose offsets leave gaps, overlap, or don't fit the shapes")
        end = stop
    if 8 + length + end != size:
        raise _refusal(path, f"is cut short or padded: {size} bytes, its header says {8 + length + end}")


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(found := dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice")
    return found


def _extent(entry: dict[str, Any]) -> tuple[int, int, int]:
    """Return where a tensor's bytes begin and end, and how many bits its type and shape need."""
    if entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError("keys")
    bits = DTYPE_BITS[entry["dtype"]]
    for extent in entry["shape"]:
        if type(extent) is not int or extent < 0:
            raise ValueError("shape")
    for extent in [0] if 0 in entry["shape"] else entry["shape"]:
        bits *= extent
        if bits > MAX_TENSOR_BITS:
            raise ValueError("larger than any file")
    begin, stop = entry["data_offsets"]
    if type(begin) is not int or type(stop) is not int or not 0 <= begin <= stop:
        raise ValueError("offsets")
    return begin, stop, bits


def _refusal(path: Path, problem: str) -> InputError:
    return InputError(
        f"{path} {problem}", allowed=ALLOWED_TEXT, next_step="convert the weights to safetensors, or leave the file out"
    )
