"""What every command shares: the `--json` option, and one document on standard output, after an error too."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, TextIO

import click

__all__ = ["begin", "documents_alone", "emit", "emit_error", "json_option", "note"]

# Set once this command's document is printed: a verdict's no comes after its document, and adds none. An event, since
# a server prints its document from a thread of its own.
_printed = threading.Event()
# Standard output itself, while what libraries print is kept off it; None where it is not.
_documents: TextIO | None = None

_HELP = {"-h", "--help", "--version"}

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
    text = json.dumps(document, ensure_ascii=False, allow_nan=False) if as_json else render(document)
    click.echo(text, file=_documents)
    _printed.set()


def begin() -> None:
    """Note that a command begins, and has printed nothing."""
    _printed.clear()


@contextmanager
def documents_alone(arguments: Sequence[str]) -> Iterator[None]:
    """With `--json`, send to standard error what Python code other than `emit` prints while the block runs.

    Libraries print: transformers does at its import, with WANDB_MODE=offline. Help and version are click's to print.

    Args:
        arguments: The command line as it was typed.
    """
    global _documents
    if not _wants_json(arguments) or _HELP & set(arguments):
        yield
        return
    before, _documents = _documents, sys.stdout
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _documents = before


def emit_error(error: BaseException, exit_status: int, arguments: Sequence[str]) -> None:
    """Print an error as the command's JSON document, if `--json` was given and the command has printed none yet.

    Args:
        error: What was raised.
        exit_status: The status that the process ends with.
        arguments: The command line as it was typed: a usage error comes before `--json` is parsed.
    """
    if _wants_json(arguments) and not _printed.is_set():
        emit({"error": {**_described(error), "exit_status": exit_status}}, True, str)


def _wants_json(arguments: Sequence[str]) -> bool:
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def _described(error: BaseException) -> dict[str, str | None]:
    # the trees of components and registry, and click's own
    message = getattr(error, "problem", None) or str(error)
    next_step = getattr(error, "next_step", None)
    if isinstance(error, click.ClickException):
        message = error.format_message()
        context = getattr(error, "ctx", None)
        next_step = next_step or (f"{context.command_path} --help" if context is not None else None)
    elif not hasattr(error, "exit_status"):
        next_step = "run again with --debug for the traceback"
    allowed = getattr(error, "allowed", None)
    return {"type": type(error).__name__, "message": message, "allowed": allowed, "next_step": next_step}
