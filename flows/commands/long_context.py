"""`tunewright long-context MODEL`: perplexity by position and passkey retrieval, with and without RoPE scaling."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import click

from flows.commands.output import emit, json_option
from flows.commands.recipe_options import state_folder


@dataclass(frozen=True)
class Given:
    """What MODEL stands for: the folder of base or whole model, and what was trained beside it."""

    name: str
    folder: Path
    adapter: Path | None = None
    adapter_name: str = "adapter"
    quantization: str | None = None


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
    from components.memory.fake_model import read_config
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

    if not _names_a_version(model):
        from components.models.sources import check_base_name, locate_base

        check_base_name(model)
        folder = locate_base(model).folder
        if adapter is not None:
            from components.models.fingerprint import check_binding, read_rope_scaling

            check_binding(adapter, folder)
            read_rope_scaling(adapter)
            _check_writes(adapter, adapter.name)
        return Given(Path(model).name, folder, adapter, adapter.name if adapter is not None else "")
    if adapter is not None:
        raise InputError(f"--adapter beside the version {model}", allowed="--adapter beside a base")
    from deploy.from_registry import version_files
    from registry.store import Registry

    with Registry.open(state_folder(home) / "registry", create=False) as registry:
        files = version_files(registry, model)
    if files.adapter_folder is not None:
        _check_writes(files.adapter_folder, files.label)
    alone = files.adapter_folder is None
    return Given(
        files.label if alone else "base", files.base_folder, files.adapter_folder, files.label, files.quantization
    )


def _names_a_version(model: str) -> bool:
    """Tell a version's REF from a base; a bare name is a base's, though it might be a model's newest version."""
    from registry.errors import ReferenceInvalid
    from registry.names import parse_reference

    try:
        found = parse_reference(model)
    except ReferenceInvalid:
        return False
    return found.name is None or found.number is not None or found.alias is not None


def _check_writes(folder: Path, name: str) -> None:
    from components.errors import InputError
    from components.models.head import is_head

    if is_head(folder):
        raise InputError(
            f"{name} is a head, which answers labels or numbers, and reach is told by likelihoods of texts",
            allowed="what writes; a head leaves its base's own reach as it is",
            next_step="measure its base",
        )


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
