"""`tunewright data check|stats|show|generate`: parse, call components.data, print."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.commands.data_generate import generate
from flows.commands.group import VerbGroup
from flows.commands.option_types import FRACTION
from flows.commands.output import emit, json_option

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["command"]

FILE = click.argument("file", type=click.Path(path_type=Path))


@click.group(name="data", cls=VerbGroup, help="Check, show and count the rows of a data file.")
def command() -> None:
    """Group the verbs about data files."""


command.add_command(generate)


@command.command()
@FILE
@click.option("--base", help="Base model, by name or folder: find its special tokens, and rows too long for it.")
@json_option
def check(file: Path, base: str | None, as_json: bool) -> None:
    """List every problem of FILE by line; exit status 2 if there is one."""
    from components.data.check import check_file

    folder = _folder(base)
    document = check_file(file, _tokenizer(folder), _positions(folder))
    emit(document, as_json, lambda found: _render_check(file, found))
    if document["problems"]:
        sys.exit(2)


def _render_check(file: Path, found: dict[str, Any]) -> str:
    told = sorted([*found["problems"], *found["notes"]], key=lambda one: one["line"])
    lines = [f"{file}:{one['line']}: {one['message']} [{one['code']}]" for one in told]
    lines.append(f"{found['rows']} rows, {len(found['problems'])} problems ({found['format']})")
    return "\n".join(lines)


@command.command()
@FILE
@click.option("--base", help="Base model, by name or folder: count tokens with its tokenizer.")
@json_option
def stats(file: Path, base: str | None, as_json: bool) -> None:
    """Count rows, turns, characters, tokens, subsets and duplicates of FILE."""
    from components.data.check import row_statistics
    from components.data.rows import read_rows

    rows, tokenizer = read_rows(file), _tokenizer(_folder(base))
    _refuse_control_tokens(tokenizer, rows, file)
    emit(row_statistics(rows, tokenizer), as_json, _render_stats)


def _render_stats(found: dict[str, Any]) -> str:
    lines = [f"rows        {found['rows']}  ({found['turns']} messages)"]
    for part, numbers in found["characters"].items():
        lines.append(f"{part:<11} {numbers['mean']} characters on average, at most {numbers['max']}")
    if "tokens" in found:
        tokens = found["tokens"]
        lines.append(
            f"tokens      {tokens['total']}, {tokens['trained']} of them trained; at most {tokens['max']} a row"
        )
    for key in ("subsets", "databases"):
        if found[key]:
            lines.append(f"{key:<11} " + ", ".join(f"{name} {count}" for name, count in found[key].items()))
    repeats = found["duplicates"]
    lines.append(f"duplicates  {repeats['rows']} whole rows, {repeats['prompts']} prompts with another answer")
    return "\n".join(lines)


@command.command()
@FILE
@click.option("--base", help="Base model, by name or folder: show its tokens with their loss weights.")
@click.option("--rows", "count", default=1, show_default=True, type=click.IntRange(min=1), help="How many rows.")
@click.option("--line", default=1, show_default=True, type=click.IntRange(min=1), help="Line of the first row.")
@click.option(
    "--prompt-loss-weight",
    default=0.0,
    show_default=True,
    type=FRACTION,
    help="Loss weight of the prompt's tokens, from 0 to 1.",
)
@json_option
def show(file: Path, base: str | None, count: int, line: int, prompt_loss_weight: float, as_json: bool) -> None:
    """Show rows of FILE as the model is trained on them; with --base, every token and its loss weight."""
    from components.data.check import show_row
    from components.data.rows import read_rows
    from components.errors import InputError

    rows = read_rows(file)
    chosen = [row for row in rows if row.line >= line][:count]
    if not chosen:
        raise InputError(f"{file} has no row at or after line {line}", allowed=f"1 to {rows[-1].line}")
    tokenizer = _tokenizer(_folder(base))
    _refuse_control_tokens(tokenizer, chosen, file)
    shown = [show_row(row, tokenizer, prompt_loss_weight) for row in chosen]
    emit({"rows": shown}, as_json, _render_show)


def _render_show(document: dict[str, Any]) -> str:
    pieces = []
    for row in document["rows"]:
        text = "".join(_mark(token) for token in row["tokens"]) if row["tokens"] else row["text"]
        trained = sum(token["weight"] > 0 for token in row["tokens"])
        note = f" ({len(row['tokens'])} tokens, {trained} with loss, in bold)" if row["tokens"] else ""
        pieces.append(f"line {row['line']}{note}\n{text}")
    return "\n\n".join(pieces)


def _mark(token: dict[str, Any]) -> str:
    return click.style(token["text"], bold=True, fg="green") if token["weight"] > 0 else str(token["text"])


def _refuse_control_tokens(tokenizer: Any, rows: Sequence[Row], file: Path) -> None:
    if tokenizer is not None:
        from components.data.chat import check_control_tokens

        check_control_tokens(tokenizer, rows, file)


def _positions(base: Path | None) -> int | None:
    if base is None:
        return None
    from components.models.base_config import read_config
    from components.models.rope import config_positions

    return config_positions(read_config(base))


def _tokenizer(base: Path | None) -> Any:
    if base is None:
        return None
    from components.models.load import load_tokenizer

    return load_tokenizer(base)


def _folder(base: str | None) -> Path | None:
    """Return the folder of a base as a recipe names it, or None where none is named."""
    if base is None:
        return None
    if base.startswith("version:"):
        from flows.commands.given_model import given_version

        return given_version(base.removeprefix("version:"), None).folder
    from components.models.sources import locate_base

    return locate_base(base).folder
