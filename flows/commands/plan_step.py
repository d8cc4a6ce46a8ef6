"""`tunewright plan --base BASE --simulate …`: one pass, named in every setting, and the timeline of any plan."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

__all__ = ["describe", "draw", "draw_plan", "simulate_pass", "step_options"]

GIB = 2**30

_OPTIONS = (
    click.option(
        "--simulate",
        type=click.Choice(["train", "evaluate", "generate"]),
        help="With --base: no search, but one pass of exactly these settings.",
    ),
    click.option("--micro-batch-size", type=int, default=1, show_default=True, help="With --simulate: sequences."),
    click.option("--checkpointing", is_flag=True, help="With --simulate: compute blocks again in the backward pass."),
    click.option("--accumulating", is_flag=True, help="With --simulate: earlier gradients are there already."),
    click.option("--quantization", help="With --simulate or --serve: nf4 or int8 for linear layers."),
    click.option("--trained-dtype", default="float32", help="With --simulate: float32, or bfloat16 for pure 16 bits."),
    click.option("--world-size", type=int, default=1, help="With --simulate: devices that FSDP shards over."),
    click.option("--offload-optimizer", is_flag=True, help="With --simulate: optimizer in the host's memory."),
    click.option("--step-in-backward", is_flag=True, help="With --simulate: update each parameter at once."),
    click.option("--virtual-tokens", type=int, default=20, help="With --simulate: length of a soft prompt."),
    click.option("--bottleneck-width", type=int, default=64, help="With --simulate: width of a bottleneck adapter."),
    click.option("--new-tokens", type=int, default=256, help="With --simulate generate: tokens of each answer."),
    click.option("--timeline", type=click.Path(path_type=Path), help="Draw bytes over operations, .html or .svg."),
)


def step_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of this module."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def simulate_pass(folder: Path, options: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Simulate one pass.

    Args:
        folder: Folder of a base; config.json is enough.
        options: The command's options.

    Returns:
        The JSON document, sizes in bytes, and the timeline.

    Raises:
        InputError: Unknown or contradictory settings.
    """
    from components.memory.inference import GenerationShape, InferenceModel
    from components.memory.settings import StepSettings, StepShape
    from components.memory.simulate import StepModel
    from components.memory.timeline import describe_peak, timeline

    settings = StepSettings(**_settings(options))
    rows, tokens = options["micro_batch_size"], options["sequence_tokens"]
    shape = StepShape(rows, tokens, options["checkpointing"], options["accumulating"])
    title = f"{settings.method} in {settings.dtype}, {rows} x {tokens} tokens"
    model: StepModel | InferenceModel
    if options["simulate"] == "train":
        model = StepModel(folder, settings)
        found = model.run(shape)
    else:
        model = InferenceModel(folder, settings)
        if options["simulate"] == "evaluate":
            found, title = model.evaluate(shape), f"evaluation in {settings.dtype}, {rows} x {tokens} tokens"
        else:
            new_tokens = options["new_tokens"]
            found = model.generate(GenerationShape(rows, tokens, new_tokens))
            title = f"generation in {settings.dtype}, {rows} x ({tokens} + {new_tokens}) tokens"
    document = {
        "simulated": options["simulate"],
        "peak": describe_peak(found.peak),
        "peak_bytes": found.peak.peak_bytes,
        "breakdown": found.peak.breakdown,
        "peak_phase": found.peak.phase,
        "peak_module": found.peak.module,
        "phase_peaks": found.peak.phase_peaks,
        "flops": found.flops,
        "total_parameters": found.parameters,
        "trainable_parameters": found.trainable_parameters,
        "host_bytes": found.host_bytes,
        "pageable_bytes": found.pageable_bytes,
        "settings": vars(settings),
        "shape": vars(shape),
        "seconds": round(found.seconds, 3),
    }
    return document, timeline(model.moments(), found.peak, title)


def describe(document: dict[str, Any]) -> str:
    """Say for a person what a simulated pass takes."""
    lines = [
        f"on each device, in tensors: {document['peak']}",
        *(f"  {name:<12}{size / GIB:>8.2f} GiB" for name, size in document["breakdown"].items()),
        "peaks by phase: " + ", ".join(f"{k} {size / GIB:.2f} GiB" for k, size in document["phase_peaks"].items()),
        f"{document['trainable_parameters']:,} of {document['total_parameters']:,} parameters are trained; "
        f"{document['flops'] / 1e12:.2f} TFLOP",
    ]
    if document["host_bytes"]:
        lines.append(f"{document['host_bytes'] / GIB:.2f} GiB in the host's memory: what the optimizer works on")
    if document["pageable_bytes"]:
        lines.append(f"{document['pageable_bytes'] / GIB:.2f} GiB of it may be paged out when the device is full")
    return "\n".join(lines)


def draw(found: Any, path: Path) -> None:
    """Write a timeline and say where."""
    from components.memory.timeline import write_timeline
    from flows.commands.output import note

    write_timeline(found, path)
    note(f"timeline: {path}")


def draw_plan(plan: dict[str, Any], folder: Path, *, rank: int, targets: str, dropout: float, path: Path) -> None:
    """Simulate a plan's choice once more and draw it.

    Args:
        plan: The plan's document.
        folder: Folder of its base.
        rank: LoRA rank.
        targets: LoRA targets.
        dropout: LoRA's dropout.
        path: Where the drawing goes.
    """
    from components.memory.settings import StepSettings, StepShape
    from components.memory.simulate import StepModel
    from components.memory.timeline import timeline

    world_size = plan["devices"] if plan["sharding"] == "fsdp" else 1
    settings = StepSettings(
        plan["method"],
        rank,
        targets,
        plan["dtype"],
        plan["optimizer"],
        device=plan["device"],
        world_size=world_size,
        dropout=dropout,
        attention=plan["kernels"]["simulated_attention"] if plan["kernels"] else "sdpa",
    )
    rows, tokens = plan["micro_batch_size"], plan["sequence_tokens"]
    accumulating = plan["gradient_accumulation_steps"] > 1
    model = StepModel(folder, settings)
    found = model.run(StepShape(rows, tokens, plan["gradient_checkpointing"], accumulating))
    draw(timeline(model.moments(), found.peak, f"{plan['method']} in {plan['dtype']}, {rows} x {tokens} tokens"), path)


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    from components.memory.settings import StepSettings

    known = {field.name for field in fields(StepSettings)}
    given = {name: value for name, value in options.items() if name in known}
    aliases = {"adam": "adamw", "auto": "adamw"}
    if given["method"] == "auto" or given["dtype"] == "auto":
        given["method"] = "lora" if given["method"] == "auto" else given["method"]
        given["dtype"] = "bfloat16" if given["dtype"] == "auto" else given["dtype"]
    given["optimizer"] = aliases.get(given["optimizer"], given["optimizer"])
    given["device"] = "cuda" if options["gpu"] else "cpu"
    return given
