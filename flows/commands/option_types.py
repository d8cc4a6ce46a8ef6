"""Types of options that click lacks."""

from __future__ import annotations

import math
from typing import Any

import click

__all__ = ["FRACTION", "WORDS"]


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


FRACTION = Fraction(0, 1)
WORDS = Words()
