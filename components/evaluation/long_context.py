"""How far a model's positions reach, with and without scaling, side by side. Behind `tunewright long-context`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.errors import InputError
from components.evaluation.formatting import count, percent
from components.evaluation.passkey import measure_passkey
from components.evaluation.perplexity_by_position import measure_perplexity
from components.evaluation.table import Cell, Column, Table
from components.models.forward import causal_model
from components.models.rope import RopeScaling, config_positions, read_scaling
from components.runtime import release_memory

__all__ = ["PLAIN", "Reach", "check_reach", "measure_reach", "parse_scalings", "reach_tables"]

# How a base without a scaling of ours is named.
PLAIN = "none"
SHORTEST_TOKENS = 256

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Reach:
    """What is measured.

    Attributes:
        lengths: Tokens, rising: they part the positions of the texts and are the lengths of the passkeys' prompts.
        depths: Where passkeys stand, from 0 to 1.
        passkeys: Prompts of each length and depth; 0: none.
        seed: Seed of passkeys and filler.
    """

    lengths: tuple[int, ...]
    depths: tuple[float, ...]
    passkeys: int
    seed: int


def parse_scalings(text: str) -> list[RopeScaling | None]:
    """Read a list such as `none,linear:2,yarn:2`.

    Raises:
        InputError: An unknown scaling, none at all, or one that is named twice.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    found = [None if name == PLAIN else RopeScaling.parse(name) for name in names]
    if not found or len(set(found)) < len(found):
        raise InputError(f"scalings {text!r}", allowed="none, linear:2, dynamic:2, yarn:4 and such, each once")
    return found


def check_reach(reach: Reach, texts: int) -> None:
    """Refuse what can't be measured, before anything is loaded.

    Args:
        reach: What is to be measured.
        texts: Texts behind the perplexity.

    Raises:
        InputError: With what is allowed.
    """
    lengths = list(reach.lengths)
    if not lengths or lengths != sorted(set(lengths)) or lengths[0] < SHORTEST_TOKENS:
        raise InputError(f"lengths {lengths}", allowed=f"rising numbers of tokens from {SHORTEST_TOKENS} on")
    if not reach.depths or not all(0 <= depth <= 1 for depth in reach.depths):
        raise InputError(f"depths {list(reach.depths)}", allowed="one or more from 0, the beginning, to 1, the end")
    if min(reach.passkeys, texts) < 0 or reach.passkeys + texts == 0:
        raise InputError(f"{texts} texts and {reach.passkeys} passkeys", allowed="1 or more of one of them")


def measure_reach(
    name: str,
    load: Callable[[], tuple[Any, Any]],
    texts: Sequence[Sequence[int]],
    reach: Reach,
    progress: Progress = lambda _what, _done, _all: None,
) -> dict[str, Any]:
    """Load one model and measure it; it is let go of before the next one is loaded.

    Args:
        name: The model's, for the table.
        load: Returns (model, tokenizer).
        texts: Token ids of the texts, as long as the longest length; none: no perplexity.
        reach: What is measured.
        progress: Called with (what, done, all).

    Returns:
        `model`, `rope_scaling` (None where there is none), `positions`, `perplexity` [{`start`, `end`, `tokens`,
        `perplexity`, `lowest`, `highest`}], `passkey` [{`length`, `depth`, `found`, `n`, `accuracy`, `low`, `high`}],
        `seconds`.
    """
    started = time.monotonic()
    model, tokenizer = load()
    config = causal_model(model).config
    scaling = read_scaling(config)
    what = f"{name}, {scaling or PLAIN}"
    buckets = (
        measure_perplexity(
            model, texts, (0, *reach.lengths), progress=lambda done, total: progress(f"{what}: text", done, total)
        )
        if texts
        else []
    )
    found = (
        measure_passkey(
            model,
            tokenizer,
            lengths=reach.lengths,
            depths=reach.depths,
            trials=reach.passkeys,
            seed=reach.seed,
            progress=lambda done, total: progress(f"{what}: passkey", done, total),
        )
        if reach.passkeys
        else []
    )
    document = {
        "model": name,
        "rope_scaling": str(scaling) if scaling is not None else None,
        "positions": config_positions(config),
        "perplexity": [asdict(bucket) for bucket in buckets],
        "passkey": [{**asdict(result), "accuracy": result.accuracy} for result in found],
        "seconds": time.monotonic() - started,
    }
    del model, tokenizer
    release_memory()
    return document


def reach_tables(document: dict[str, Any]) -> list[Table]:
    """Tabulate the document of `long-context`: perplexity by position, and passkeys by length and depth."""
    measured, tables = document["measured"], []
    first = Column("model, scaling")
    buckets = measured[0]["perplexity"]
    if buckets:
        rows: list[tuple[Cell, ...]] = []
        for one in measured:
            cells = [f"{b['perplexity']:.1f} ({b['lowest']:.1f} to {b['highest']:.1f})" for b in one["perplexity"]]
            rows.append((_label(one), *cells))
        columns = (first, *(Column(f"{b['start']:,} to {b['end']:,}", "number") for b in buckets))
        n = document["texts"]["n"]
        tables.append(Table(f"Perplexity by position, n = {n} texts (lowest to highest text)", columns, tuple(rows)))
    if measured[0]["passkey"]:
        cells_of = [
            (_label(one), *(f"{p['found']}/{p['n']}" for p in one["passkey"])) for one in measured
        ]  # fmt: skip
        heads = (Column(f"{p['length']:,} at {percent(p['depth'])}", "number") for p in measured[0]["passkey"])
        caption = "Passkeys found, by length and depth"
        tables.append(Table(caption, (first, *heads), tuple(cells_of)))
    return tables


def _label(one: dict[str, Any]) -> str:
    return f"{one['model']}, {one['rope_scaling'] or PLAIN} ({count(one['positions'])} positions)"
