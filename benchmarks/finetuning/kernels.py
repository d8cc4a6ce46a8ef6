"""What kernels make of a training step's time, in turns on the same batches: `python -m benchmarks.finetuning.kernels`.

Forward and backward pass of packed text-to-SQL rows through a base with LoRA: transformers' attention with a mask as it
is, ours, and ours with compiled blocks. What compiling takes is the first compiled pass less the later ones; it is won
back by that many passes whose time it saves. Seconds are those of the processor, the C++ compiler's among them: on a
machine that others use, those of the clock tell of the others.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from benchmarks.finetuning.contestant import ALPHA, RANK, SEED, our_settings
from benchmarks.finetuning.workloads import ROWS_PER_STEP, rows_of

AS_IT_IS, OURS, COMPILED = "transformers' sdpa", "ours", "ours, compiled"


def main() -> None:
    """Time every way, print seconds and ratios."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--base", default="smollm2-135m-instruct")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--batches", type=int, default=3, help="one sequence each")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows-per-sequence", type=int, default=4)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=Path, default=Path("data/text2sql/train.jsonl"))
    arguments = parser.parse_args()

    from components.runtime import prepare_process

    prepare_process(arguments.threads)
    import torch

    torch.set_num_threads(arguments.threads)
    from components.data.packing import collate
    from components.finetuning.lora import LoraSettings, attach
    from components.finetuning.run_schedule import training_schedule
    from components.models.block_kernels import kernels_in_use
    from components.models.kernels import Kernels
    from components.models.load import load_model, load_tokenizer
    from components.models.sources import locate_base

    folder = locate_base(arguments.base).folder
    tokenizer = load_tokenizer(folder)
    per_step = ROWS_PER_STEP // arguments.rows_per_sequence
    rows = rows_of("mixed", arguments.rows, -(-arguments.batches // per_step), SEED)
    schedule, _ = training_schedule(tokenizer, rows, our_settings("lora", arguments.dtype, arguments.rows_per_sequence))
    sequences = [sequence for step in schedule.steps for batch in step for sequence in batch][: arguments.batches]
    model = attach(load_model(folder, dtype=arguments.dtype), LoraSettings(RANK, ALPHA, seed=SEED)).train()
    ways: dict[str, tuple[Any, Callable[[], AbstractContextManager[None]]]] = {
        AS_IT_IS: ("mask", nullcontext),
        OURS: ("rows", lambda: kernels_in_use(model, Kernels())),
        COMPILED: ("rows", lambda: kernels_in_use(model, Kernels(compile=True))),
    }

    def passes(way: str) -> tuple[float, float]:
        layout, in_use = ways[way]
        batches = [collate([sequence], tokenizer.pad_token_id, layout) for sequence in sequences]
        loss = 0.0
        with in_use():
            began = _processor_seconds()
            for batch in batches:
                loss += _pass(model, batch, arguments.dtype)
            return _processor_seconds() - began, loss / len(batches)

    print(f"{arguments.dtype}, sequences of {', '.join(str(len(s)) for s in sequences)} tokens")
    first = {way: passes(way) for way in ways}
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(arguments.rounds):
        for way in ways:
            seconds[way].append(passes(way)[0])
    for way in ways:
        taken = statistics.median(seconds[way])
        ratios = [own / ours for own, ours in zip(seconds[way], seconds[OURS], strict=True)]
        print(
            f"{way:<20} {taken:7.2f} s, {statistics.median(ratios):.3f} x ours "
            f"({min(ratios):.3f} to {max(ratios):.3f}), loss {first[way][1]:.6f}"
        )
    compiled, ours = statistics.median(seconds[COMPILED]), statistics.median(seconds[OURS])
    spent, saved = first[COMPILED][0] - compiled, (ours - compiled) / len(sequences)
    won = f"won back after {spent / saved:,.0f} sequences" if saved > 0 else "never won back"
    print(f"compiling took {spent:.0f} s, {won}")
    print(json.dumps({"seconds": seconds, "first": first}))


def _processor_seconds() -> float:
    """Return the processor time of this process and of those that it waited for."""
    taken = os.times()
    return taken.user + taken.system + taken.children_user + taken.children_system


def _pass(model: Any, batch: dict[str, Any], dtype: str) -> float:
    import torch

    from components.finetuning.loss import forward_loss

    model.zero_grad(set_to_none=True)
    with torch.autocast("cpu", dtype=getattr(torch, dtype), enabled=dtype != "float32"):
        loss = forward_loss(model, batch, float(batch["weights"].sum()))
    loss.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


if __name__ == "__main__":
    main()
