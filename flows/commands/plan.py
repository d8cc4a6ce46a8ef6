"""`tunewright plan`: the bare arithmetic, a plan for a base or a recipe, or of serving one. Parses, calls, prints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from components.errors import InputError, VerdictError
from flows import plan_text
from flows.commands.output import emit, json_option

__all__ = ["command"]

GIB = 2**30
# Options that belong to some of the ways of planning only; given with another, they would do nothing.
BELONGS_TO = {
    **dict.fromkeys(("profile", "overrides", "home"), ("RECIPE", "RECIPE --serve")),
    **dict.fromkeys(("methods", "devices", "price_per_hour"), ("RECIPE", "--base")),
    **dict.fromkeys(("method", "sequence_tokens", "effective_rows", "rows_per_sequence", "sequences"), ("--base",)),
    **dict.fromkeys(("rank", "targets"), ("--base", "--base --serve")),
    "dtype": ("--base", "--base --serve", "RECIPE --serve"),
    "optimizer": ("--base", "--params"),
    "gpu": ("RECIPE", "--base", "--params", "RECIPE --serve", "--base --serve"),
    **dict.fromkeys(("bytes_per_value", "trainable"), ("--params",)),
    **dict.fromkeys(("concurrency", "context", "adapters", "quantization"), ("RECIPE --serve", "--base --serve")),
    "explain": ("RECIPE", "--base", "--params"),
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
    help="With --base or --params: adamw, adam, momentum or sgd; auto: adamw, in 8 bits where it doesn't fit a GPU.",
)
@click.option(
    "--methods",
    default="lora,qlora",
    show_default=True,
    help="What method auto chooses from, the best quality first, such as full,lora,qlora.",
)
@click.option("--budget", help="Memory that the run may take, such as 24GiB; by default what this machine has free.")
@click.option("--gpu", help="A GPU by name instead of this machine, such as a100-80; it need not be here.")
@click.option("--devices", type=int, default=1, show_default=True, help="Devices that share each optimizer step.")
@click.option("--price-per-hour", type=float, help="Price of one device for an hour: what the run will cost.")
@click.option("--serve", is_flag=True, help="Plan serving RECIPE's base, or --base, instead of training it.")
@click.option("--concurrency", type=int, default=8, show_default=True, help="With --serve: requests at once.")
@click.option("--context", type=int, default=2048, show_default=True, help="With --serve: tokens of a request.")
@click.option("--adapters", type=int, default=1, show_default=True, help="With --serve: adapters loaded at once.")
@click.option(
    "--quantization", default="none", show_default=True, help="With --serve: none, or nf4 for a base in 4 bits."
)
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
    _refuse_idle_options(context, given[0] + (" --serve" if options["serve"] else ""))
    if params is not None:
        _formula(params, options, explain, as_json)
        return
    if options["serve"]:
        from flows.commands import plan_serving

        plan_serving.run(recipe, base, options, as_json)
        return
    document = _of_base(base, options) if base is not None else _of_recipe(recipe, options)
    emit(document, as_json, lambda found: plan_text.render(found, explain))
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
            allowed=f"with {way}: {', '.join(sorted([*taken, '--budget', '--json']))}",
            next_step="; ".join(f"{names[name]} goes with {' or '.join(BELONGS_TO[name])}" for name in idle),
        )
    if context.params["gpu"] and context.params["budget"]:
        raise InputError("--gpu and --budget were both given", allowed="one of them")


def _formula(params: float, options: dict[str, Any], explain: bool, as_json: bool) -> None:
    from components.memory.formula import estimate
    from components.memory.hardware import gpu_budget, parse_size

    optimizer = "adamw" if options["optimizer"] == "auto" else options["optimizer"]
    found = estimate(params, options["bytes_per_value"], optimizer, options["trainable"])
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
    from components.memory.hardware import parse_size
    from components.memory.plan import make_plan
    from components.memory.workload import uniform_workload
    from components.models.sources import config_folder
    from components.runtime import prepare_process

    size = parse_size(options["budget"]) if options["budget"] else None
    sequences = options["sequences"]
    if sequences is not None and sequences < 1:
        raise InputError(f"--sequences {sequences}", allowed="1 or more")
    folder = config_folder(base or "")
    prepare_process()
    plan = make_plan(
        folder,
        method=options["method"],
        rank=options["rank"],
        targets=options["targets"],
        sequence_tokens=options["sequence_tokens"],
        effective_rows=options["effective_rows"],
        rows_per_sequence=options["rows_per_sequence"],
        budget_bytes=size,
        dtype=options["dtype"],
        optimizer="adamw" if options["optimizer"] == "adam" else options["optimizer"],
        workload=uniform_workload(sequences, options["sequence_tokens"]) if sequences else None,
        **_target(options),
        price_per_hour=_price(options),
    )
    return plan.to_dict()


def _of_recipe(recipe: Path | None, options: dict[str, Any]) -> dict[str, Any]:
    from flows.commands.recipe_options import open_recipe

    overrides = options["overrides"]
    if options["budget"]:
        from components.memory.hardware import parse_size

        overrides = (*overrides, f"memory.budget='{parse_size(options['budget'])}'")
    if options["gpu"]:
        from components.memory.gpus import find_gpu

        # the whole card is planned for, whatever the recipe's budget here
        overrides = (*overrides, f"memory.budget='{find_gpu(options['gpu']).memory_bytes}'")
    if (price := _price(options)) is not None:
        overrides = (*overrides, f"memory.price_per_hour={price}")
    assert recipe is not None
    job = open_recipe(recipe, options["profile"], overrides, options["home"])
    from flows import steps
    from flows.observer import TerminalObserver

    observer = TerminalObserver()
    target = _target(options)
    # without one of these the plan is the one that a run would train by, and is kept for it
    asked = None if target == _target({"gpu": None, "devices": 1, "methods": "lora,qlora"}) else target
    document: dict[str, Any] = steps.plan(job, steps.data(job, observer), observer, asked).document
    return document


def _target(options: dict[str, Any]) -> dict[str, Any]:
    methods = tuple(name.strip() for name in options["methods"].split(",") if name.strip())
    if not methods:
        raise InputError("--methods names none", allowed="such as full,lora,qlora")
    return {"gpu": options["gpu"], "devices": options["devices"], "methods": methods}


def _price(options: dict[str, Any]) -> float | None:
    price: float | None = options["price_per_hour"]
    if price is not None and not 0 <= price < float("inf"):
        raise InputError(f"--price-per-hour {price}", allowed="0 or more")
    return price
