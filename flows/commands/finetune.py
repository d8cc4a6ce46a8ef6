"""`tunewright finetune RECIPE`: data, plan and training alone, without decision, evaluation or registry."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flows.commands.output import emit, json_option
from flows.commands.recipe_options import open_recipe, recipe_options


@click.command("finetune")
@recipe_options
@json_option
def command(recipe: Path, profile: str | None, overrides: tuple[str, ...], home: Path | None, as_json: bool) -> None:
    """Plan and train RECIPE; go on where a killed run stopped. Nothing is registered.

    SIGTERM saves a checkpoint after the present step and ends with status 0.
    """
    job = open_recipe(recipe, profile, overrides, home)
    from components.errors import VerdictError
    from components.finetuning.finetune import StoppedError
    from flows import decision_steps, plan_text, steps
    from flows.observer import TerminalObserver

    observer = TerminalObserver()
    data = steps.data(job, observer)
    decision_steps.say_tactics(job, observer)
    plan = steps.plan(job, data, observer).document
    if not plan["fits"]:
        raise VerdictError(
            f"no method fits the memory budget of {plan['budget_bytes']} bytes",
            next_step="see `tunewright plan` for the nearest that does",
        )
    decision_steps.say_planned_tactics(job, plan, observer)
    for line in (*plan_text.together_lines(plan), *plan_text.time_lines(plan)):
        observer.say(line)
    try:
        step = steps.finetune(job, data, plan, observer)
    except StoppedError as stopped:
        document = {"stopped_at_step": stopped.step, "steps": stopped.steps, "message": str(stopped)}
        emit(document, as_json, lambda found: str(found["message"]))
        return
    weights = str(job.home / step.document["weights"])
    emit({**step.document, "weights": weights, "trained": not step.cached, "plan": plan}, as_json, _render)


def _render(found: dict[str, Any]) -> str:
    how = "trained" if found["trained"] else "unchanged, kept"
    first, last = found["losses"][0]["loss"], found["losses"][-1]["loss"]
    return (
        f"{found['weights']}  ({how})\n"
        f"  {found['steps']} steps, {found['tokens']} tokens, {found['tokens_per_second']:.0f} tokens/s, "
        f"loss {first:.3f} to {last:.3f}, peak {found['peak_bytes'] / 2**30:.2f} GiB\n"
        f"  {found['ended']}; the weights of step {found['kept_step']} are kept, {found['kept_reason']}"
    )
