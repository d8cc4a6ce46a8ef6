"""What a base is, as three digests: weights with architecture, tokenizer, chat template with what ends an answer.

An adapter carries the digests of the base that it was trained on; loading, registering and serving compare them, so
that another base with the same shapes is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.files import digest_of, sha256_file, write_json
from components.models.rope import RopeScaling
from components.models.safety import chat_template, weight_files

__all__ = [
    "BINDING_FILE",
    "Fingerprint",
    "base_files",
    "belongs_to_base",
    "check_binding",
    "file_digest",
    "fingerprint",
    "parse_binding",
    "read_binding",
    "read_rope_scaling",
    "write_binding",
]

BINDING_FILE = "tunewright.json"

# Config keys that say how a model is used or was saved, not what it computes.
NOT_ARCHITECTURE = frozenset(
    {
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_attn_implementation_internal",
        "_name_or_path",
        "dtype",
        "id2label",
        "label2id",
        "output_attentions",
        "output_hidden_states",
        "return_dict",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
TOKENIZER_FILES = (
    "added_tokens.json",
    "merges.txt",
    "special_tokens_map.json",
    "spiece.model",
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
)
# Vocabularies of few classes, which `tokenizer_config.json` may ask for beside any model.
RARE_TOKENIZER_FILES = (
    "byte_maps.json",
    "dict.txt",
    "emoji.json",
    "entity_vocab.json",
    "normalizer.json",
    "target_vocab.json",
    "vocab-src.json",
    "vocab-tgt.json",
    "word_pronunciation.json",
    "word_shape.json",
)
# Classes, without "Fast" at the end, that transformers makes from tokenizer.json alone where there is one. Old
# vocabularies often lie beside it, and adapters are bound to digests that were taken without those.
FROM_JSON_ALONE = frozenset(
    {
        "AlbertTokenizer",
        "BarthezTokenizer",
        "BertTokenizer",
        "BloomTokenizer",
        "CamembertTokenizer",
        "CodeGenTokenizer",
        "CodeLlamaTokenizer",
        "CohereTokenizer",
        "DebertaV2Tokenizer",
        "GPT2Tokenizer",
        "GPTNeoXTokenizer",
        "GemmaTokenizer",
        "LlamaTokenizer",
        "MBartTokenizer",
        "NllbTokenizer",
        "PegasusTokenizer",
        "PreTrainedTokenizer",
        "Qwen2Tokenizer",
        "RemBertTokenizer",
        "RobertaTokenizer",
        "T5Tokenizer",
        "TokenizersBackend",
        "XGLMTokenizer",
        "XLMRobertaTokenizer",
        "XLNetTokenizer",
    }
)
# Read where there is no tokenizer.json. Beside one it lies with many a Mistral, and counts where the settings ask for a
# class of mistral-common's: with `mistral_format=False`, as tokenizers are loaded here, no other reads it then.
TEKKEN, TEKKEN_CLASSES = "tekken.json", "MistralCommon"
# What a base consists of besides TOKENIZER_FILES: loaders read these, or its licence asks for them to go with it.
BASE_SUFFIXES = frozenset({".json", ".safetensors", ".jinja", ".model"})
LICENCE_STEMS = frozenset({"licence", "license", "notice", "use_policy"})
# tokenizer_config.json keys that don't change which ids a text gets; the template has a digest of its own.
NOT_TOKENIZER = frozenset({"chat_template", "name_or_path", "processor_class", "transformers_version", "is_local"})


@dataclass(frozen=True)
class Fingerprint:
    """Three hex sha256.

    Attributes:
        base: Over the sorted digests of the weight files and the architecture part of the config.
        tokenizer: Over the vocabulary files and the tokenizer's settings.
        template: Over the text of the chat template, empty where there is none, and the ids that end an answer.
    """

    base: str
    tokenizer: str
    template: str


def fingerprint(folder: Path, digest: Callable[[Path], str] | None = None) -> Fingerprint:
    """Compute the digests of a base folder.

    Weight files are read in full, once in a process for each state (size and time) of the files.

    Args:
        folder: A folder with config.json and safetensors.
        digest: Gives a file's hex sha256; by default `file_digest`, which trusts the file's size and time.

    Returns:
        The three digests. They don't depend on where the folder lies or what it is called.

    Raises:
        InputError: No config.json or no weights.
    """
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise InputError(f"{folder} has no config.json, so it has no base fingerprint")
    config = json.loads(config_file.read_text(encoding="utf-8"))
    digest = digest or file_digest
    weights = sorted(digest(path) for path in weight_files(folder))
    architecture = _without(config, NOT_ARCHITECTURE)
    settings_file = folder / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text(encoding="utf-8")) if settings_file.is_file() else {}
    named = str(settings.get("tokenizer_class") or config.get("tokenizer_class") or "")
    vocabulary: dict[str, Any] = {name: digest(folder / name) for name in _vocabulary_files(folder, named)}
    vocabulary["settings"] = _without(settings, NOT_TOKENIZER)
    return Fingerprint(
        base=digest_of({"weights": weights, "architecture": architecture}),
        tokenizer=digest_of(vocabulary),
        template=digest_of({"text": chat_template(folder) or "", "stops": _stop_ids(folder, config)}),
    )


def base_files(folder: Path) -> dict[str, Path]:
    """Return the files that make a base, without what only describes it.

    Args:
        folder: A folder that `check_folder` let through.

    Returns:
        File name -> file, sorted by name; weights, configs, tokenizer, templates and licence.
    """
    return {path.name: path for path in sorted(folder.iterdir()) if path.is_file() and belongs_to_base(path.name)}


def belongs_to_base(name: str) -> bool:
    """Say whether a file directly in a base's folder is part of the base, by its name."""
    return not name.startswith(".") and (
        Path(name).suffix.lower() in BASE_SUFFIXES
        or name in TOKENIZER_FILES
        or name in RARE_TOKENIZER_FILES
        or name.split(".")[0].lower() in LICENCE_STEMS
    )


def write_binding(adapter: Path, base: Fingerprint, rope_scaling: RopeScaling | None = None) -> Path:
    """Record beside an adapter which base it belongs to, and how that base's positions were scaled in training.

    Args:
        adapter: Folder with adapter_config.json.
        base: Digests of the base that it was trained on, which is unscaled on disk.
        rope_scaling: The scaling in training.

    Returns:
        The file written.
    """
    path = adapter / BINDING_FILE
    write_json(
        path,
        {
            "base_fingerprint": base.base,
            "tokenizer_digest": base.tokenizer,
            "template_digest": base.template,
            "rope_scaling": rope_scaling.to_record() if rope_scaling is not None else None,
        },
    )
    return path


def read_binding(adapter: Path) -> Fingerprint:
    """Read which base an adapter belongs to.

    Raises:
        InputError: The record is missing or malformed.
    """
    return _binding(adapter)[0]


def read_rope_scaling(adapter: Path) -> RopeScaling | None:
    """Read how the base's positions were scaled when an adapter was trained; None: not at all.

    Raises:
        InputError: The record is missing or malformed, or names a scaling that isn't known.
    """
    # bindings from before there was scaling have no such key
    return RopeScaling.from_record(_binding(adapter)[1].get("rope_scaling"))


def parse_binding(content: bytes, adapter: Path) -> tuple[Fingerprint, RopeScaling | None]:
    """Read both from a record that has been read already.

    Args:
        content: What `BINDING_FILE` holds.
        adapter: Where it was found, for errors.

    Raises:
        InputError: As `read_binding` and `read_rope_scaling`.
    """
    binding, record = _parsed(content, adapter)
    return binding, RopeScaling.from_record(record.get("rope_scaling"))


def _binding(adapter: Path) -> tuple[Fingerprint, dict[str, Any]]:
    path = adapter / BINDING_FILE
    return _parsed(path.read_bytes() if path.is_file() else b"", adapter)


def _parsed(content: bytes, adapter: Path) -> tuple[Fingerprint, dict[str, Any]]:
    try:
        record = json.loads(content.decode())
        digests = [record[key] for key in ("base_fingerprint", "tokenizer_digest", "template_digest")]
        if not all(isinstance(digest, str) for digest in digests):
            raise TypeError("a digest that is no text")
        return Fingerprint(*digests), record
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"the adapter in {adapter} doesn't say which base it was trained on",
            allowed=f"{BINDING_FILE} with base_fingerprint, tokenizer_digest and template_digest",
            next_step="use an adapter that this project trained or registered",
        ) from error


def check_binding(adapter: Path, base_folder: Path) -> None:
    """Refuse an adapter that was trained on another base, tokenizer or chat template.

    Raises:
        InputError: No record, or a digest differs.
    """
    recorded, present = read_binding(adapter), fingerprint(base_folder)
    for what, one, other in (
        ("base", recorded.base, present.base),
        ("tokenizer", recorded.tokenizer, present.tokenizer),
        ("chat template", recorded.template, present.template),
    ):
        if one != other:
            raise InputError(
                f"the adapter in {adapter} was trained on another {what}: it records {one[:12]}, "
                f"{base_folder} has {other[:12]}",
                allowed="exactly the base that the adapter was trained on",
                next_step="load it with that base, or train it again on this one",
            )


def file_digest(path: Path) -> str:
    """Return the hex sha256 of a file, read once in a process for each state (size, time, inode) of the file."""
    state = path.stat()
    return _digest_of_state(str(path.resolve()), state.st_size, state.st_mtime_ns, state.st_ino)


@lru_cache(maxsize=1024)
def _digest_of_state(path: str, size: int, mtime_ns: int, inode: int) -> str:  # noqa: ARG001  (the key of the cache)
    return sha256_file(Path(path))


def _vocabulary_files(folder: Path, named: str) -> list[str]:
    """Return the names of the files that transformers may read a vocabulary from; a sentencepiece model has any.

    Args:
        folder: The base's.
        named: The class of tokenizers that its settings ask for, or nothing.
    """
    names = {name for name in TOKENIZER_FILES if (folder / name).is_file()}
    if "tokenizer.json" in names and named.removesuffix("Fast") in FROM_JSON_ALONE:
        return sorted(names)
    names |= {path.name for path in folder.glob("*.model") if path.is_file() and path.name[0] != "."}
    names |= {name for name in RARE_TOKENIZER_FILES if (folder / name).is_file()}
    if ("tokenizer.json" not in names or named.startswith(TEKKEN_CLASSES)) and (folder / TEKKEN).is_file():
        names.add(TEKKEN)
    return sorted(names)


def _stop_ids(folder: Path, config: dict[str, Any]) -> list[int]:
    """Return the configured end-of-text ids, which transformers takes from the config where no other file is there."""
    file = folder / "generation_config.json"
    source = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else config
    found = source.get("eos_token_id")
    return sorted(found) if isinstance(found, list) else [] if found is None else [found]


def _without(document: dict[str, Any], keys: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in document.items() if key not in keys}
