"""A sweep: many trainings of one recipe with other values, the next ones chosen by what the last came to.

Every trial goes the way of `finetune` (plan, training, content key), so that the best one's weights are there when the
recipe is run with its values. Ended trials are in the study's file, their run documents beside those of other runs and
in the registry's lineage; the trial that a killed process was at goes on from its own checkpoints.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.errors import ConflictError, InputError, TunewrightError
from components.files import digest_of, write_json
from components.finetuning.best import Measurement
from components.finetuning.result import StoppedError
from components.finetuning.search_space import BASE, Swept, check_combinations, search_space
from components.finetuning.study import COMPLETE, FAILED, PRUNED, Study, StudyTrial, TrialRecord, check_optuna
from components.recipe import with_values
from flows import steps
from flows.decision_steps import open_bases, resolved_recipe
from flows.job import Job
from flows.observer import Observer
from flows.step_store import library_versions, source_digest

__all__ = ["check_sweep", "run_sweep"]

SOURCE = "sweep"
# Sections that decide nothing of what a trial comes to.
OTHER_SECTIONS = ("decision", "traffic", "evaluation", "gate", "release", "sweep")


def check_sweep(job: Job) -> tuple[Swept, ...]:
    """Return what the sweep may set, before anything that takes time.

    Raises:
        InputError: Nothing to set, values that no trial could have, an objective that isn't measured, or no Optuna.
    """
    recipe = job.recipe
    space = search_space(recipe)
    check_optuna()
    if not recipe.finetune.dev_loss_rows:
        raise InputError(
            "a sweep compares dev losses, and finetune.dev_loss_rows is 0", next_step="raise finetune.dev_loss_rows"
        )
    if recipe.sweep.objective == "dev_score" and not recipe.finetune.dev_metric_rows:
        raise InputError(
            "sweep.objective is dev_score, and finetune.dev_metric_rows is 0: no answers are scored",
            allowed="finetune.dev_metric_rows of 1 or more, better 30, or the objective dev_loss",
            next_step="set one of them",
        )
    check_combinations(space, lambda values: with_values(job.resolved, values, SOURCE))
    return space


def run_sweep(job: Job, observer: Observer) -> dict[str, Any]:
    """Train a recipe again and again with other values, until there are as many trials as it asks for.

    Args:
        job: The recipe on this machine.
        observer: Who watches.

    Returns:
        `name`, `sweep` (its key), `objective`, `direction`, `sampler`, `pruner`, `seed`, `ended` (why), `seconds`,
        `trials` [{`number`, `state`, `values`, `value`, `dev`, `kept_step`, `seconds`, `peak_bytes`, `reason`, `run`}],
        `best` {`number`, `values`, `value`, `set`, `recipe`} or None, `importance` {key: part} or None.

    Raises:
        InputError: As `check_sweep`; an unknown base, or bases whose dev losses can't be compared.
        ConflictError: Another process is at this sweep.
        StoppedError: SIGTERM came; the trial that was under way goes on with the next call.
    """
    space = check_sweep(job)
    section = job.recipe.sweep
    names = next((swept.ends for swept in space if swept.key == BASE), (job.recipe.base,))
    jobs = open_bases(job, names)
    _check_comparable(job, jobs)
    data = steps.data(job, observer)
    key = _sweep_key(job, jobs, data)
    folder = job.home / "sweeps" / f"{job.recipe.name}-{key[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder):
        study = Study(
            folder / "study.db", space, sampler=section.sampler, pruner=section.pruner, maximize=_maximize(job),
            seed=job.recipe.seed,
        )  # fmt: skip
        ended = study.ended()
        if ended:
            observer.say(f"sweep {key[:12]}: going on behind {len(ended)} of {section.trials} trials")
        why = f"all {section.trials} trials were made"
        while len(ended) < section.trials:
            spent = sum(record.document["wall_seconds"] for record in ended)
            if section.seconds is not None and spent >= section.seconds:
                why = f"{spent:.0f} s were spent, and sweep.seconds is {section.seconds:g}"
                break
            trial = study.next(job.recipe.finetune.method)
            _Trial(jobs, data, key, trial, study, observer).run()
            ended = study.ended()
        return _document(job, key, ended, study.importance(), why)


class _Trial:
    """One trial: from its values to its run document, its record in the registry and in the study."""

    def __init__(
        self,
        jobs: Mapping[str, Job],
        data: dict[str, Any],
        key: str,
        trial: StudyTrial,
        study: Study,
        observer: Observer,
    ) -> None:
        self.base_job = jobs[trial.values.get(BASE, next(iter(jobs)))]
        self.data, self.key, self.trial, self.study, self.observer = data, key, trial, study, observer
        self.objective = self.base_job.recipe.sweep.objective
        self.dev: list[Measurement] = []
        self.pruned = False
        self.job: Job | None = None
        self.plan: dict[str, Any] | None = None
        self.training_key: str | None = None

    def run(self) -> None:
        """Train, and write down what it came to. What ends the process, ends it between two whole records."""
        number, values = self.trial.number, self.trial.values
        total = self.base_job.recipe.sweep.trials
        self.observer.say(f"trial {number} of {total}: {_in_words(values)}")
        started, began = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
        found = self._outcome()
        state, value = found["state"], found["value"]
        # a trial that went on from a checkpoint has spent its training's time before, too
        wall = max(time.monotonic() - started, found["seconds"] or 0.0)
        document = {
            "number": number, "state": state, "values": values, "value": value,
            "dev": [_measured(one) for one in self.dev], "wall_seconds": wall, **found,
        }  # fmt: skip
        run = self._write(document, began)
        row = {**{name: part for name, part in document.items() if name != "training"}, "run": run}
        self._register(row)
        self.study.end(self.trial, state, value, row)
        self._drop_checkpoints()
        told = found["reason"] or f"{_objective(self.objective)} {value:.4f} at step {found['kept_step']}"
        self.observer.say(f"trial {number}: {state}: {told}")

    def _outcome(self) -> dict[str, Any]:
        nothing: dict[str, Any] = dict.fromkeys(
            ("value", "kept_step", "steps", "seconds", "peak_bytes", "reason", "training")
        )
        try:
            training = self._train()
        except StoppedError as stopped:
            # a signal that came with the measurement ends the sweep; the next call comes to the same measurement
            if not self.pruned or stopped.asked:
                raise
            reason = f"stopped after step {stopped.step} of {stopped.steps}: {self.dev[-1]}, worse than the median"
            return {**nothing, "state": PRUNED, "steps": stopped.step, "seconds": stopped.seconds,
                    "peak_bytes": stopped.peak_bytes, "reason": reason}  # fmt: skip
        except ConflictError:
            raise
        except TunewrightError as error:
            # values that can't stand together, a plan that doesn't fit, a loss that isn't finite: the others go on
            return {**nothing, "state": FAILED, "reason": error.problem}
        self.dev = [Measurement(int(one["step"]), one["loss"], one.get("score")) for one in training["dev"]]
        for place in range(len(self.dev)):
            self.trial.report(place + 1, self._value(self.dev[place]))
        kept = next(one for one in self.dev if one.step == training["kept_step"])
        facts = {name: training[name] for name in ("kept_step", "steps", "seconds", "peak_bytes")}
        return {**nothing, **facts, "state": COMPLETE, "value": self._value(kept), "training": training}

    def _train(self) -> dict[str, Any]:
        self.job = job = _job_with(self.base_job, self.trial.values)
        self.plan = plan = steps.plan(job, self.data, self.observer).document
        if not plan["fits"]:
            raise TunewrightError(
                f"{plan['method']} needs {plan['peak_bytes'] / 2**30:.2f} GiB, and the memory budget is "
                f"{plan['budget_bytes'] / 2**30:.2f} GiB"
            )
        key = steps.training_key(job, self.data, plan)
        self.training_key = key
        return steps.finetune(
            job, self.data, plan, self.observer, self._give_up, first_in_process=self.trial.number == 1
        ).document

    def _give_up(self, measured: Measurement) -> bool:
        if measured not in self.dev:
            self.dev.append(measured)
        if self.trial.report(self.dev.index(measured) + 1, self._value(measured)):
            self.pruned = True
        return self.pruned

    def _value(self, measured: Measurement) -> float:
        value = measured.loss if self.objective == "dev_loss" else measured.score
        assert value is not None
        return value

    def _write(self, document: dict[str, Any], began: str) -> str:
        """Write the run document, and return its path in the state folder."""
        home = self.base_job.home
        path = home / "runs" / f"{self.base_job.recipe.name}-sweep-{self.key[:12]}-{self.trial.number:04d}" / "run.json"
        job = self.job or self.base_job
        recipe = job.resolved.rows() if self.plan is None else resolved_recipe(job, self.plan["method"])
        base = {"name": job.recipe.base, "fingerprint": job.binding.base, "origin": job.base.origin,
                "licence": job.base.licence}  # fmt: skip
        write_json(
            path,
            {"name": job.recipe.name, "kind": "trial", "sweep": self.key, "started_at": began, **document,
             "objective": self.objective, "seed": job.recipe.seed, "recipe": recipe, "base": base, "data": self.data,
             "plan": self.plan, "content_key": self.training_key, "versions": library_versions()},
        )  # fmt: skip
        return str(path.relative_to(home))

    def _register(self, row: dict[str, Any]) -> None:
        from registry.canonical import canonical_json
        from registry.errors import RunTaken
        from registry.store import Registry

        home = self.base_job.home
        came_to = row["reason"] or f"{_objective(self.objective)} {row['value']:.4f}"
        with Registry.open(home / "registry") as registry:
            try:
                registry.record_run(
                    self.base_job.recipe.name,
                    self.key,
                    self.trial.number,
                    base_fingerprint=self.base_job.binding.base,
                    content_key=self.training_key if row["state"] == COMPLETE else None,
                    document={
                        **row,
                        "summary": f"{_in_words(row['values'])}: {row['state']}, {came_to}",
                        "data": {file["path"]: file["sha256"] for file in self.data["files"]},
                    },
                    actor=f"sweep {self.base_job.recipe.name}",
                )
            except RunTaken:
                # ended between this and the study, a sweep comes to the same trial again; only its time is another
                name = self.base_job.recipe.name
                kept = next(r for r in registry.runs(name) if (r.sweep, r.number) == (self.key, self.trial.number))
                came_to = [
                    {part: one.get(part) for part in ("values", "state", "value")} for one in (kept.document, row)
                ]
                if canonical_json(came_to[0]) != canonical_json(came_to[1]):  # the study would say another thing
                    raise

    def _drop_checkpoints(self) -> None:
        """Remove what an ended trial would resume from; weights stay."""
        if self.job is None or self.training_key is None:
            return
        for checkpoint in steps.run_folder(self.job, self.training_key).glob("checkpoint-*"):
            shutil.rmtree(checkpoint)


def _job_with(base_job: Job, values: Mapping[str, Any]) -> Job:
    """Return a trial's job, which shares with its base's what values don't change."""
    job = replace(base_job, resolved=with_values(base_job.resolved, values, SOURCE))
    for name in ("base", "binding", "store"):
        job.__dict__[name] = getattr(base_job, name)
    return job


def _check_comparable(job: Job, jobs: Mapping[str, Job]) -> None:
    """Refuse to compare losses by token of bases that cut text into other tokens."""
    by_tokenizer: dict[str, list[str]] = {}
    for name, one in jobs.items():
        by_tokenizer.setdefault(one.binding.tokenizer, []).append(name)
    if job.recipe.sweep.objective == "dev_loss" and len(by_tokenizer) > 1:
        groups = " and ".join(", ".join(names) for names in by_tokenizer.values())
        raise InputError(
            f"the dev losses of {groups} can't be compared: they are by token, and the tokenizers differ",
            allowed="bases with one tokenizer, or the objective dev_score",
            next_step="set sweep.objective=dev_score and finetune.dev_metric_rows, or sweep them one by one",
        )


def _sweep_key(job: Job, jobs: Mapping[str, Job], data: dict[str, Any]) -> str:
    """Digest everything that decides what trials come to, and nothing else: more trials are the same sweep."""
    prices = {"memory": {"price_per_hour", "gpu_prices"}}
    recipe, section = job.recipe.model_dump(mode="json", exclude=prices), job.recipe.sweep
    swept = section.model_dump(mode="json", exclude={"trials", "seconds"})
    finetune = {
        name: value for name, value in recipe["finetune"].items() if f"finetune.{name}" not in swept["parameters"]
    }
    return digest_of(
        {
            "sweep": swept,
            "recipe": {
                name: part for name, part in recipe.items() if name not in (*OTHER_SECTIONS, "finetune", "base")
            },
            "finetune": {name: value for name, value in finetune.items() if name != "report_to"},
            "gate": job.recipe.gate.subset,
            "bases": {name: list(vars(one.binding).values()) for name, one in jobs.items()},
            "data": {file["path"]: file["sha256"] for file in data["files"]},
            "libraries": library_versions(),
            "code": source_digest(
                ("components/finetuning", "components/data", "components/models", "components/memory")
            ),
        }
    )


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    from filelock import FileLock, Timeout

    try:
        lock = FileLock(folder / "sweep.lock", timeout=0).acquire()
    except Timeout as error:
        raise ConflictError(
            f"another process is at the sweep in {folder}", next_step="wait for it, or stop it"
        ) from error
    with lock:
        yield


def _document(
    job: Job, key: str, ended: list[TrialRecord], importance: dict[str, float] | None, why: str
) -> dict[str, Any]:
    section = job.recipe.sweep
    complete = [record for record in ended if record.value is not None]
    sign = -1.0 if _maximize(job) else 1.0
    best = min(complete, key=lambda record: sign * (record.value or 0.0), default=None)
    return {
        "name": job.recipe.name,
        "sweep": key,
        "objective": section.objective,
        "direction": "maximize" if _maximize(job) else "minimize",
        "sampler": section.sampler,
        "pruner": section.pruner,
        "seed": job.recipe.seed,
        "parameters": list(section.parameters),
        "ended": why,
        "seconds": sum(record.document["wall_seconds"] for record in ended),
        "trials": [record.document for record in ended],
        "best": None if best is None else _best(best),
        "importance": importance,
    }


def _best(record: TrialRecord) -> dict[str, Any]:
    import yaml

    values = record.document["values"]
    nested: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    return {
        "number": record.number,
        "values": values,
        "value": record.value,
        "set": [f"{key}={_as_yaml(value)}" for key, value in values.items()],
        "recipe": yaml.safe_dump(nested, sort_keys=False),
        "run": record.document["run"],
    }


def _as_yaml(value: Any) -> str:
    import yaml

    return str(yaml.safe_dump(value, default_flow_style=True, width=10_000)).removesuffix("...\n").strip()


def _maximize(job: Job) -> bool:
    return job.recipe.sweep.objective == "dev_score"


def _objective(name: str) -> str:
    return name.replace("_", " ")


def _in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {_as_yaml(value)}" for key, value in values.items())


def _measured(one: Measurement) -> dict[str, float]:
    return {"step": one.step, "loss": one.loss} | ({} if one.score is None else {"score": one.score})
