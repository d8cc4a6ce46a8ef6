"""What every command shares: the `--json` option, and one document on standard output."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

__all__ = ["emit", "json_option", "note"]

json_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print one JSON document on standard output, everything else on standard error.",
)


def note(text: str) -> None:
    """Say something to the person: standard error, so that `--json` output stays one document."""
    click.echo(text, err=True)


def emit(document: Any, as_json: bool, render: Callable[[Any], str]) -> None:
    """Print a command's result.

    Args:
        document: What the command found, JSON-serialisable.
        as_json: Print the document itself.
        render: Turns the document into text for a person.
    """
    click.echo(json.dumps(document, ensure_ascii=False, allow_nan=False) if as_json else render(document))
