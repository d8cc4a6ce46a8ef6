"""`tunewright plan … --deliver TASKS`: how many models to deliver for several tasks. Part of the plan command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.errors import InputError, VerdictError

__all__ = ["deliver", "refuse_what_does_not_fit", "render"]

GIB = 2**30


def deliver(recipe: Path | None, base: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Plan the delivery of several tasks on the base of a recipe, or on a base by itself.

    Args:
        recipe: The recipe; its base, and the rank and targets that it finetunes with.
        base: Or a base: a catalogue name, a folder (its config.json is enough) or an id.
        options: The plan command's options.

    Returns:
        The document of `components.decision.delivery.plan_delivery`.

    Raises:
        InputError: No task, a base that can't be used, or a recipe that trains a head.
    """
    from components.decision.delivery import plan_delivery
    from components.memory.hardware import detect_budget, gpu_budget, parse_size

    if options["gpu"]:
        budget = gpu_budget(options["gpu"]).budget_bytes
    else:
        budget = parse_size(options["budget"]) if options["budget"] else detect_budget().budget_bytes
    rank, targets, name = options["rank"], options["targets"], base or ""
    folder = Path(name)
    if recipe is not None:
        from flows.commands.recipe_options import open_recipe

        job = open_recipe(recipe, options["profile"], options["overrides"], options["home"])
        if job.recipe.finetune.method == "features":
            raise InputError(
                "--deliver with finetune.method features: heads share the base and take some kilobytes each",
                allowed="recipes that train adapters or whole weights",
                next_step="see what one base takes with --serve, or set finetune.method=lora",
            )
        rank, targets, name, folder = job.tactics.rank, job.tactics.targets, job.recipe.base, job.base.folder
    elif not (folder / "config.json").is_file():
        from components.models.sources import locate_base

        folder = locate_base(name).folder
    dtype = "bfloat16" if options["dtype"] == "auto" else options["dtype"]
    return plan_delivery(
        folder, base=name, tasks=options["deliver"], rank=rank, targets=targets, budget_bytes=budget, dtype=dtype
    )


def render(found: dict[str, Any]) -> str:
    """Turn the document into text for a person."""
    import shutil

    from components.evaluation.advice_tables import delivery_table
    from components.evaluation.summary import render_table

    width = max(120, shutil.get_terminal_size().columns)
    sizes = (
        f"base {found['base_parameters']:,} parameters in {found['dtype']}, {found['base_bytes'] / GIB:.2f} GiB; an "
        f"adapter of rank {found['rank']} on {found['targets']} {found['adapter_parameters']:,}, "
        f"{found['adapter_bytes'] / 2**20:.1f} MiB"
    )
    reasons = [f"  {reason}" for reason in found["reasons"]]
    return "\n".join(
        [render_table(delivery_table(found), width), "", sizes, f"deliver: {found['recommended']}", *reasons]
    )


def refuse_what_does_not_fit(found: dict[str, Any]) -> None:
    """Raise when the base alone takes more than the budget.

    Raises:
        VerdictError: It does; the document is printed all the same.
    """
    if not found["fits"]:
        raise VerdictError(
            f"{found['base']} does not fit {found['budget_bytes'] / GIB:.2f} GiB",
            next_step="give more memory (--budget), or take a smaller base",
        )
