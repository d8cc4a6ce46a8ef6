"""The grammar of what callers type: model names, aliases and REFs. Pure text, no database.

REF := name | name:vN | name@alias | digest prefix of at least 12 hex digits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from registry.errors import ReferenceInvalid

__all__ = [
    "DIGEST_PREFIX_LENGTH",
    "Reference",
    "check_alias",
    "check_name",
    "check_text",
    "is_digest",
    "is_digest_prefix",
    "looks_like_digest",
    "parse_reference",
]

DIGEST_PREFIX_LENGTH = 12
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_DIGEST_PREFIX = re.compile(rf"[0-9a-f]{{{DIGEST_PREFIX_LENGTH},64}}")
_NUMBER = re.compile(r"v[1-9][0-9]{0,8}")
# "latest" would read as the newest version, which is what a bare name means already.
_RESERVED_ALIASES = {"latest", "newest"}

GRAMMAR = "name, name:vN, name@alias, or at least 12 hex digits of a version digest"


@dataclass(frozen=True, slots=True)
class Reference:
    """A parsed REF: exactly one of number, alias and digest_prefix is set, or none (the newest version of name)."""

    text: str
    name: str | None = None
    number: int | None = None
    alias: str | None = None
    digest_prefix: str | None = None


def is_digest(value: object) -> bool:
    """Say whether a value is a whole sha256 in lower-case hex."""
    return isinstance(value, str) and len(value) == 64 and _DIGEST_PREFIX.fullmatch(value) is not None


def is_digest_prefix(value: object) -> bool:
    """Say whether a value is the start of a sha256 in lower-case hex, long enough to be taken for one."""
    return isinstance(value, str) and _DIGEST_PREFIX.fullmatch(value) is not None


def looks_like_digest(text: str) -> bool:
    """Say whether a text may be the start of a digest, though too short to be taken for one."""
    return len(text) < DIGEST_PREFIX_LENGTH and re.fullmatch(r"[0-9a-f]{4,}", text.lower()) is not None


def check_name(name: str) -> str:
    """Return a model name that the grammar allows.

    Raises:
        ReferenceInvalid: Other characters, too long, or mistakable for a digest.
    """
    if not isinstance(name, str) or len(name) > 128 or not _NAME.fullmatch(name):
        raise ReferenceInvalid(
            f"model name {name!r} can't be used",
            allowed="letters, digits, '.', '_' and '-', one '/' inside, at most 128 characters",
        )
    if _DIGEST_PREFIX.fullmatch(name.lower()):
        raise ReferenceInvalid(
            f"model name {name!r} reads as a digest", allowed="a name with a character that is not a hex digit"
        )
    return name


def check_alias(alias: str) -> str:
    """Return an alias that the grammar allows.

    Raises:
        ReferenceInvalid: Other characters, or mistakable for a version number.
    """
    if not isinstance(alias, str) or not _ALIAS.fullmatch(alias) or _NUMBER.fullmatch(alias):
        raise ReferenceInvalid(
            f"alias {alias!r} can't be used",
            allowed="a lower-case letter, then letters, digits, '_' and '-', at most 64; not v1, v2, ...",
        )
    if alias in _RESERVED_ALIASES:
        raise ReferenceInvalid(
            f"alias {alias!r} is reserved", allowed="another word; a bare name is its newest version already"
        )
    return alias


def check_text(what: str, text: str | None, length: int | None = None) -> None:
    """Refuse a text that one of the databases wouldn't keep as it is.

    Args:
        what: What it is, for the message.
        text: The text, or None where there is none.
        length: How many characters there is room for.

    Raises:
        ReferenceInvalid: Too long, or with NUL or half of a surrogate pair in it.
    """
    if text is None:
        return
    if not isinstance(text, str) or "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ReferenceInvalid(f"{what} {str(text)[:40]!r} can't be kept", allowed="text without NUL, valid as UTF-8")
    if length is not None and len(text) > length:
        raise ReferenceInvalid(
            f"{what} {text[:40]!r}... has {len(text)} characters", allowed=f"at most {length} characters"
        )


def parse_reference(text: str) -> Reference:
    """Read a REF without looking anything up.

    Args:
        text: What the caller typed.

    Returns:
        Its parts; a bare name stands for the newest version of that name.

    Raises:
        ReferenceInvalid: The text follows none of the four forms.
    """
    if not isinstance(text, str) or not text:
        raise ReferenceInvalid("an empty reference names no version", allowed=GRAMMAR)
    if "@" in text:
        name, _, alias = text.partition("@")
        return Reference(text, name=check_name(name), alias=check_alias(alias))
    if ":" in text:
        name, _, number = text.partition(":")
        if not _NUMBER.fullmatch(number):
            raise ReferenceInvalid(f"reference {text!r} has no version number after ':'", allowed=GRAMMAR)
        return Reference(text, name=check_name(name), number=int(number[1:]))
    if _DIGEST_PREFIX.fullmatch(text.lower()):
        return Reference(text, digest_prefix=text.lower())
    try:
        return Reference(text, name=check_name(text))
    except ReferenceInvalid as error:
        raise ReferenceInvalid(f"reference {text!r} follows no known form", allowed=GRAMMAR) from error
