"""Numbers and untrusted text as people read them. Used by the HTML report, its markdown twin and the terminal summary.

Fractions come in, percentages and points (differences of percentages) go out; what is missing reads as a dash.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from components.files import canonical_json

__all__ = [
    "ABSENT",
    "count",
    "duration",
    "interval",
    "number",
    "percent",
    "plain",
    "points",
    "ratio",
    "short",
    "size",
    "unbroken",
    "value",
]

ABSENT = "–"
MINUS = "−"
# Control characters could move a terminal's cursor or end an HTML document early; bidirectional overrides could make
# a model's answer read as something else. Line feed and tab stay.
_UNSAFE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_UNIT_SPACE = re.compile(r"(?<=\d) (?=(?:%|[KMGT]?i?B|s|min|h|points|rows)\b|%)|(?<=\bn) (?== )|(?<=\bn =) ")


def plain(text: object) -> str:
    """Return text that is safe on a terminal and in a page: each control or direction character becomes U+FFFD."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", str(text).replace("\r\n", "\n"))


def _finite(quantity: object) -> float | None:
    if isinstance(quantity, bool) or not isinstance(quantity, int | float):
        return None
    try:
        return float(quantity) if math.isfinite(quantity) else None
    except OverflowError:  # JSON's whole numbers may be larger than any float
        return None


def percent(fraction: object) -> str:
    """Render a fraction as a percentage: 0.3281 is `32.8 %`."""
    known = _finite(fraction)
    return ABSENT if known is None else f"{known * 100:.1f} %".replace("-", MINUS)


def points(fraction: object) -> str:
    """Render a difference of fractions as signed percentage points: -0.031 is `−3.1`."""
    known = _finite(fraction)
    if known is None:
        return ABSENT
    rounded = round(known * 100, 1)
    return "0.0" if rounded == 0 else f"{rounded:+.1f}".replace("-", MINUS)


def interval(low: object, high: object, *, signed: bool = False) -> str:
    """Render a 95 % interval of fractions, as percentages or, when signed, as points: `−1.2 to +4.0`."""
    if _finite(low) is None or _finite(high) is None:
        return ABSENT
    if signed:
        return f"{points(low)} to {points(high)}"
    return f"{percent(low).removesuffix(' %')} to {percent(high)}"


def unbroken(text: object) -> str:
    """Keep numbers on one line with their units, by no-break spaces: for running text in the page."""
    return _UNIT_SPACE.sub("\N{NO-BREAK SPACE}", plain(text))


def count(quantity: object) -> str:
    """Render a count with thousands separated: 134515008 is `134,515,008`."""
    known = _finite(quantity)
    return ABSENT if known is None else f"{known:,.0f}".replace("-", MINUS)


def number(quantity: object) -> str:
    """Render any number with at most four significant digits after the leading ones: 0.00031 stays 0.00031."""
    known = _finite(quantity)
    if known is None:
        return ABSENT
    if known == int(known) and abs(known) < 1e15:
        return count(known)
    return f"{known:.4g}".replace("-", MINUS, 1) if known < 0 else f"{known:.4g}"


def ratio(above: object, below: object) -> str:
    """Render a quotient with two decimals: `1.07`."""
    top, bottom = _finite(above), _finite(below)
    return ABSENT if top is None or not bottom else f"{top / bottom:.2f}"


def size(byte_count: object) -> str:
    """Render bytes in binary units: 1288490188 is `1.20 GiB`."""
    known = _finite(byte_count)
    if known is None:
        return ABSENT
    unit = "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if abs(known) < 1024:
            break
        known, unit = known / 1024, larger
    return f"{known:.0f} {unit}" if unit == "B" else f"{known:.{2 if known < 10 else 1 if known < 100 else 0}f} {unit}"


def duration(seconds: object) -> str:
    """Render seconds as people say them: `0.42 s`, `58.3 s`, `4 min 12 s`, `1 h 03 min`."""
    known = _finite(seconds)
    if known is None:
        return ABSENT
    if known < 10:
        return f"{known:.2f} s"
    if known < 59.95:
        return f"{known:.1f} s"
    whole = round(known)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def short(digest: object) -> str:
    """Return the first 12 characters of a digest: enough to name it on the command line."""
    return plain(digest).removeprefix("sha256:")[:12] if digest else ABSENT


def value(anything: object) -> str:
    """Render a recipe or gate value of unknown type, without losing digits that a reader may want to copy."""
    if anything is None:
        return ABSENT
    if isinstance(anything, bool):
        return "yes" if anything else "no"
    if isinstance(anything, float):
        return f"{anything:.6g}"
    if isinstance(anything, Mapping | Sequence) and not isinstance(anything, str):
        simple: Any = anything
        if isinstance(anything, Sequence) and all(isinstance(item, str) for item in anything):
            return plain(", ".join(anything))
        return plain(canonical_json(simple))
    return plain(anything)
