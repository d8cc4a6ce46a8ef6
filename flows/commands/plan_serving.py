"""`tunewright plan --serve`: what serving takes, and how many users or adapters fit. Parses, calls, prints."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from components.errors import InputError, VerdictError
from flows.commands.output import emit

__all__ = ["run", "serving_options"]

GIB, MIB = 2**30, 2**20

_OPTIONS = (
    click.option("--serve", is_flag=True, help="Plan serving RECIPE's base, or --base, instead of training it."),
    click.option("--concurrency", type=int, default=8, show_default=True, help="With --serve: requests at once."),
    click.option("--context", type=int, default=2048, show_default=True, help="With --serve: tokens of a request."),
    click.option("--adapters", type=int, default=1, show_default=True, help="With --serve: adapters loaded at once."),
)


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of this module."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def run(recipe: Path | None, base: str | None, options: dict[str, Any], as_json: bool) -> None:
    """Plan serving a recipe's base, or a base.

    Args:
        recipe: The recipe, for its base, rank and targets; or None.
        base: The base; or None.
        options: The command's.
        as_json: Print the document.

    Raises:
        InputError: Values out of range or unknown.
        VerdictError: It doesn't fit.
    """
    from components.memory.gpus import find_gpu
    from components.memory.hardware import Budget, detect_budget, gpu_budget, parse_size
    from components.memory.serving import plan_serving
    from components.models.sources import config_folder

    size = parse_size(options["budget"]) if options["budget"] else None
    gpu = find_gpu(options["gpu"]) if options["gpu"] else None
    rank, targets, scaling = options["rank"], options["targets"], None
    if recipe is not None:
        from components.recipe import load_recipe
        from flows.commands.recipe_options import open_recipe

        section = load_recipe(recipe, options["profile"], options["overrides"]).recipe
        base, rank, targets = section.base, section.finetune.rank, section.finetune.targets
        if section.finetune.method == "features":
            raise InputError(
                f"--serve with {recipe}, whose method is features",
                allowed="recipes of methods that write: a head takes one pass a request, and keeps no cache",
                next_step="leave --serve out: the plan's passes are those of serving",
            )
        if "auto" in (rank, targets):
            tactics = open_recipe(recipe, options["profile"], options["overrides"], options["home"]).tactics
            rank, targets = tactics.rank, tactics.targets
        scaled = section.finetune.rope_scaling
        scaling = scaled.scaling if scaled is not None else None
    folder = config_folder(base or "")
    if gpu is not None:
        budget = gpu_budget(gpu.name)
    else:
        found = detect_budget()
        budget = found if size is None else Budget(size, "given", found.device)
    dtype = options["dtype"]
    if dtype == "auto":
        # as the server loads it on a CPU; on a GPU in 16 bits
        dtype = gpu.dtype if gpu is not None else "bfloat16" if budget.device == "cuda" else "float32"
    plan = plan_serving(
        folder,
        concurrency=options["concurrency"],
        context_tokens=options["context"],
        adapters=options["adapters"],
        rank=rank,
        targets=targets,
        dtype=dtype,
        quantization=options["quantization"] or "none",
        budget=budget,
        rope_scaling=scaling,
    )
    document = plan.to_dict()
    emit(document, as_json, _render)
    if not plan.fits:
        raise VerdictError(
            f"serving takes {plan.total_bytes / GIB:.2f} GiB, more than {budget.budget_bytes / GIB:.2f} GiB leave",
            next_step=f"{plan.most_users} requests at once fit; or a shorter --context, fewer --adapters, "
            "--quantization nf4, or more memory",
        )


def _render(plan: dict[str, Any]) -> str:
    bits = {
        "none": f"weights in {plan['dtype']}",
        "nf4": "weights, linear layers in 4 bits",
        "int8": "weights, linear layers in 8 bits",
    }
    weights = bits[plan["quantization"]]
    window = plan["kv_window_tokens"]
    windows = f"; layers with a window keep {window:,}" if window is not None else ""
    lines = [
        f"serve {plan['concurrency']} requests of {plan['context_tokens']:,} tokens with {plan['adapters']} adapters "
        f"of rank {plan['rank']}: {plan['total_bytes'] / GIB:.2f} GiB of {plan['budget_bytes'] / GIB:.2f} GiB "
        f"({plan['budget_source']}){'' if plan['fits'] else ': does not fit'}",
        f"  {plan['weights_bytes'] / GIB:>8.2f} GiB  {weights}",
        f"  {plan['kv_bytes'] / GIB:>8.2f} GiB  key-value caches: {plan['kv_bytes_per_user'] / MIB:,.1f} MiB each, "
        f"{plan['kv_bytes_per_token']:,} bytes a token{windows}",
        f"  {plan['adapters_bytes'] / GIB:>8.2f} GiB  adapters: {plan['adapter_bytes'] / MIB:,.1f} MiB each (float32)",
        f"  {plan['working_bytes'] / GIB:>8.2f} GiB  logits, and activations of one prompt",
        f"  {plan['process_bytes'] / GIB:>8.2f} GiB  {'CUDA context' if plan['device'] == 'cuda' else 'frameworks'}",
        f"at most {plan['most_users']:,} requests at once beside {plan['adapters']} adapters, or "
        f"{plan['most_adapters']:,} adapters beside {plan['concurrency']} requests; "
        f"{plan['headroom_fraction']:.0%} is kept free",
    ]
    if plan["stateful_layers"]:
        lines.append(f"{plan['stateful_layers']} layers keep a state of fixed size instead of a cache: not counted")
    return "\n".join(lines)
