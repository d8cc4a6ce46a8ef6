"""`tunewright plan`: the bare arithmetic, a plan for a base or a recipe, or of serving one. Parses, calls, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from components.errors import InputError, VerdictError
from flows import plan_text
from flows.commands import plan_arithmetic, plan_training
from flows.commands.output import emit, json_option
from flows.commands.plan_serving import serving_options
from flows.commands.plan_step import describe, draw, draw_plan, simulate_pass, step_options

__all__ = ["command"]

GIB = 2**30
# Options that belong to some of the ways of planning only; given with another, they would do nothing.
RECIPE, BASE, PARAMS = "RECIPE", "--base", "--params"
SERVING = ("RECIPE --serve", "--base --serve")
SIMULATED = "--base --simulate"
DELIVERED = ("RECIPE --deliver", "--base --deliver")
BELONGS_TO = {
    **dict.fromkeys(("profile", "overrides", "home"), (RECIPE, "RECIPE --serve", "RECIPE --deliver")),
    **dict.fromkeys(("methods", "devices", "price_per_hour", "gpu_price"), (RECIPE, BASE)),
    **dict.fromkeys(("effective_rows", "rows_per_sequence", "sequences"), (BASE,)),
    **dict.fromkeys(("method", "sequence_tokens"), (BASE, SIMULATED)),
    **dict.fromkeys(("rank", "targets"), (BASE, SIMULATED, "--base --serve", "--base --deliver")),
    # a simulated pass is tensors alone, which says nothing of a budget
    "budget": (RECIPE, BASE, PARAMS, *SERVING, *DELIVERED),
    "dtype": (BASE, SIMULATED, *SERVING, *DELIVERED),
    "optimizer": (BASE, SIMULATED, PARAMS),
    "gpu": (RECIPE, BASE, SIMULATED, PARAMS, *SERVING, *DELIVERED),
    **dict.fromkeys(("bytes_per_value", "trainable"), (PARAMS,)),
    **dict.fromkeys(("concurrency", "context", "adapters"), SERVING),
    "quantization": (SIMULATED, *SERVING),
    **dict.fromkeys(
        (
            "micro_batch_size", "checkpointing", "accumulating", "trained_dtype", "world_size", "offload_optimizer",
            "step_in_backward", "virtual_tokens", "bottleneck_width", "new_tokens",
        ),
        (SIMULATED,),
    ),
    "timeline": (RECIPE, BASE, SIMULATED),
    "explain": (RECIPE, BASE, PARAMS),
    "serve": SERVING,
    "deliver": DELIVERED,
    "simulate": (SIMULATED,),
}  # fmt: skip


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
    help="auto or features (neither with --simulate), full, lora, qlora, bottleneck, prefix_tuning, prompt_tuning or "
    "p_tuning.",
)
@click.option("--rank", type=int, default=16, show_default=True, help="With --base: LoRA rank.")
@click.option("--targets", default="all-linear", show_default=True, help="With --base: LoRA targets.")
@click.option("--sequence-tokens", type=int, default=512, show_default=True, help="With --base: longest sequence.")
@click.option("--effective-rows", type=int, default=16, show_default=True, help="With --base: rows behind each step.")
@click.option("--rows-per-sequence", type=int, default=1, show_default=True, help="With --base: rows that are packed.")
@click.option("--sequences", type=int, help="With --base: packed sequences of the whole run, for its time and cost.")
@click.option(
    "--dtype",
    default="auto",
    show_default=True,
    help="With --base: float32, bfloat16, float16, or auto: measured here, or the named GPU's.",
)
@click.option(
    "--optimizer",
    default="auto",
    show_default=True,
    help="adamw, adam, momentum or sgd; with --base also adamw_8bit, paged_adamw, paged_adamw_8bit, and auto: adamw, "
    "or one of these where it doesn't fit a GPU.",
)
@click.option(
    "--methods",
    help="What method auto chooses from, the best quality first. [default: lora,qlora; with 10,000 training rows or "
    "more full,lora,qlora]",
)
@click.option("--budget", help="Memory that the run may take, such as 24GiB; by default what this machine has free.")
@click.option("--gpu", help="A GPU by name instead of this machine, such as a100-80; it need not be here.")
@click.option(
    "--devices",
    type=int,
    help="Devices that share each optimizer step; by default those of RECIPE's processes, with --base 1.",
)
@click.option("--price-per-hour", type=float, help="Price of one device for an hour: what the run will cost.")
@click.option(
    "--gpu-price",
    multiple=True,
    metavar="NAME=PRICE",
    help="Price of a GPU for an hour, for when a larger one is needed.",
)
@click.option("--deliver", type=int, metavar="TASKS", help="How many models to deliver for so many tasks instead.")
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
@serving_options
@step_options
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
    """Plan memory and time for RECIPE, for a base (--base), or by arithmetic alone (--params).

    With --serve it is serving that is planned. Exit status 3 when nothing fits the budget; what comes nearest, and what
    would fit, is printed all the same.
    """
    given = [name for name, value in (("RECIPE", recipe), ("--base", base), ("--params", params)) if value is not None]
    if len(given) != 1:
        raise InputError(
            f"plan was given {' and '.join(given) or 'nothing to plan'}",
            allowed="one of RECIPE, --base or --params",
            next_step="tunewright plan examples/text2sql/recipe.yaml, or tunewright plan --params 13e9 --bytes 2",
        )
    mode = next(
        (
            f"--{name}"
            for name in ("deliver", "serve", "simulate")
            if options[name] is not None and options[name] is not False
        ),
        "",
    )
    _refuse_idle_options(context, f"{given[0]} {mode}".strip())
    if options["timeline"]:
        from components.memory.timeline import check_timeline_file

        check_timeline_file(options["timeline"])
    if params is not None:
        plan_arithmetic.run(params, options, explain, as_json)
    elif options["deliver"] is not None:
        _deliver(recipe, base, options, as_json)
    elif options["serve"]:
        from flows.commands import plan_serving

        plan_serving.run(recipe, base, options, as_json)
    elif options["simulate"]:
        from components.models.sources import config_folder

        document, found = simulate_pass(config_folder(base or ""), options)
        emit(document, as_json, describe)
        if options["timeline"]:
            draw(found, options["timeline"])
    else:
        _train(recipe, base, options, explain, as_json)


def _train(recipe: Path | None, base: str | None, options: dict[str, Any], explain: bool, as_json: bool) -> None:
    if base is not None:
        planned = plan_training.of_base(base, options)
    else:
        assert recipe is not None
        planned = plan_training.of_recipe(recipe, options)
    document = planned.document
    emit(document, as_json, lambda found: plan_text.render(found, explain))
    if options["timeline"]:
        draw_plan(
            document,
            planned.folder,
            rank=planned.rank,
            targets=planned.targets,
            dropout=planned.dropout,
            path=options["timeline"],
        )
    if not document["fits"]:
        would = [remedy["words"] for remedy in document["would_fit"]]
        raise VerdictError(
            f"nothing fits {document['budget_bytes'] / GIB:.2f} GiB with head-room: the nearest, "
            f"{plan_text.name(document)}, needs {document['peak_bytes'] / GIB:.2f} GiB",
            next_step=f"what would fit: {'; or '.join(would)}"
            if would
            else "give more memory (--budget), or choose a smaller base",
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
            allowed=f"with {way}: {', '.join(sorted([*taken, '--json']))}",
            next_step="; ".join(f"{names[name]} goes with {' or '.join(BELONGS_TO[name])}" for name in idle),
        )
    if context.params["gpu"] and context.params["budget"]:
        raise InputError("--gpu and --budget were both given", allowed="one of them")


def _deliver(recipe: Path | None, base: str | None, options: dict[str, Any], as_json: bool) -> None:
    from flows.commands import delivery

    found = delivery.deliver(recipe, base, options)
    emit(found, as_json, delivery.render)
    delivery.refuse_what_does_not_fit(found)
