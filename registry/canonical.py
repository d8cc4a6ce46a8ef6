"""One text for one value, and one value for one text: the canonical JSON that every digest is taken over."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

__all__ = ["MAX_NESTING", "canonical_json", "finite", "is_too_deep", "sha256_text", "without_repeats"]

# Deeper than any settings or report; whatever walks or writes a document by recursion can take this.
MAX_NESTING = 100

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: Any) -> str:
    """Serialise with sorted keys, no white space and no NaN, so that equal values have equal text.

    Raises:
        ValueError: A number is NaN or infinite.
        TypeError: A value has no JSON form.
    """
    return _ENCODER.encode(value)


def sha256_text(text: str) -> str:
    """Return the hex sha256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def finite(value: object) -> float | None:
    """Return a finite number, or None; True is no number here."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:  # JSON's whole numbers may be larger than any float
        return None


def is_too_deep(document: Any) -> bool:
    """Tell whether objects and lists lie in each other more than `MAX_NESTING` deep."""
    level: list[Any] = [[document]]
    for _ in range(MAX_NESTING + 1):
        inner = [value.values() if isinstance(value, Mapping) else value for value in level]
        level = [item for items in inner for item in items if isinstance(item, Mapping | list | tuple)]
        if not level:
            return False
    return True


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object's pairs as a mapping: `json.loads(text, object_pairs_hook=without_repeats)`.

    Of a name that stands twice one reader takes the first value, another the last.

    Raises:
        ValueError: A name stands twice.
    """
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name[:80]!r} stands in it twice")
        found[name] = value
    return found
