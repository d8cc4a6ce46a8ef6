"""`tunewright plan`: the bare arithmetic, a plan for a base, or the plan of a recipe. Parses, calls, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from components.errors import InputError, VerdictError
from flows.commands.output import emit, json_option

__all__ = ["command"]

GIB = 2**30
# Options that belong to some of the three ways of planning only; given with another, they would do nothing.
BELONGS_TO = {
    **dict.fromkeys(("profile", "overrides", "home"), ("RECIPE",)),
    **dict.fromkeys(
        ("method", "rank", "targets", "sequence_tokens", "effective_rows", "rows_per_sequence", "dtype"), ("--base",)
    ),
    **dict.fromkeys(("optimizer", "gpu"), ("--base", "--params")),
    **dict.fromkeys(("bytes_per_value", "trainable"), ("--params",)),
}


@click.command("plan")
@click.argument("recipe", required=False, type=click.Path(path_type=Path))
@click.option("--profile", help="Profile of the recipe, such as smoke.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Such as finetune.rank=8.")
@click.option("--home", type=click.Path(path_type=Path), help="State folder; $TUNEWRIGHT_HOME or .tunewright.")
@click.option(
    "--base", help="Plan for a base by itself: a catalogue name, a folder (its config.json is enough) or an id."
)
@click.option("--method", default="auto", show_default=True, help="With --base: auto, lora, qlora or full.")
@click.option("--rank", type=int, default=16, show_default=True, help="With --base: LoRA rank.")
@click.option("--targets", default="all-linear", show_default=True, help="With --base: LoRA targets.")
@click.option("--sequence-tokens", type=int, default=512, show_default=True, help="With --base: longest sequence.")
@click.option("--effective-rows", type=int, default=16, show_default=True, help="With --base: rows behind each step.")
@click.option("--rows-per-sequence", type=int, default=1, show_default=True, help="With --base: rows that are packed.")
@click.option("--dtype", default="auto", show_default=True, help="With --base: float32, bfloat16, or auto to measure.")
@click.option(
    "--optimizer", default="adamw", show_default=True, help="With --base or --params: adamw, adam, momentum or sgd."
)
@click.option("--budget", help="Memory that the run may take, such as 24GiB; by default what this machine has free.")
@click.option("--gpu", help="With --base or --params: a named GPU instead of a budget, such as a100-80.")
@click.option(
    "--params",
    type=float,
    help="The bare arithmetic, held against --budget or --gpu if given: number of parameters, such as 13e9.",
)
@click.option(
    "--bytes", "bytes_per_value", type=float, default=2, show_default=True, help="With --params: bytes a value."
)
@click.option("--trainable", type=float, help="With --params: trainable parameters; all by default.")
@click.option("--explain", is_flag=True, help="Show the arithmetic line by line.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    /,
    recipe: Path | None,
    base: str | None,
    params: float | None,
    explain: bool,
    as_json: bool,
    **options: Any,
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
    _refuse_idle_options(context, given[0])
    if params is not None:
        _formula(params, options, explain, as_json)
        return
    document = _of_base(base, options) if base is not None else _of_recipe(recipe, options)
    emit(document, as_json, lambda found: _render(found, explain))
    if not document["fits"]:
        raise VerdictError(
            f"nothing fits {document['budget_bytes'] / GIB:.2f} GiB with head-room: the nearest, {_name(document)}, "
            f"needs {document['peak_bytes'] / GIB:.2f} GiB",
            next_step="give more memory (--budget), shorter sequences, a lower rank, or a smaller base",
        )


def _refuse_idle_options(context: click.Context, way: str) -> None:
    """Refuse options that do nothing in this way of planning, by the names that were typed."""
    names = {option.name: option.opts[0] for option in context.command.params}
    typed = [name for name in BELONGS_TO if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    idle = [name for name in typed if way not in BELONGS_TO[name]]
    if idle:
        taken = [label for name, label in names.items() if name in BELONGS_TO and way in BELONGS_TO[name]]
        raise InputError(
            f"{', '.join(names[name] for name in idle)} does nothing with {way}",
            allowed=f"with {way}: {', '.join(sorted([*taken, '--budget', '--explain', '--json']))}",
            next_step="; ".join(f"{names[name]} goes with {' or '.join(BELONGS_TO[name])}" for name in idle),
        )
    if context.params["gpu"] and context.params["budget"]:
        raise InputError("--gpu and --budget were both given", allowed="one of them")


def _formula(params: float, options: dict[str, Any], explain: bool, as_json: bool) -> None:
    from components.memory.formula import estimate
    from components.memory.hardware import gpu_budget, parse_size

    found = estimate(params, options["bytes_per_value"], options["optimizer"], options["trainable"])
    budget = parse_size(options["budget"]) if options["budget"] else None
    if options["gpu"]:
        budget = gpu_budget(options["gpu"]).budget_bytes
    needed = found.training_bytes_without_activations
    compared = {} if budget is None else {"budget_bytes": budget, "fits": needed <= budget}
    document = found.to_dict() | compared | ({"explanation": found.explain()} if explain else {})
    lines = found.explain() if explain else _formula_lines(found)
    if budget is not None:
        lines += [
            f"budget                  {budget / 1e9:>10,.2f} GB: {'fits' if needed <= budget else 'does not fit'}"
        ]
    emit(document, as_json, lambda _: "\n".join(lines))
    if budget is not None and needed > budget:
        raise VerdictError(
            f"training does not fit {budget / GIB:.2f} GiB: weights, gradients and optimizer need {needed / GIB:.2f} "
            "GiB before any activations",
            next_step="train fewer parameters (--trainable), or plan adapters: tunewright plan --base",
        )


def _formula_lines(found: Any) -> list[str]:
    return [
        f"weights                 {found.weights_bytes / 1e9:>10,.2f} GB",
        f"inference               {found.inference_bytes / 1e9:>10,.2f} GB",
        f"gradients + optimizer   {found.gradient_and_optimizer_bytes / 1e9:>10,.2f} GB",
        f"training                {found.training_bytes_without_activations / 1e9:>10,.2f} GB + activations",
    ]


def _of_base(base: str | None, options: dict[str, Any]) -> dict[str, Any]:
    from components.memory.hardware import Budget, detect_budget, gpu_budget, parse_size
    from components.memory.plan import make_plan
    from components.models.sources import locate_base
    from components.runtime import prepare_process

    budget = gpu_budget(options["gpu"]) if options["gpu"] else None
    size = parse_size(options["budget"]) if options["budget"] else None
    folder = Path(base or "")
    if not (folder / "config.json").is_file():
        folder = locate_base(base or "").folder
    prepare_process()
    if size is not None:
        budget = Budget(size, "given", detect_budget().device)
    dtype = options["dtype"]
    if dtype == "auto" and options["gpu"]:
        # a GPU that isn't here can't be measured; all of `GPUS` but the oldest compute in bfloat16
        dtype = "float16" if options["gpu"].startswith("t4") else "bfloat16"
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
        optimizer="adamw" if options["optimizer"] == "adam" else options["optimizer"],
        budget=budget,
    )
    return plan.to_dict()


def _of_recipe(recipe: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    from flows.commands.recipe_options import open_recipe

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
    return document


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
