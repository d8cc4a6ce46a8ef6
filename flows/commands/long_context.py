"""`tunewright long-context MODEL`: perplexity by position and passkey retrieval, with and without RoPE scaling."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import click

from flows.commands.given_model import Given, check_writes, given_model
from flows.commands.output import emit, json_option


@click.command("long-context")
@click.argument("model")
@click.option(
    "--adapter",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Measure this adapter of the base too, under the scaling that it was trained under.",
)
@click.option(
    "--lengths",
    metavar="TOKENS,…",
    help="Where positions are parted, and how long passkeys' prompts are. "
    "[default: half the base's positions, all, and one and a half times as many]",
)
@click.option(
    "--rope",
    metavar="TYPE:FACTOR,…",
    help="Scalings of the base, such as none,linear:2,dynamic:2,yarn:2. [default: none,yarn:2]",
)
@click.option("--texts", default=3, show_default=True, help="Texts behind the perplexity; 0: none.")
@click.option(
    "--text",
    "source",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Text to read. [default: BoolQ's passages]",
)
@click.option("--passkeys", default=1, show_default=True, help="Prompts of each length and depth; 0: none.")
@click.option("--depths", default="0,0.5,1", show_default=True, help="Where the passkey stands, from 0 to 1.")
@click.option("--dtype", default="float32", show_default=True, help="float32, bfloat16 or float16.")
@click.option("--seed", default=17, show_default=True, help="Seed of texts, passkeys and filler.")
@click.option("--home", type=click.Path(path_type=Path), help="State folder; $TUNEWRIGHT_HOME or .tunewright.")
@json_option
def command(
    model: str,
    adapter: Path | None,
    lengths: str | None,
    rope: str | None,
    texts: int,
    source: Path | None,
    passkeys: int,
    depths: str,
    dtype: str,
    seed: int,
    home: Path | None,
    as_json: bool,
) -> None:
    """Measure how far MODEL reads: a base (catalogue name, folder, hub id), or the REF of a registered version.

    The base is measured under each of --rope, and what was trained on it under its own scaling.
    """
    from components.errors import InputError
    from components.evaluation.long_context import Reach, check_reach, measure_reach, parse_scalings
    from components.models.load import DTYPES

    scalings = parse_scalings(rope) if rope is not None else None
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}", allowed=", ".join(DTYPES))
    numbers = _numbers("--lengths", lengths, int) if lengths is not None else ()
    reach = Reach(numbers, _numbers("--depths", depths, float), passkeys, seed)
    # what the base will fill in has no mistakes
    check_reach(reach if numbers else Reach((1024,), reach.depths, passkeys, seed), texts)
    given = _given(model, adapter, home)
    from components.models.base_config import read_config
    from components.models.rope import RopeScaling, config_positions, read_scaling, scale_config
    from components.runtime import prepare_process

    config = read_config(given.folder)
    positions = config_positions(config)
    if not numbers:
        if positions is None:
            raise InputError(f"{given.name} doesn't say how many positions it knows", next_step="give --lengths")
        reach = Reach((positions // 2, positions, positions * 3 // 2), reach.depths, passkeys, seed)
        check_reach(reach, texts)
    if scalings is None:
        scalings = [None] if read_scaling(config) is not None else [None, RopeScaling("yarn", 2.0)]
    for scaling in scalings:
        if scaling is not None:
            scale_config(read_config(given.folder), scaling)
    prepare_process()
    from components.evaluation.long_text import fetched_passages, long_texts, read_passages
    from components.models.load import load_as_served, load_tokenizer
    from flows.observer import TerminalObserver

    observer = TerminalObserver()
    passages = (read_passages(source) if source is not None else fetched_passages()) if texts else []
    # a file's paragraphs stay in their order
    order = seed if source is None else None
    read, digest = long_texts(
        load_tokenizer(given.folder), passages, count=texts, tokens=reach.lengths[-1], seed=order
    )  # fmt: skip
    load = partial(load_as_served, given.folder, quantization=given.quantization, dtype=dtype)
    todo = [(given.name, partial(load, adapter=None, rope_scaling=scaling)) for scaling in scalings]
    if given.adapter is not None:
        todo.append((given.adapter_name, partial(load, adapter=given.adapter)))
    document = {
        "model": model,
        "positions": positions,
        "lengths": list(reach.lengths),
        "dtype": dtype,
        "seed": seed,
        "texts": {"source": str(source or "boolq"), "n": texts, "tokens": reach.lengths[-1], "digest": digest},
        "passkeys": {"n": passkeys, "depths": list(reach.depths)},
        "measured": [measure_reach(name, loader, read, reach, observer.progress) for name, loader in todo],
    }
    emit(document, as_json, _render)


def _given(model: str, adapter: Path | None, home: Path | None) -> Given:
    from components.errors import InputError

    given, wanted = given_model(model, home), "reach is told by likelihoods of texts; its base's own is as it was"
    if adapter is None:
        if given.adapter is not None:
            check_writes(given.adapter, given.adapter_name, wanted)
        return given
    if given.is_version:
        raise InputError(f"--adapter beside the version {model}", allowed="--adapter beside a base")
    from components.models.fingerprint import check_binding, read_rope_scaling

    check_binding(adapter, given.folder)
    read_rope_scaling(adapter)
    check_writes(adapter, adapter.name, wanted)
    return replace(given, adapter=adapter, adapter_name=adapter.name)


def _numbers(option: str, text: str, kind: Any) -> tuple[Any, ...]:
    from components.errors import InputError

    try:
        return tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InputError(f"{option} {text}", allowed=f"{kind.__name__} numbers parted by commas") from error


def _render(document: dict[str, Any]) -> str:
    from components.evaluation.long_context import reach_tables
    from components.evaluation.summary import render_table

    return "\n\n".join(render_table(table, width=200) for table in reach_tables(document))
