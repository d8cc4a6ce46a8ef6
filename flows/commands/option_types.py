"""Types of options that click lacks."""

from __future__ import annotations

import math
import re
from typing import Any

import click

__all__ = ["DURATION", "FRACTION", "WORDS"]

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class Fraction(click.FloatRange):
    """A number from 0 to 1; click's own range lets nan through, which is neither below nor above anything."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number.

        Raises:
            click.BadParameter: It is none, or none from 0 to 1.
        """
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not 0 <= number <= 1:
            self.fail(f"{value!r} is not a number from 0 to 1", param, ctx)
        return number


class Words(click.types.StringParamType):
    """Text with something in it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the text.

        Raises:
            click.BadParameter: It is empty, or white space.
        """
        if not str(value).strip():
            self.fail("an empty text says nothing; leave the option out, or fill it in", param, ctx)
        return super().convert(value, param, ctx)


class Duration(click.types.StringParamType):
    """A length of time with its unit: `7d`, `12h`, `30m`, `45s`, or 0."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the seconds.

        Raises:
            click.BadParameter: It is no number with a unit.
        """
        found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smhd])|0", str(value))
        if found is None:
            self.fail(f"{value!r} is not a length of time; write 7d, 12h, 30m, 45s or 0", param, ctx)
        return 0.0 if found[1] is None else float(found[1]) * _SECONDS[found[2]]


DURATION = Duration()
FRACTION = Fraction(0, 1)
WORDS = Words()
