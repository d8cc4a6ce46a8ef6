"""The steps beside the decision: what it costs, which base to start with. Plain functions, as in steps.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from components.errors import InputError
from flows import steps
from flows.job import Job
from flows.observer import Observer
from flows.open_job import open_job

__all__ = ["compare_bases", "money", "open_bases", "resolved_recipe", "say_planned_tactics", "say_tactics"]


def money(job: Job, decision: dict[str, Any]) -> dict[str, Any] | None:
    """Put the recipe's prices on a decision; kept nowhere, since it takes no time and prices change.

    None on raw text: nobody asks such a model anything, it is a base.
    """
    if job.on_text:
        return None
    from components.decision.money import money as priced

    prices = [row for row in job.resolved.rows() if row["key"].startswith("traffic.")]
    return {**priced(decision, job.recipe.traffic.model_dump()), "prices": prices}


def compare_bases(job: Job, data: dict[str, Any], names: Sequence[str], observer: Observer) -> dict[str, Any]:
    """Measure several bases on the same dev rows, the middling one by size first, and say which to start with.

    Each base's decision is a step of its own in the store: a killed comparison goes on with the base that it was at,
    and a base that was decided on before is not measured again.

    Args:
        job: The recipe on this machine.
        data: The data document.
        names: Names of the bases, as in the recipe.
        observer: Who watches.

    Returns:
        The document of `components.decision.bases.compare_bases`.

    Raises:
        InputError: A base is named twice, unknown or unsafe.
    """
    from components.decision import bases
    from components.decision.base_facts import read_base_facts
    from components.decision.situation import whole_memory

    jobs = open_bases(job, names)
    parameters = {name: read_base_facts(one.base.folder).parameters for name, one in jobs.items()}
    measured = []
    for name in bases.order_to_measure(parameters):
        observer.say(f"  base {name}, {parameters[name]:,} parameters")
        decision = steps.decide(jobs[name], data, observer).document
        found = next(c for c in decision["candidates"] if c["name"] == decision["best_candidate"])
        measured.append(
            bases.MeasuredBase(
                base=name,
                parameters=parameters[name],
                candidate=found["name"],
                score=found["score"],
                low=found["low"],
                high=found["high"],
                scores=tuple(found["scores"]),
                tokens_per_request=found["tokens_per_request"],
                seconds_per_request=found["seconds_per_request"],
                candidates=sum(c["kind"] in ("simple", "retrieval") for c in decision["candidates"]),
            )
        )
    return bases.compare_bases(measured, whole_memory(job.recipe.memory.budget)[0], job.recipe.seed)


def open_bases(job: Job, names: Sequence[str]) -> dict[str, Job]:
    """Return the recipe's job on each of several bases; what is wrong with one is told before any is measured.

    Rows, prompts and seed are the recipe's, so that every base answers the same.

    Raises:
        InputError: A base is named twice, unknown or unsafe.
    """
    if len(set(names)) < len(names) or not all(names):
        raise InputError(
            f"bases {', '.join(map(repr, names))}",
            allowed="names of bases, parted by commas, each once",
            next_step="correct --bases, or decision.bases in the recipe",
        )
    return {name: job if name == job.recipe.base else _on_base(job, name) for name in names}


def say_tactics(job: Job, observer: Observer) -> dict[str, Any]:
    """Tell what was chosen where the recipe says 'auto', and what speaks against what it sets; return the document."""
    from components.decision.tactics import CHOSEN

    for rule in job.tactics.rules:
        if rule.source == CHOSEN:
            observer.say(f"  finetune.{rule.key} = {rule.value}  ({rule.source}: {rule.reason})")
    for warning in job.tactics.warnings:
        observer.say(f"  warning: {warning}")
    return job.tactics.to_dict()


def say_planned_tactics(job: Job, plan: dict[str, Any], observer: Observer) -> dict[str, Any]:
    """Tell what changes now that the plan has chosen the method, such as the learning rate; return the document."""
    before = {rule.key: rule.value for rule in job.tactics.rules}
    planned = job.tactics_for(plan["method"])
    for rule in planned.rules:
        if rule.key != "method" and rule.value != before[rule.key]:
            observer.say(f"  with {plan['method']}: finetune.{rule.key} = {rule.value}  ({rule.source}: {rule.reason})")
    return planned.to_dict()


def resolved_recipe(job: Job, method: str | None = None) -> list[dict[str, Any]]:
    """List every recipe value as `{key, value, source}`, with what the tactics chose and its `reason`.

    Args:
        job: The recipe on this machine.
        method: The planned method, once there is one.
    """
    from components.decision.tactics import CHOSEN

    tactics = job.tactics if method is None else job.tactics_for(method)
    chosen = {f"finetune.{rule.key}": rule for rule in tactics.rules if rule.source == CHOSEN}
    return [
        {**row, "value": rule.value, "source": rule.source, "reason": rule.reason}
        if (rule := chosen.get(row["key"]))
        else row
        for row in job.resolved.rows()
    ]


def _on_base(job: Job, name: str) -> Job:
    recipe = job.recipe.model_copy(update={"base": name})
    return open_job(replace(job.resolved, recipe=recipe), job.home)
