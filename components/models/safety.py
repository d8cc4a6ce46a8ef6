"""What may lie in a model folder: safetensors and allow-listed text, judged by content as well as by name.

Called before anything of the folder is imported, parsed by a framework or copied: at the base's door, at
registration and at the server's load.
"""

from __future__ import annotations

import json
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.errors import InputError

__all__ = [
    "ALLOWED_SUFFIXES",
    "chat_template",
    "check_base",
    "check_chat_template",
    "check_folder",
    "check_is_base",
    "weight_files",
]

# `.model` is a sentencepiece vocabulary (protobuf); names without a suffix are LICENSE, NOTICE and the like.
TEXT_SUFFIXES = frozenset({".json", ".jsonl", ".jinja", ".txt", ".md", ".yaml", ".yml"})
ALLOWED_SUFFIXES = frozenset({".safetensors", ".model"}) | TEXT_SUFFIXES
TEXT_NAMES = frozenset({"license", "notice", "readme", "use_policy", ".gitattributes", ".gitignore"})
# What downloading and version control leave beside a model; no loader reads it.
SKIPPED_FOLDERS = frozenset({".git", ".cache"})
# Keys that make a loader import code named by the folder.
CODE_KEYS = frozenset({"auto_map", "custom_pipelines", "trust_remote_code"})
MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive, as torch.save writes it around a pickle"),
    (b"PK\x05\x06", "a zip archive"),
    (b"\x7fELF", "an executable"),
    (b"MZ", "an executable"),
    (b"\x93NUMPY", "a numpy file, which may hold a pickle"),
    (b"\x89HDF", "an HDF5 file, which may hold code"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"GGUF", "a GGUF file"),
    (b"#!", "a script"),
)
MAX_SAFETENSORS_HEADER_BYTES = 100_000_000
ALLOWED_TEXT = "a folder of safetensors, JSON, tokenizer and template files, without code, pickles or links"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def check_folder(folder: Path) -> None:
    """Refuse a model or adapter folder that could run code or reach outside itself.

    Args:
        folder: The folder to judge. Nothing of it is imported or executed.

    Raises:
        InputError: A link, a pickle (by its bytes or its name), code, a file that isn't on the allow list, a
            safetensors file whose header doesn't fit its size, malformed JSON, `auto_map`, or a shard index that
            names a path outside the folder.
    """
    if not folder.is_dir():
        raise InputError(f"no model folder at {folder}", allowed=ALLOWED_TEXT, next_step="check the path")
    if folder.is_symlink():
        raise InputError(f"{folder} is a link", allowed=ALLOWED_TEXT, next_step=f"give {folder.resolve()} itself")
    for path in _files(folder):
        name = str(path.relative_to(folder))
        _check_kind(path, name)
        if path.suffix == ".safetensors":
            _check_safetensors(path)
        elif path.suffix == ".json":
            _check_json(path, name)


def check_chat_template(folder: Path) -> None:
    """Refuse a base without a usable chat template.

    Raises:
        InputError: No template, or one that isn't valid Jinja.
    """
    text = chat_template(folder)
    if not text:
        raise InputError(
            f"the base in {folder} has no chat template",
            allowed="chat_template.jinja, or `chat_template` in tokenizer_config.json",
            next_step="choose an instruction-tuned base, or add a chat template to its folder",
        )
    from jinja2 import TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    try:
        # parsed only; `generation` is the one tag that chat templates add to Jinja
        ImmutableSandboxedEnvironment(extensions=["jinja2.ext.loopcontrols"]).parse(
            text.replace("{% generation %}", "").replace("{% endgeneration %}", "")
        )
    except TemplateSyntaxError as error:
        raise InputError(
            f"the chat template of {folder} is not valid Jinja: {error.message} (line {error.lineno})",
            next_step="correct chat_template.jinja in the base's folder",
        ) from error


def check_is_base(folder: Path) -> None:
    """Refuse a folder that is no base model at all, whatever else lies in it.

    Raises:
        InputError: There is no config.json; an adapter's folder is told as that.
    """
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        raise InputError(
            f"{folder} has no config.json, so it is not a base model",
            allowed="a folder with config.json, *.safetensors and a tokenizer",
            next_step="it holds an adapter: name its base" if adapter else "name the folder that the base lies in",
        )


def check_base(folder: Path) -> None:
    """Refuse a folder that is not a complete, safe base: config, weights, tokenizer and chat template.

    Raises:
        InputError: As `check_is_base`, `check_folder` and `check_chat_template`, or a part is missing.
    """
    check_is_base(folder)
    check_folder(folder)
    weight_files(folder)
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise InputError(f"{folder} has no tokenizer", allowed=f"one of {', '.join(TOKENIZER_FILES)}")
    check_chat_template(folder)


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that hold a folder's weights, sorted by name.

    Raises:
        InputError: There is none, or one that the shard index names is missing.
    """
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    else:
        names = sorted(path.name for path in folder.glob("*.safetensors"))
    if not names:
        raise InputError(f"{folder} has no weights", allowed="*.safetensors", next_step="convert its weights first")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise InputError(
            f"{folder} lacks {', '.join(missing)}, which its shard index names",
            next_step="fetch the model again; the copy is not complete",
        )
    return [folder / name for name in names]


def chat_template(folder: Path) -> str | None:
    """Return the text of a folder's default chat template, where it has one.

    The file wins over tokenizer_config.json, as in transformers.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return None
    found = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
    if isinstance(found, list):  # older form: several named templates
        found = {entry.get("name"): entry.get("template") for entry in found}.get("default")
    return found if isinstance(found, str) and found.strip() else None


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder without following links; links and special files are refused."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda item: item.name):
            path = Path(entry.path)
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                raise InputError(f"{path} is a link", allowed=ALLOWED_TEXT, next_step="copy the file it points to")
            if stat.S_ISDIR(mode):
                if entry.name not in SKIPPED_FOLDERS:
                    yield from _files(path)
            elif stat.S_ISREG(mode):
                yield path
            else:
                raise InputError(f"{path} is neither a file nor a folder", allowed=ALLOWED_TEXT)


def _check_kind(path: Path, name: str) -> None:
    with path.open("rb") as stream:
        head = stream.read(16)
    # a pickle of protocol 2 and later opens with PROTO and its number
    if len(head) > 1 and head[0] == 0x80 and 2 <= head[1] <= 5 and path.suffix != ".safetensors":
        raise _refusal(path, "is a pickle, which can run any code when it is read")
    for magic, what in MAGIC:
        # the first bytes of safetensors are a length and may look like anything; its header is checked apart
        if head.startswith(magic) and path.suffix != ".safetensors":
            raise _refusal(path, f"is {what}")
    text = path.suffix.lower() in TEXT_SUFFIXES or path.name.lower() in TEXT_NAMES
    if not text and path.suffix not in ALLOWED_SUFFIXES:
        raise _refusal(path, f"is of a kind that is not allowed ({path.suffix or name})")
    if text:
        _check_text(path)


def _check_text(path: Path) -> None:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise _refusal(path, "is named as text, but is not UTF-8") from error
    if "\0" in text:
        raise _refusal(path, "is named as text, but holds zero bytes")


def _check_json(path: Path, name: str) -> None:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path} is not valid JSON: {error.msg} at line {error.lineno}", next_step="fetch the model again"
        ) from error
    # tokenizer.json is the one file that is large, and no loader looks for code keys in it
    if path.name != "tokenizer.json":
        found = _code_key(document)
        if found:
            raise InputError(
                f"{path} asks for code of its own through {found!r}",
                allowed="architectures that transformers itself has",
                next_step="choose a base that needs no remote code; it is never trusted here",
            )
    if name.endswith(".safetensors.index.json"):
        mapped = document.get("weight_map") if isinstance(document, dict) else None
        if not isinstance(mapped, dict) or not mapped:
            raise InputError(f"{path} has no weight_map", next_step="fetch the model again")
        for shard in mapped.values():
            if not isinstance(shard, str) or Path(shard).name != shard or "\\" in shard or shard in {"", ".", ".."}:
                raise InputError(f"{path} names the shard {shard!r}", allowed="plain file names in the same folder")


def _code_key(document: Any) -> str | None:
    if isinstance(document, dict):
        for key, value in document.items():
            if key in CODE_KEYS and value:
                return key
            # peft imports the library that this names
            if key == "auto_mapping" and isinstance(value, dict):
                library = str(value.get("parent_library") or "transformers")
                if library.split(".")[0] != "transformers":
                    return key
            found = _code_key(value)
            if found:
                return found
    elif isinstance(document, list):
        for value in document:
            found = _code_key(value)
            if found:
                return found
    return None


def _check_safetensors(path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as stream:
        prefix = stream.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else 0
        if not 2 <= length <= min(MAX_SAFETENSORS_HEADER_BYTES, size - 8):
            raise _refusal(path, "is not safetensors (its header's length doesn't fit)")
        raw = stream.read(length)
    try:
        header = json.loads(raw)
        ends = [entry["data_offsets"][1] for key, entry in header.items() if key != "__metadata__"]
        expected = 8 + length + max([int(end) for end in ends], default=0)
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise _refusal(path, "is not safetensors (its header can't be read)") from error
    if expected != size:
        raise _refusal(path, f"is cut short or padded: {size} bytes, its header says {expected}")


def _refusal(path: Path, problem: str) -> InputError:
    return InputError(
        f"{path} {problem}", allowed=ALLOWED_TEXT, next_step="convert the weights to safetensors, or leave the file out"
    )
