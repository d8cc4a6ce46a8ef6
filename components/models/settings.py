"""Settings that make a loader take something else than the files that are judged, fingerprinted and signed.

`registry` and `components.models` each have this module, since neither may import the other; a test holds both to one
text.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import PurePath
from typing import Any

__all__ = ["TOKENIZER", "hides_template", "odd_setting", "vocabulary_elsewhere"]

SPECIAL_TOKENS, TOKENIZER = "special_tokens_map.json", "tokenizer_config.json"
# By these transformers takes another config, tokenizer or weights than the files that the digests are of.
ALTERNATIVES = ("configuration_files", "fast_tokenizer_files", "transformers_weights")
# A tokenizer's arguments that name files, by how they end. They are opened as they stand: outside the folder, too.
FILE_ENDINGS = ("_file", "_files", "_path")
# These are text where they are a path, else the vocabulary itself.
FILE_OR_CONTENT = ("merges", "vocab")
# transformers 4 left here where a slow tokenizer had its tokenizer.json. From 5.20 on the folder's own replaces it for
# every class, or nothing where the folder has none; deeper in the settings it may be an argument of something else.
REPLACED = ("tokenizer_file",)
# Where a tokenizer.json is there, no class reads these from the settings, whatever they name: those that read any have
# the folder's own put in their place, or nothing, and all others take the tokenizer.json.
REPLACED_BESIDE_JSON, TOKENIZER_JSON = ("merges_file", "spm_file", "vocab_file"), "tokenizer.json"
# Where there is none but a tokenizer.model, transformers puts that in the place of the one or the other for every
# class, and what the class itself names in the place of the other.
REPLACED_BESIDE_MODEL, TOKENIZER_MODEL = ("spm_file", "vocab_file"), "tokenizer.model"
# No arguments: how an answer is read back, which may speak of anything, and tokens by their ids.
NO_ARGUMENTS = ("added_tokens_decoder", "response_schema", "response_template")
# What saving leaves behind and nothing reads: where the special tokens were, and where the model itself was.
LEFT_BEHIND = ("special_tokens_map_file", "name_or_path", "_name_or_path")
# Lists of tokens, or tokens by name; every other token has a key of its own that ends in `_token`.
TOKEN_GROUPS = ("additional_special_tokens", "extra_special_tokens", "model_specific_special_tokens")
# Old versions wrote ids of tokens beside them. A number under such a key names no file, and is in the digest.
ID_ENDINGS = ("_id", "_ids")
TOKEN_FIELDS = frozenset({"content", "lstrip", "normalized", "rstrip", "single_word", "special", "__type"})
# transformers reads the templates beside the default one from there, and lets them win over chat_template.jinja.
HIDDEN_TEMPLATE = ("additional_chat_templates", "default.jinja")
# Files that hold a vocabulary, and where: some classes open what stands there as text, as a path.
HELD = {TOKENIZER_JSON: (("model", "vocab"),), "byte_maps.json": (("decompose_map",), ("merge_map",))}


def hides_template(path: PurePath) -> bool:
    """Say whether a file takes the place of chat_template.jinja, which alone has a digest."""
    return tuple(part.lower() for part in path.parts[-2:]) == HIDDEN_TEMPLATE


def odd_setting(name: str, document: Any, beside: Collection[str] = ()) -> str | None:
    """Find a setting that has a loader take what nobody looked at.

    Args:
        name: The file's name, without its folder; file systems may ignore its case.
        document: What the file holds as JSON.
        beside: Names of all that lies in its folder, those of folders with a slash behind; asked for `TOKENIZER` alone.

    Returns:
        What is wrong and what to do, as the end of a sentence that begins with the file; None where nothing is.
    """
    for key, value in _settings(document):
        if key in ALTERNATIVES and value:
            return (
                f"has {key!r}, by which transformers takes another file than the one that is fingerprinted; export the "
                "model with the present version of transformers, which writes one of each, or take the key out"
            )
    if name.lower() in {SPECIAL_TOKENS, TOKENIZER} and isinstance(document, dict):
        if odd := _token_named_as_file(document):
            return odd
        return _no_token(document) if name.lower() == SPECIAL_TOKENS else _named_file(document, beside)
    return None


def vocabulary_elsewhere(name: str, document: Any) -> str | None:
    """Find a path where a vocabulary should be.

    Args:
        name: As for `odd_setting`.
        document: As for `odd_setting`.

    Returns:
        As `odd_setting`.
    """
    for keys in HELD.get(name.lower(), ()):
        held = document
        for key in keys:
            held = held.get(key) if isinstance(held, dict) else None
        if isinstance(held, str):
            return (
                f"has text as {'.'.join(keys)!r}, which a tokenizer may open as a path; put the vocabulary itself "
                "there, as transformers writes it"
            )
    return None


def _token_named_as_file(document: dict[str, Any]) -> str | None:
    """Find a token of a file's name: as an attribute the two are one, and where the folder lies becomes a token."""
    for group in TOKEN_GROUPS:
        tokens = document.get(group)
        for key in tokens if isinstance(tokens, dict) else ():
            if key.endswith(FILE_ENDINGS):
                return (
                    f"names a token {key!r} in {group!r}, and a tokenizer keeps the path of a file by such a name; "
                    "give the token a name that ends in _token"
                )
    return None


def _named_file(document: dict[str, Any], beside: Collection[str]) -> str | None:
    """Find a tokenizer's argument by which it would read a file of the document's choice."""
    arguments = {
        key: value
        for key, value in document.items()
        if key not in (*REPLACED, *NO_ARGUMENTS)
        and not (key in TOKEN_GROUPS and _are_tokens(value))
        and not _is_replaced(key, value, beside)
    }
    for key, value in _settings(arguments):
        named = key.endswith(FILE_ENDINGS) or (key in FILE_OR_CONTENT and isinstance(value, str))
        # by position an argument has no name to tell it by
        if value and (named or key == "init_inputs") and key not in LEFT_BEHIND:
            return (
                f"has {key!r}, by which a tokenizer may read any file, of this folder or outside; take it out: "
                "transformers finds the tokenizer's own files in the folder without it"
                + (f", or put a {TOKENIZER_JSON} beside it" if key in REPLACED_BESIDE_JSON and key in arguments else "")
            )
    return None


def _is_replaced(key: str, value: Any, beside: Collection[str]) -> bool:
    """Say whether an argument is one that is never read, beside what lies in the folder."""
    if not isinstance(value, str):
        return False
    if TOKENIZER_JSON in beside:
        return key in REPLACED_BESIDE_JSON
    # transformers looks for the name of tokenizer.json in all the names there, as one text
    return (
        key in REPLACED_BESIDE_MODEL
        and TOKENIZER_MODEL in beside
        and not any(TOKENIZER_JSON in other for other in beside)
    )


def _settings(document: Any) -> Iterator[tuple[str, Any]]:
    """Yield every key with its value, however deep."""
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from value.items()
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _no_token(document: dict[str, Any]) -> str | None:
    """Find what is no special token: transformers takes every key as a setting, and lets it win over all others."""
    for key, value in document.items():
        if (key.endswith("_token") and _is_token(value)) or (key in TOKEN_GROUPS and _are_tokens(value)):
            continue
        ids = value if isinstance(value, list) else [value]
        if key.endswith(ID_ENDINGS) and all(one is None or type(one) is int for one in ids):
            continue
        return (
            f"has {key!r}, which is no special token; it may hold keys that end in _token and "
            f"{', '.join(TOKEN_GROUPS)}, with tokens, and keys that end in _id, with numbers; take it out"
            + (", and put the template in chat_template.jinja" if key == "chat_template" else "")
        )
    return None


def _are_tokens(value: Any) -> bool:
    """Say whether a group of tokens holds nothing else: a list of them, or tokens by name."""
    grouped = value.values() if isinstance(value, dict) else value
    return value is None or (isinstance(value, list | dict) and all(map(_is_token, grouped)))


def _is_token(value: Any) -> bool:
    if isinstance(value, dict):
        flags = [inner for field, inner in value.items() if field not in {"content", "__type"}]
        return (
            value.keys() <= TOKEN_FIELDS
            and isinstance(value.get("content"), str)
            and all(isinstance(flag, bool) for flag in flags)
        )
    return value is None or isinstance(value, str)
