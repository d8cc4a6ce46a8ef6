"""The grammar of what callers type: model names, aliases and REFs. Pure text, no database.

REF := name | name:vN | name@alias | digest prefix of at least 12 hex digits.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

from registry.errors import ReferenceInvalid

__all__ = [
    "DIGEST_PREFIX_LENGTH",
    "LICENCE_LENGTH",
    "Reference",
    "check_actor",
    "check_alias",
    "check_bound",
    "check_name",
    "check_text",
    "is_digest",
    "is_digest_prefix",
    "looks_like_digest",
    "one_line",
    "parse_reference",
    "person",
]

DIGEST_PREFIX_LENGTH = 12
LICENCE_LENGTH = 256
ACTOR_LENGTH = 128
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_DIGEST_PREFIX = re.compile(rf"[0-9a-f]{{{DIGEST_PREFIX_LENGTH},64}}")
_NUMBER = re.compile(r"v[1-9][0-9]{0,8}")
# "latest" would read as the newest version, which is what a bare name means already.
_RESERVED_ALIASES = {"latest", "newest"}

# Control characters, line and paragraph separators, halves of surrogate pairs.
_CONTROLS = {"Cc", "Zl", "Zp", "Cs"}
# They turn the text behind them round, so that it is read as what it isn't; marks (U+200E) turn nothing.
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")
# Nothing is seen of them, though Unicode has them among letters and marks: fillers, joiners and variation selectors.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)

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
        ReferenceInvalid: Too long, with a line break or another control character, which would forge lines where it is
            printed, with one that turns the text behind it round, or with half of a surrogate pair in it.
    """
    if text is None:
        return
    # most are printable whole, which is told at once
    if not isinstance(text, str) or (
        not text.isprintable()
        and (_TURNS.search(text) or any(unicodedata.category(character) in _CONTROLS for character in text))
    ):
        raise ReferenceInvalid(
            f"{what} {str(text)[:40]!r} can't be kept",
            allowed="one line of text without control characters or ones that turn text round, valid as UTF-8",
        )
    if length is not None and len(text) > length:
        raise ReferenceInvalid(
            f"{what} {text[:40]!r}... has {len(text)} characters", allowed=f"at most {length} characters"
        )


def one_line(text: str | None, length: int) -> str | None:
    """Return a text of others, a licence of the hub's for instance, as `check_text` takes it."""
    if text is None or (text.isprintable() and len(text) <= length):
        return text
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:length].rstrip() or None


def person(actor: str) -> str:
    """Return the name that people see in an actor: two actors with the same one are one person.

    Compatible characters are one (NFKC), what can't be seen is left out, and white space is single spaces inside.
    """
    if actor.isascii() and actor.isprintable():  # most are, and nothing of the rest can be in them
        return " ".join(actor.split())
    while (seen := _seen(actor)) != actor:  # what stood apart may join once nothing unseen is between
        actor = seen
    return actor


def _seen(text: str) -> str:
    visible = _UNSEEN.sub("", unicodedata.normalize("NFKC", text))
    return " ".join("".join(c for c in visible if c.isprintable() or c.isspace()).split())


def check_actor(actor: str | None) -> None:
    """Refuse a name to act by that can't be kept, or that looks like another one.

    Args:
        actor: Who acts, or None where nobody was named.

    Raises:
        ReferenceInvalid: As `check_text`; empty; or white space at an end or twice in a row, invisible characters, or
            ones that are written in a simpler way.
    """
    check_text("actor", actor, ACTOR_LENGTH)
    if actor is None or (actor and actor == person(actor)):
        return
    seen = person(actor)
    raise ReferenceInvalid(
        f"actor {actor[:40]!a} would be taken for {seen!r}" if seen else f"actor {actor[:40]!a} is no name",
        allowed="a name without invisible characters or ligatures, and with single spaces inside alone",
        next_step=f"--actor {seen!r}, if that is who acts" if 0 < len(seen) <= ACTOR_LENGTH else "--actor NAME",
    )


def check_bound(what: str, value: int | None) -> None:
    """Refuse a number of rows, or one to begin behind, that counts nothing.

    Raises:
        ReferenceInvalid: Negative, larger than any row's number, or no whole number; None is no bound.
    """
    if value is not None and (type(value) is not int or not 0 <= value <= 2**53):
        raise ReferenceInvalid(f"{what} is {value!r}", allowed="a whole number, 0 or more")


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
    return _parsed(text)


@lru_cache(maxsize=256)  # an act reads the same one several times
def _parsed(text: str) -> Reference:
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
