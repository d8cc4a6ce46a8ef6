"""`tunewright data generate FILE --by MODEL --out FILE`: rows whose answers a model wrote."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from flows.commands.given_model import check_writes, given_model
from flows.commands.output import emit, json_option

__all__ = ["generate"]

# Lines that a person reads of those that were left out.
SHOWN = 5


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--by", "model", required=True, help="Who answers: a base, or the REF of a registered version.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="File of the new rows; none may be there.")
@click.option(
    "--max-new-tokens",
    default=256,
    show_default=True,
    type=click.IntRange(min=2),
    help="Longest answer with its turn end; one that hasn't ended by then is left out.",
)
@click.option("--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16.")
@click.option("--home", type=click.Path(path_type=Path), help="State folder; $TUNEWRIGHT_HOME or .tunewright.")
@json_option
def generate(
    file: Path, model: str, out: Path, max_new_tokens: int, dtype: str, home: Path | None, as_json: bool
) -> None:
    """Have a model answer the rows of FILE, in the place of their answers: data to learn from a teacher by.

    The last answer of a row may be missing. Exit status 3 when no answer can be used.
    """
    from components.data.generated import check_prompts, generate_rows, read_prompts
    from components.data.rows import write_rows
    from components.errors import ConflictError, InputError, VerdictError
    from components.files import write_problem
    from components.models.fingerprint import fingerprint
    from components.models.load import DTYPES, load_as_served, load_tokenizer, served_positions

    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}", allowed=", ".join(DTYPES))
    rows = read_prompts(file)
    if os.path.lexists(out):
        raise ConflictError(f"{out} is there", next_step="name a new file; nothing is written over")
    if (problem := write_problem(out.parent)) is not None:
        raise InputError(f"cannot write {out}: {problem}", next_step="choose another folder")
    given = given_model(model, home)
    if given.adapter is not None:
        check_writes(given.adapter, given.adapter_name, "a text is wanted")
    check_prompts(
        load_tokenizer(given.folder), rows, file, positions=served_positions(given.folder, given.adapter),
        max_new_tokens=max_new_tokens,
    )  # fmt: skip
    from components.runtime import prepare_process
    from flows.observer import TerminalObserver

    prepare_process()
    observer = TerminalObserver()
    loaded, tokenizer = load_as_served(
        given.folder, adapter=given.adapter, quantization=given.quantization, dtype=dtype
    )
    name = given.adapter_name if given.adapter is not None else given.name
    by = {"name": name, "digest": given.digest or fingerprint(given.folder).base}
    found = generate_rows(
        loaded, tokenizer, rows, by, max_new_tokens=max_new_tokens,
        progress=lambda done, count: observer.progress("answers", done, count, ""),
    )  # fmt: skip
    document = {
        "rows": len(found.rows),
        "left_out": [{"line": line, "reason": reason} for line, reason in found.left_out],
        "by": by,
        "out": str(out) if found.rows else None,
    }
    if found.rows:
        write_rows(out, found.rows, replace=False)
    emit(document, as_json, _render)
    if not found.rows:
        raise VerdictError(
            f"none of {len(rows)} answers can be used: {found.left_out[0][1]}",
            next_step="raise --max-new-tokens, or choose a model that answers",
        )


def _render(document: dict[str, Any]) -> str:
    left_out = document["left_out"]
    lines = [f"line {one['line']} left out: {one['reason']}" for one in left_out[:SHOWN]]
    if len(left_out) > SHOWN:
        lines.append(f"and {len(left_out) - SHOWN} more")
    where = f" in {document['out']}" if document["out"] else ""
    return "\n".join([*lines, f"{document['rows']} rows answered by {document['by']['name']}{where}"])
