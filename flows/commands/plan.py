"""`tunewright plan`: the bare arithmetic, a plan for a base, or the plan of a recipe. Parses, calls, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from components.errors import InputError, VerdictError
from flows.commands.output import emit, json_option
from flows.commands.plan_step import describe, draw, draw_plan, simulate_pass, step_options

__all__ = ["command"]

GIB = 2**30


@click.command("plan")
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@click.option("--profile", help="Profile of the recipe, such as smoke.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Such as finetune.rank=8.")
@click.option("--home", type=click.Path(path_type=Path), help="State folder; $TUNEWRIGHT_HOME or .tunewright.")
@click.option(
    "--base", help="Plan for a base by itself: a catalogue name, a folder (its config.json is enough) or an id."
)
@click.option(
    "--method",
    default="auto",
    show_default=True,
    help="With --base: auto, lora, qlora or full; with --simulate also adapter, prompt_tuning, prefix_tuning.",
)
@click.option("--rank", type=int, default=16, show_default=True, help="With --base: LoRA rank.")
@click.option("--targets", default="all-linear", show_default=True, help="With --base: LoRA targets.")
@click.option("--sequence-tokens", type=int, default=512, show_default=True, help="With --base: longest sequence.")
@click.option("--effective-rows", type=int, default=16, show_default=True, help="With --base: rows behind each step.")
@click.option("--rows-per-sequence", type=int, default=1, show_default=True, help="With --base: rows that are packed.")
@click.option("--dtype", default="auto", show_default=True, help="With --base: float32, bfloat16, or auto to measure.")
@click.option(
    "--optimizer",
    default="adamw",
    show_default=True,
    help="adamw, adam, momentum or sgd; with --base also adamw_8bit, paged_adamw, paged_adamw_8bit.",
)
@click.option("--budget", help="Memory that the run may take, such as 24GiB; by default what this machine has free.")
@click.option("--gpu", help="With --base: a named GPU instead of a budget, such as a100-80.")
@click.option("--params", type=float, help="The bare arithmetic: number of parameters, such as 13e9.")
@click.option(
    "--bytes", "bytes_per_value", type=float, default=2, show_default=True, help="With --params: bytes a value."
)
@click.option("--trainable", type=float, help="With --params: trainable parameters; all by default.")
@click.option("--explain", is_flag=True, help="Show the arithmetic line by line.")
@step_options
@json_option
def command(
    recipe: Path | None, base: str | None, params: float | None, explain: bool, as_json: bool, **options: Any
) -> None:
    """Plan memory for RECIPE, for a base (--base), or by arithmetic alone (--params).

    Exit status 3 when nothing fits the budget; what comes nearest is printed all the same.
    """
    given = [name for name, value in (("RECIPE", recipe), ("--base", base), ("--params", params)) if value is not None]
    if len(given) != 1:
        raise InputError(
            f"plan was given {' and '.join(given) or 'nothing to plan'}",
            allowed="one of RECIPE, --base or --params",
            next_step="tunewright plan examples/text2sql/recipe.yaml, or tunewright plan --params 13e9 --bytes 2",
        )
    if options["simulate"] and base is None:
        raise InputError("--simulate without --base", allowed="--simulate with --base")
    if options["timeline"]:
        from components.memory.timeline import check_timeline_file

        check_timeline_file(options["timeline"])
    if params is not None:
        _formula(params, options, explain, as_json)
        return
    if options["simulate"]:
        document, found = simulate_pass(_folder(base), options)
        emit(document, as_json, describe)
        if options["timeline"]:
            draw(found, options["timeline"])
        return
    document, folder, lora = _of_base(base, options) if base is not None else _of_recipe(recipe, options)
    emit(document, as_json, lambda found: _render(found, explain))
    if options["timeline"]:
        draw_plan(document, folder, **lora, path=options["timeline"])
    if not document["fits"]:
        raise VerdictError(
            f"nothing fits {document['budget_bytes'] / GIB:.2f} GiB with head-room: the nearest, {_name(document)}, "
            f"needs {document['peak_bytes'] / GIB:.2f} GiB",
            next_step="give more memory (--budget), shorter sequences, a lower rank, or a smaller base",
        )


def _formula(params: float, options: dict[str, Any], explain: bool, as_json: bool) -> None:
    from components.memory.formula import estimate

    found = estimate(params, options["bytes_per_value"], options["optimizer"], options["trainable"])
    document = found.to_dict() | ({"explanation": found.explain()} if explain else {})
    emit(document, as_json, lambda _: "\n".join(found.explain() if explain else _formula_lines(found)))


def _formula_lines(found: Any) -> list[str]:
    return [
        f"weights                 {found.weights_bytes / 1e9:>10,.2f} GB",
        f"inference               {found.inference_bytes / 1e9:>10,.2f} GB",
        f"gradients + optimizer   {found.gradient_and_optimizer_bytes / 1e9:>10,.2f} GB",
        f"training                {found.training_bytes_without_activations / 1e9:>10,.2f} GB + activations",
    ]


def _folder(base: str | None) -> Path:
    from components.models.sources import locate_base

    folder = Path(base or "")
    return folder if (folder / "config.json").is_file() else locate_base(base or "").folder


def _of_base(base: str | None, options: dict[str, Any]) -> tuple[dict[str, Any], Path, dict[str, Any]]:
    from components.memory.hardware import Budget, detect_budget, gpu_budget, parse_size
    from components.memory.plan import make_plan
    from components.runtime import prepare_process

    if options["gpu"] and options["budget"]:
        raise InputError("--gpu and --budget were both given", allowed="one of them")
    budget = gpu_budget(options["gpu"]) if options["gpu"] else None
    size = parse_size(options["budget"]) if options["budget"] else None
    folder = _folder(base)
    prepare_process()
    if size is not None:
        budget = Budget(size, "given", detect_budget().device)
    dtype = options["dtype"]
    if dtype == "auto" and options["gpu"]:
        # a GPU that isn't here can't be measured; all of `GPUS` but the oldest compute in bfloat16
        dtype = "float16" if options["gpu"].startswith("t4") else "bfloat16"
    optimizer = "adamw" if options["optimizer"] == "adam" else options["optimizer"]
    plan = make_plan(
        folder,
        method=options["method"],
        rank=options["rank"],
        targets=options["targets"],
        sequence_tokens=options["sequence_tokens"],
        effective_rows=options["effective_rows"],
        rows_per_sequence=options["rows_per_sequence"],
        budget_bytes=None,
        dtype=dtype,
        optimizer=optimizer,
        budget=budget,
    )
    return plan.to_dict(), folder, {"rank": options["rank"], "targets": options["targets"], "optimizer": optimizer}


def _of_recipe(recipe: Path | None, options: dict[str, Any]) -> tuple[dict[str, Any], Path, dict[str, Any]]:
    from flows.commands.recipe_options import open_recipe

    if options["gpu"]:
        raise InputError("--gpu goes with --base", allowed="--budget with a recipe", next_step="give its memory in GiB")
    overrides = options["overrides"]
    if options["budget"]:
        from components.memory.hardware import parse_size

        overrides = (*overrides, f"memory.budget='{parse_size(options['budget'])}'")
    assert recipe is not None
    job = open_recipe(recipe, options["profile"], overrides, options["home"])
    from flows import steps
    from flows.observer import TerminalObserver

    observer = TerminalObserver()
    document: dict[str, Any] = steps.plan(job, steps.data(job, observer), observer).document
    section = job.recipe.finetune
    return document, job.base.folder, {"rank": section.rank, "targets": section.targets, "optimizer": "adamw"}


def _name(plan: dict[str, Any]) -> str:
    checkpointing = ", gradient checkpointing" if plan["gradient_checkpointing"] else ""
    return (
        f"{plan['method']} in {plan['dtype']}, micro-batch {plan['micro_batch_size']} x accumulation "
        f"{plan['gradient_accumulation_steps']}{checkpointing}"
    )


def _render(plan: dict[str, Any], explain: bool) -> str:
    peak, budget = plan["peak_bytes"], plan["budget_bytes"]
    lines = [
        f"{'plan' if plan['fits'] else 'nearest'}: {_name(plan)}",
        f"peak {peak / GIB:.2f} GiB of {budget / GIB:.2f} GiB ({plan['budget_source']}); "
        f"{plan['margin_bytes'] / GIB:.2f} GiB to spare, {plan['headroom_fraction']:.0%} is kept free",
    ]
    lines += [f"  {name:<12}{size / GIB:>8.2f} GiB" for name, size in plan["breakdown"].items()]
    where = plan["peak_module"] or ("the optimizer" if plan["peak_phase"] == "step" else "the loss")
    lines.append(f"peak in the {plan['peak_phase']} pass, at {where}; sequences of {plan['sequence_tokens']} tokens")
    if plan["bfloat16_speedup"] is not None:
        lines.append(
            f"bfloat16 runs at {plan['bfloat16_speedup']:.2f} times the speed of float32 here, so {plan['dtype']}"
        )
    lines.append("alternatives")
    lines += [
        f"  {_name(other)}: {other['peak_bytes'] / GIB:.2f} GiB, {other['relative_seconds']:.2f} x time; "
        f"{other['why_not']}"
        for other in plan["alternatives"]
    ]
    return "\n".join([*lines, *(_explanation(plan) if explain else [])])


def _explanation(plan: dict[str, Any]) -> list[str]:
    extra = plan["overhead"]
    tensors = plan["peak_bytes"] - sum(extra.values())
    trainable, total = plan["trainable_parameters"], plan["total_parameters"]
    return [
        "how the peak comes about",
        f"  {tensors / GIB:.2f} GiB of tensors, from one real step under fake tensors: {trainable:,} of {total:,} "
        "parameters are trained",
        f"  + {extra['baseline_bytes'] / GIB:.2f} GiB for interpreter and frameworks, measured in a process of its own",
        f"  + {extra['allocator_bytes'] / GIB:.2f} GiB that the allocator keeps beyond live tensors",
        f"  + {extra['mapped_bytes'] / GIB:.2f} GiB of the weight file that stays mapped",
        f"  {plan['flops_per_step'] / 1e12:.2f} TFLOP an optimizer step",
    ]
