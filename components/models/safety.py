"""What may lie in a model folder: safetensors and allow-listed text, judged by content as well as by name.

Called before anything of the folder is imported, parsed by a framework or copied: at the base's door, at
registration and at the server's load. `scan.py` judges the files.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from components.errors import InputError, TunewrightError
from components.models.scan import ALLOWED_TEXT, check_file
from components.models.template_sandbox import CARRIERS, SandboxFailed, hostile_template, templates_in

__all__ = [
    "chat_template",
    "check_base",
    "check_chat_template",
    "check_folder",
    "check_is_base",
    "weight_files",
]

# What downloading and version control leave beside a model; no loader reads it.
SKIPPED_FOLDERS = frozenset({".git", ".cache"})
MAX_SEGMENTS = 8  # of a file's path inside the folder, as the registry takes it
WHOLE_WEIGHTS = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


def check_folder(folder: Path) -> None:
    """Refuse a model or adapter folder that could run code or reach outside itself.

    Args:
        folder: The folder to judge. Nothing of it is imported or executed. Hidden files are left out.

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
        check_file(path)


def check_chat_template(folder: Path) -> None:
    """Refuse a base without a usable chat template, and one with a hostile template anywhere in its folder.

    Raises:
        InputError: No template; or one that isn't Jinja, reaches out of its sandbox, takes too much time, memory or
            output; or a default one that renders no conversation.
        TunewrightError: The process in which they are rendered could not be started, failed by itself, or was ended.
    """
    text = chat_template(folder)
    if not text:
        raise InputError(
            f"the base in {folder} has no chat template",
            allowed="chat_template.jinja, or `chat_template` in tokenizer_config.json",
            next_step="choose an instruction-tuned base, or add a chat template to its folder",
        )
    templates: dict[str, str] = {}
    for path in _files(folder):
        if path.suffix.lower() == ".jinja" or path.name.lower() in CARRIERS:
            templates.update(templates_in(path.relative_to(folder).as_posix(), path.read_text(encoding="utf-8")))
    try:
        hostile = _hostile(tuple(templates.items()))
    except SandboxFailed as error:
        raise TunewrightError(
            str(error),
            next_step="run again once memory, processor and temporary files have room; if it stays, check that jinja2 "
            "is installed for this Python",
        ) from error
    if hostile:
        label, problem = hostile
        raise InputError(
            f"{label} in {folder} {problem}",
            allowed="chat templates that render short conversations within the limits",
            next_step="correct the template in the base's folder, or choose another base",
        )


@lru_cache(maxsize=64)
def _hostile(templates: tuple[tuple[str, str], ...]) -> tuple[str, str] | None:
    """Render once in a process for the same templates: a base is checked wherever it is located or loaded.

    What the child found is kept; where it failed by itself an exception says so, which no cache keeps.
    """
    return hostile_template(dict(templates))


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
        InputError: There is none, one that the shard index names is missing, or others would be loaded: a whole
            file beside an index, or an adapter.
    """
    index = folder / "model.safetensors.index.json"
    if (folder / "adapter_config.json").is_file():
        # transformers lays it over the weights by itself, and no digest of a base is taken of its settings
        raise InputError(
            f"{folder} holds adapter_config.json, by which an adapter would be laid over its weights",
            allowed="a base without an adapter; an adapter in a folder of its own",
            next_step="move adapter_config.json and adapter_model.safetensors to another folder",
        )
    if index.is_file():
        # transformers takes the whole file, and the index, which names other weights, counts for nothing
        if (folder / WHOLE_WEIGHTS).is_file():
            raise InputError(
                f"{folder} has {WHOLE_WEIGHTS} and a shard index: its weights could be either",
                allowed="one file of weights, or shards with an index",
                next_step=f"remove {WHOLE_WEIGHTS} or {index.name}, whichever isn't the model's",
            )
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


def _files(folder: Path, depth: int = 0) -> Iterator[Path]:
    """Yield every file below a folder without following links, hidden ones left out; what is no file is refused."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda item: item.name):
            path = Path(entry.path)
            mode = entry.stat(follow_symlinks=False).st_mode
            if stat.S_ISLNK(mode):
                raise InputError(f"{path} is a link", allowed=ALLOWED_TEXT, next_step="copy the file it points to")
            if stat.S_ISDIR(mode):
                if entry.name in SKIPPED_FOLDERS:
                    continue
                if depth == MAX_SEGMENTS - 1:
                    raise InputError(f"{path} lies deeper than any file of a model", allowed=ALLOWED_TEXT)
                yield from _files(path, depth + 1)
            elif stat.S_ISREG(mode):
                # what a desktop or version control leaves beside a model; no loader reads it, and it is never stored
                if not entry.name.startswith("."):
                    yield path
            else:
                raise InputError(f"{path} is neither a file nor a folder", allowed=ALLOWED_TEXT)
