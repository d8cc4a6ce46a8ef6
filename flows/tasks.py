"""Prefect tasks round the step functions, and nothing else: what a step does is in the modules of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from flows import (
    champion_step,
    comparison_step,
    decision_steps,
    endpoint_steps,
    measure_steps,
    promotion_step,
    registration_step,
    steps,
)

__all__ = ["TASKS"]


def _task(name: str, function: Callable[..., Any]) -> Any:
    # Results stay in this process and are kept by content in the step store: Prefect's own cache would miss a changed
    # component, and pickles what it persists. A failed step is not tried again by itself: what failed once on the same
    # bytes fails twice, and a killed run goes on from its checkpoint when it is called again.
    return task(name=name, cache_policy=NO_CACHE, persist_result=False, retries=0, log_prints=False)(function)


TASKS: dict[Callable[..., Any], Any] = {
    steps.data: _task("materialise data", steps.data),
    steps.decide: _task("decide", steps.decide),
    decision_steps.compare_bases: _task("compare bases", decision_steps.compare_bases),
    steps.plan: _task("plan", steps.plan),
    steps.finetune: _task("finetune", steps.finetune),
    measure_steps.measure_base: _task("evaluate base", measure_steps.measure_base),
    measure_steps.measure_tuned: _task("evaluate tuned", measure_steps.measure_tuned),
    comparison_step.compare: _task("compare", comparison_step.compare),
    registration_step.register: _task("register", registration_step.register),
    champion_step.measure_champion: _task("evaluate champion", champion_step.measure_champion),
    promotion_step.promote: _task("gate and promote", promotion_step.promote),
    endpoint_steps.bundle: _task("bundle", endpoint_steps.bundle),
    endpoint_steps.try_question: _task("serve and ask", endpoint_steps.try_question),
}
