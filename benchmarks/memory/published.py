"""Published figures with our prediction beside them: `python -m benchmarks.memory.published`.

Each row names the settings that were assumed. Nothing is tuned to a figure: the step is ours (its loss, its optimizer),
so what another trainer does differently is part of the error, which is printed.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.memory.published_configs import llama_7b, llama_31_8b, llama_65b
from components.memory.settings import StepSettings, StepShape

__all__ = ["FIGURES", "Figure", "main"]

GB, GIB = 10**9, 2**30


@dataclass(frozen=True)
class Figure:
    """A published figure.

    Attributes:
        what: Model and method.
        source: Where it was published.
        bytes: The figure.
        unit: GB or GiB, as published.
        bound: The figure is an upper bound: the run fitted within it.
        assumed: What was assumed about the run.
        config: Makes the model's config.
        settings: What is simulated.
        shape: The micro-batch.
        parts: Only these categories, where the figure leaves activations out.
        paged_out: Paged optimizer states are left out: they lie outside of torch's allocator, whose peak was published.
    """

    what: str
    source: str
    bytes: int
    unit: str
    bound: bool
    assumed: str
    config: Any
    settings: StepSettings
    shape: StepShape
    parts: tuple[str, ...] = ()
    paged_out: bool = False


PURE: dict[str, Any] = {"dtype": "bfloat16", "trained_dtype": "bfloat16", "device": "cuda"}
FIGURES = (
    Figure(
        "LLaMA 65B, QLoRA",
        "Dettmers et al. 2023, arXiv:2305.14314: under 48 GB on one GPU",
        48 * GB,
        "GB",
        True,
        "rank 64 on all linear layers, NF4 with double quantization, 32-bit paged Adam, 16 bits elsewhere, batch 1 x "
        "512 tokens, checkpointing; paged states are counted on the device",
        llama_65b,
        StepSettings("qlora", 64, optimizer="paged_adamw", **PURE),
        StepShape(1, 512, gradient_checkpointing=True, accumulating=True),
    ),
    Figure(
        "7B, mixed-precision Adam, states alone",
        "Rajbhandari et al. 2020, arXiv:1910.02054: 16 bytes a parameter, 112 GB for 7 billion",
        112 * GB,
        "GB",
        False,
        "Llama-2-7B has 6.74 billion parameters, so 107.8 GB by their arithmetic; float32 weights, gradients and two "
        "states (autocast's 16-bit copies of weights are activations here), 1 x 128 tokens, checkpointing",
        llama_7b,
        StepSettings("full", dtype="bfloat16", device="cuda"),
        StepShape(1, 128, gradient_checkpointing=True, accumulating=True),
        ("weights", "gradients", "optimizer"),
    ),
    Figure(
        "Llama-2-7B, LoRA, micro-batch 1",
        "litgpt tutorials/resource-tables.md, A100 40 GB",
        round(21.30 * GB),
        "GB",
        False,
        "bf16-true, rank 8 on query and value (4,194,304 trained), dropout 0.05, Alpaca's longest row of 1,304 tokens, "
        "no checkpointing",
        llama_7b,
        StepSettings("lora", 8, "attention-qv", dropout=0.05, **PURE),
        StepShape(1, 1304, accumulating=True),
    ),
    Figure(
        "Llama-2-7B, LoRA, micro-batch 2",
        "litgpt tutorials/resource-tables.md, A100 40 GB",
        round(29.07 * GB),
        "GB",
        False,
        "as above, two rows",
        llama_7b,
        StepSettings("lora", 8, "attention-qv", dropout=0.05, **PURE),
        StepShape(2, 1304, accumulating=True),
    ),
    Figure(
        "Llama-2-7B, QLoRA, micro-batch 1",
        "litgpt tutorials/resource-tables.md, bnb.nf4-dq, A100 40 GB",
        round(13.84 * GB),
        "GB",
        False,
        "as above, NF4 with double quantization; the output layer is in 4 bits there and in 16 here",
        llama_7b,
        StepSettings("qlora", 8, "attention-qv", dropout=0.05, **PURE),
        StepShape(1, 1304, accumulating=True),
    ),
    Figure(
        "Llama-3.1-8B, QLoRA",
        "torchtune README, one RTX 4090",
        round(7.4 * GIB),
        "GiB",
        False,
        "llama3_1/8B_qlora_single_device: rank 8 on all linear layers, bfloat16, AdamW, batch 2 x 2,048 packed tokens, "
        "checkpointing; compiled there, not here",
        llama_31_8b,
        StepSettings("qlora", 8, **PURE),
        StepShape(2, 2048, gradient_checkpointing=True),
    ),
    Figure(
        "Llama-3.1-8B, LoRA",
        "torchtune README, one RTX 4090",
        round(16.2 * GIB),
        "GiB",
        False,
        "llama3_1/8B_lora_single_device: as QLoRA on a bfloat16 base",
        llama_31_8b,
        StepSettings("lora", 8, **PURE),
        StepShape(2, 2048, gradient_checkpointing=True),
    ),
    Figure(
        "Llama-3.1-8B, full",
        "torchtune README, one RTX 4090",
        round(18.9 * GIB),
        "GiB",
        False,
        "llama3_1/8B_full_single_device: pure bfloat16, PagedAdamW8bit stepping in the backward pass, batch 2 x 2,048 "
        "packed tokens, checkpointing; paged states lie outside of torch's allocator and are left out",
        llama_31_8b,
        StepSettings("full", optimizer="paged_adamw_8bit", step_in_backward=True, **PURE),
        StepShape(2, 2048, gradient_checkpointing=True),
        paged_out=True,
    ),
)


def main() -> None:
    """Simulate every published run and print the table."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--json", action="store_true", help="print one document instead of the table")
    parser.add_argument("--only", default="", help="figures whose name holds this text")
    arguments = parser.parse_args()
    rows = []
    for figure in FIGURES:
        if arguments.only in figure.what:
            rows.append(_row(figure))
            if not arguments.json:
                print(_text(rows[-1]), flush=True)
    if arguments.json:
        print(json.dumps(rows, indent=1))


def _row(figure: Figure) -> dict[str, Any]:
    from components.memory.simulate import simulate

    started = time.perf_counter()
    found = simulate(figure.config(), figure.settings, figure.shape)
    peak = found.peak
    predicted = sum(peak.breakdown[name] for name in figure.parts) if figure.parts else peak.peak_bytes
    predicted -= found.pageable_bytes if figure.paged_out else 0
    return {
        "what": figure.what,
        "source": figure.source,
        "published_bytes": figure.bytes,
        "unit": figure.unit,
        "bound": figure.bound,
        "predicted_bytes": predicted,
        "breakdown": peak.breakdown,
        "phase": peak.phase,
        "module": peak.module,
        "pageable_bytes": found.pageable_bytes,
        "assumed": figure.assumed,
        "seconds": round(time.perf_counter() - started, 1),
    }


def _text(row: dict[str, Any]) -> str:
    unit = GB if row["unit"] == "GB" else GIB
    published, predicted = row["published_bytes"] / unit, row["predicted_bytes"] / unit
    verdict = (
        f"{'within' if predicted <= published else 'over'} the bound"
        if row["bound"]
        else f"{predicted / published - 1:+.1%}"
    )
    parts = ", ".join(f"{name} {size / unit:.2f}" for name, size in row["breakdown"].items())
    return (
        f"{row['what']}: published {'< ' if row['bound'] else ''}{published:.2f} {row['unit']}, predicted "
        f"{predicted:.2f} {row['unit']} ({verdict}), simulated in {row['seconds']:.0f} s\n"
        f"  {parts} {row['unit']}\n  source: {row['source']}\n  assumed: {row['assumed']}"
    )


if __name__ == "__main__":
    main()
