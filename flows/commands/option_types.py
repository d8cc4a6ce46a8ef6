"""Types of options that click lacks."""

from __future__ import annotations

import math
from typing import Any

import click

__all__ = ["FRACTION"]


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


FRACTION = Fraction(0, 1)
