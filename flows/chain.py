"""The main job: every step of a recipe in order, as one function that knows nothing of Prefect.

`call` runs a step: plainly, or as a Prefect task. The document that comes out is the same.
"""

from __future__ import annotations

import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.files import write_atomic, write_json
from flows import (
    champion_step,
    comparison_step,
    decision_steps,
    endpoint_steps,
    measure_steps,
    plan_text,
    promotion_step,
    registration_step,
    steps,
)
from flows.job import Job
from flows.observer import Observer
from flows.run_settings import check_kernel_wishes
from flows.state_folder import make_state_folder
from flows.step_store import Step, library_versions

__all__ = ["Call", "exit_reason", "run_chain"]

Call = Callable[..., Any]


def run_chain(job: Job, observer: Observer, call: Call, flow_run_id: str | None = None) -> dict[str, Any]:
    """Run a recipe from its data to a served version.

    Args:
        job: The recipe on this machine.
        observer: Who watches.
        call: Runs a step function with its arguments.
        flow_run_id: Identity of the Prefect run, for the version's manifest.

    Returns:
        The run document; it is also in `runs/<time>/run.json` under the state folder, beside report.html. A run whose
        verdict or gate said no returns as well: see `exit_reason`.
    """
    make_state_folder(job.home)
    chain = _Chain(job, observer, call)
    try:
        _run_steps(chain, flow_run_id)
    except BaseException as error:
        chain.fail(error)
        raise
    return chain.finish()


def _run_steps(chain: _Chain, flow_run_id: str | None) -> None:
    """Fill the run document, step by step, until the end or until a verdict says no."""
    job, observer, run = chain.job, chain.observer, chain.document
    revision = promotion_step.alias_revision(job)
    check_kernel_wishes(job)
    decision_steps.open_bases(job, job.recipe.decision.bases)
    run["data"] = data = chain.do("data", steps.data)
    run["tactics"] = decision_steps.say_tactics(job, observer)
    run["recipe"] = decision_steps.resolved_recipe(job)
    decision = chain.do("decide", steps.decide, data)
    run["decision"] = {**decision, "override_reason": job.recipe.decision.override_reason}
    _say_decision(observer, run["decision"])
    run["money"] = decision_steps.money(job, decision)
    if bases := job.recipe.decision.bases:
        run["bases"] = chain.do("compare bases", decision_steps.compare_bases, data, bases)
    if not _goes_on(run["decision"]):
        return
    run["plan"] = plan = chain.do("plan", steps.plan, data)
    _say_plan(observer, plan)
    if not plan["fits"]:
        return
    run["tactics"] = decision_steps.say_planned_tactics(job, plan, observer)
    run["recipe"] = decision_steps.resolved_recipe(job, plan["method"])
    training = chain.step("finetune", steps.finetune, data, plan)
    run["training"], run["trained"] = training.document, not training.cached
    base = chain.do("evaluate the base", measure_steps.measure_base, data, decision)
    tuned = chain.do("evaluate the tuned model", measure_steps.measure_tuned, data, plan, training.document)
    comparison = chain.do("compare", comparison_step.compare, base, tuned, watched=False)
    run.update(comparison)
    registered = chain.do(
        "register", registration_step.register, data, decision, plan, training, comparison, flow_run_id
    )
    run["version"], run["digest"] = registered["version"], registered["digest"]
    if champion_step.is_unmeasured(job, comparison, registered):
        run["champion"] = chain.do(
            "evaluate the champion", champion_step.measure_champion, base, comparison, registered
        )
    run.update(chain.do("promote", promotion_step.promote, registered, revision))
    if job.on_text:
        if run["gate"]["passed"]:
            observer.say(f"  train a task on it with `base: version:{job.recipe.name}@{job.recipe.release.alias}`")
        return
    run["commands"] = _commands(job)
    if run["gate"]["passed"] and job.recipe.release.bundle:
        run["bundle"] = bundled = chain.do("bundle", endpoint_steps.bundle, registered)
        if key := endpoint_steps.asked_key(job, registered):
            observer.say(f"  not served here: the key {key[:12]} has to sign it first (tunewright registry sign)")
        elif job.recipe.release.try_question:
            run["endpoint"] = chain.do("serve and ask", endpoint_steps.try_question, registered, bundled)


def exit_reason(run: dict[str, Any]) -> str | None:
    """Say why a run ended without a promoted version, or None when it has one."""
    if run["decision"] and not _goes_on(run["decision"]):
        # the rule that decided; the report has all of them
        decided = run["decision"]["rules"][-1]
        return f"the decision is {run['decision']['verdict']}, not finetune: {decided['name']}: {decided['evidence']}"
    if run["plan"] and not run["plan"]["fits"]:
        return f"no method fits the memory budget of {run['plan']['budget_bytes']} bytes"
    if run["gate"] and not run["gate"]["passed"]:
        return f"the gate refused {run['version']}: " + "; ".join(run["gate"]["reasons"])
    return None


class _Chain:
    """The run document while it grows, and the clock of its steps."""

    def __init__(self, job: Job, observer: Observer, call: Call) -> None:
        self.job = job
        self.observer = observer
        self.call = call
        self.started = time.monotonic()
        now = datetime.now(UTC)
        self.folder = job.home / "runs" / f"{job.recipe.name}-{now:%Y%m%dT%H%M%S%f}"
        parts = (
            "version",
            "digest",
            "data",
            "tactics",
            "decision",
            "money",
            "bases",
            "plan",
            "training",
            "task",
            "tax",
            "champion",
            "gate",
            "promotion",
        )
        self.document: dict[str, Any] = {
            "name": job.recipe.name,
            "profile": job.resolved.profile or "full",
            "seed": job.recipe.seed,
            "started_at": now.isoformat(timespec="seconds"),
            "trained": False,
            "recipe": job.resolved.rows(),
            "base": {"name": job.recipe.base, "fingerprint": job.binding.base, "origin": job.base.origin,
                     "licence": job.base.licence},
            **dict.fromkeys((*parts, "bundle", "endpoint", "commands")),
            "environment": _environment(),
            "steps": [],
        }  # fmt: skip

    def step(self, name: str, function: Call, *arguments: Any, watched: bool = True) -> Any:
        """Run a step and note its time; a step without a store is never cached."""
        self.observer.say(f"{name} …")
        started = time.monotonic()
        watchers = (self.observer,) if watched else ()
        result = self.call(function, self.job, *arguments, *watchers)
        seconds = time.monotonic() - started
        cached, key = (result.cached, result.key) if isinstance(result, Step) else (False, None)
        self.document["steps"].append({"name": name, "seconds": seconds, "cached": cached, "key": key})
        self.observer.say(f"{name}: {'unchanged, kept' if cached else f'{seconds:.1f} s'}")
        return result

    def do(self, name: str, function: Call, *arguments: Any, watched: bool = True) -> dict[str, Any]:
        """Run a step for its document."""
        result = self.step(name, function, *arguments, watched=watched)
        document: dict[str, Any] = result.document if isinstance(result, Step) else result
        return document

    def finish(self) -> dict[str, Any]:
        """Write the run document and its report, whatever the run came to."""
        from components.evaluation.report import write_report

        self.document["seconds"] = time.monotonic() - self.started
        report = self.folder / "report.html"
        self.document["report"] = str(report)
        write_json(self.folder / "run.json", self.document)
        write_report(self.document, report)
        # the same place for every run, for whoever opens it by hand
        write_atomic(self.job.home / "report.html", report.read_bytes())
        return self.document

    def fail(self, error: BaseException) -> None:
        """Write down how far the run came."""
        self.document["seconds"] = time.monotonic() - self.started
        self.document["error"] = f"{type(error).__name__}: {error}"
        write_json(self.folder / "run.json", self.document)


def _goes_on(decision: dict[str, Any]) -> bool:
    return decision["verdict"] in steps.FINETUNE_VERDICTS or bool(decision["override_reason"])


def _say_decision(observer: Observer, decision: dict[str, Any]) -> None:
    for found in decision["candidates"]:
        observer.say(
            f"  {found['name']}: {100 * found['score']:.1f} % ({100 * found['low']:.1f} to {100 * found['high']:.1f}, "
            f"n={found['n']}), {found['tokens_per_request']:.0f} tokens a request"
        )
    decided = decision["rules"][-1]
    observer.say(f"  verdict: {decision['verdict']}; {decided['name']}: {decided['evidence']}")
    if decision["override_reason"]:
        observer.say(f"  overridden: {decision['override_reason']}")


def _say_plan(observer: Observer, plan: dict[str, Any]) -> None:
    observer.say(
        f"  {plan['method']}, {plan['dtype']}, micro-batch {plan['micro_batch_size']} x accumulation "
        f"{plan['gradient_accumulation_steps']}, checkpointing {plan['gradient_checkpointing']}: peak "
        f"{plan['peak_bytes'] / 2**30:.2f} GiB of {plan['budget_bytes'] / 2**30:.2f} GiB"
    )
    for line in (*plan_text.together_lines(plan), *plan_text.kernel_lines(plan), *plan_text.time_lines(plan)):
        observer.say(f"  {line}")


def _commands(job: Job) -> dict[str, str]:
    name, alias = job.recipe.name, job.recipe.release.alias
    question = job.test_rows[0].prompt
    turns = ", ".join(f'{{"role": "{m.role}", "content": {_quoted(m.content)}}}' for m in question)
    home = "" if job.home == Path(".tunewright").absolute() else f" --home {shlex.quote(str(job.home))}"
    installed = Path(sys.executable).parent / "tunewright"
    program = shlex.quote(os.path.relpath(installed)) if installed.exists() else "tunewright"
    return {
        "serve": f"{program} serve {name}@{alias} --port 3000{home}",
        "query": "curl -s http://127.0.0.1:3000/v1/chat/completions -H 'content-type: application/json' "
        f'-d \'{{"model": "{name}", "messages": [{turns}]}}\'',
        "rollback": f"{program} registry rollback {name} --alias {alias} --reason 'why'{home}",
    }


def _quoted(text: str) -> str:
    import json

    # inside a shell's single quotes
    return json.dumps(text).replace("'", "\\u0027")


def _environment() -> dict[str, Any]:
    from components.memory.hardware import machine

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        **asdict(machine()),
        "versions": library_versions(),
    }
