"""Several tasks of one recipe, learned in three ways on equal budgets of tokens and measured on the same rows.

Each run is kept by its content, so that what was killed goes on where it was, and its training from its checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from components.data.rows import Row
from components.errors import InputError, VerdictError
from components.files import digest_of, sha256_tree
from components.finetuning import launch
from components.finetuning.mixing import WAYS, Mixture, mixtures
from components.finetuning.settings import DevSettings, FinetuneSettings, what_decides
from components.recipe import ResolvedRecipe
from components.runtime import release_memory
from flows import measure_steps, steps
from flows.comparison_step import compare
from flows.interruption import sigterm_asked
from flows.job import Job
from flows.observer import Observer, step_detail
from flows.open_job import open_job
from flows.run_settings import processes, run_settings, sent_dtype
from flows.step_store import source_digest

__all__ = ["multitask", "task_jobs"]


def task_jobs(resolved: ResolvedRecipe, home: Path) -> dict[str, Job]:
    """Return a job for each task of a recipe, on the same base.

    Raises:
        InputError: A recipe without tasks, or what `open_job` refuses.
    """
    recipe = resolved.recipe
    if not recipe.data.tasks:
        raise InputError(
            f"{resolved.path} has no data.tasks",
            allowed="a recipe with data.tasks: {name: {train, dev, test}, …}",
            next_step="name two tasks or more, or train the one with `tunewright run`",
        )
    jobs = {}
    for name, task in recipe.data.tasks.items():
        rows = {"train": task.train, "dev": task.dev, "test": task.test, "tasks": {}}
        own: dict[str, Any] = {"max_new_tokens": task.max_new_tokens} if task.max_new_tokens else {}
        if task.metric is not None:
            own |= {"metric": task.metric, "metric_options": task.metric_options}
        changed = {"data": recipe.data.model_copy(update=rows), "task": recipe.task.model_copy(update=own)}
        jobs[name] = open_job(replace(resolved, recipe=recipe.model_copy(update=changed)), home)
    return jobs


def multitask(resolved: ResolvedRecipe, home: Path, observer: Observer) -> dict[str, Any]:
    """Train the three ways and measure every task in each.

    Args:
        resolved: A recipe with data.tasks.
        home: State folder.
        observer: Who watches.

    Returns:
        `name`, `budget_tokens`, `replay`, `tasks` [{`task`, `weight`, `metric`, `n`, `base`, `low`, `high`}] and `ways`
        [{`way`, `runs`, `tokens`, `steps`, `seconds`, `bytes`, `mean`, `tasks` [{`task`, `tokens`, `score`, `low`,
        `high`, `delta`, `delta_low`, `delta_high`}], `tax` [{`suite`, `delta`}]}]; a way's tax is that of its run that
        lost most.

    Raises:
        InputError: Tasks that can't be used, early stopping, or rows that are trained on in one and asked in another.
        VerdictError: The memory budget is too small.
        StoppedError: SIGTERM came; a checkpoint of the last step is saved.
    """
    from components.data.check import check_splits

    section = resolved.recipe.finetune
    if section.early_stopping:
        raise InputError(
            f"finetune.early_stopping is {section.early_stopping}, and the ways of learning several tasks are compared "
            "on equal tokens",
            allowed="0",
            next_step="set it 0, or train the tasks one by one with `tunewright run`",
        )
    jobs = task_jobs(resolved, home)
    if section.keep_best:
        observer.say("  the last step's weights are kept, whatever finetune.keep_best: others saw fewer tokens")
    data = {name: steps.data(job, observer) for name, job in jobs.items()}
    every = {split: _tagged(jobs, split) for split in ("train", "dev", "held_out", "dev_loss")}
    check_splits(every["train"], every["dev"], every["held_out"])
    lead, plan = _plan(jobs, data, observer)
    settings = run_settings(jobs[lead], plan)
    tasks = resolved.recipe.data
    weights = {name: task.weight for name, task in tasks.tasks.items()}
    ways = mixtures(weights, _budget(jobs[lead], every["train"], settings), tasks.replay)
    bases = {
        name: measure_steps.measure_base(job, data[name], {"best_candidate": "zero-shot"}, observer).document
        for name, job in jobs.items()
    }
    rows = []
    for way in WAYS:
        trained = {}
        for run, mixture in ways[way].items():
            observer.say(f"{way}{'' if run == way else f': {run}'} …")
            mixed = replace(settings, mixture=mixture)
            trained[run] = _train(jobs[lead], every, mixed, f"{way}, {run}", observer)
        rows.append(_row(way, jobs, data, plan, bases, ways[way], trained, observer))
    return {
        "name": resolved.recipe.name,
        "method": plan["method"],
        "seed": resolved.recipe.seed,
        "budget_tokens": sum(count for _, count in ways[WAYS[0]][WAYS[0]][0]),
        "replay": tasks.replay,
        "tasks": [
            {
                "task": name,
                "weight": weights[name],
                "metric": job.metric,
                **{key: bases[name]["task"][key] for key in ("n", "low", "high")},
                "base": bases[name]["task"]["score"],
            }
            for name, job in jobs.items()
        ],
        "ways": rows,
    }


def _tagged(jobs: dict[str, Job], split: str) -> list[Row]:
    """Return the rows of all tasks, each with its task's name."""
    return [
        replace(row, metadata={**row.metadata, "task": name})
        for name, job in jobs.items()
        for row in getattr(job, f"{split}_rows")
    ]


def _plan(jobs: dict[str, Job], data: dict[str, Any], observer: Observer) -> tuple[str, dict[str, Any]]:
    """Plan for the task with the longest sequences: the others take less."""
    plans = {name: steps.plan(job, data[name], observer).document for name, job in jobs.items()}
    lead = max(plans, key=lambda name: int(plans[name]["sequence_tokens"]))
    if not plans[lead]["fits"]:
        raise VerdictError(
            f"no method fits the memory budget of {plans[lead]['budget_bytes']} bytes for the task {lead}",
            next_step="see `tunewright plan` for the nearest that does, with the task's files in data.train, dev, test",
        )
    return lead, plans[lead]


def _budget(job: Job, rows: Sequence[Row], settings: FinetuneSettings) -> int:
    """Return the tokens of the recipe's epochs over the rows of all tasks."""
    from components.finetuning.run_schedule import training_schedule
    from components.models.load import load_tokenizer

    once = training_schedule(load_tokenizer(job.base.folder), rows, replace(settings, epochs=1, mixture=()))[0]
    return round(once.tokens * settings.epochs)


def _train(
    job: Job,
    rows: dict[str, list[Row]],
    settings: FinetuneSettings,
    what: str,
    observer: Observer,
) -> dict[str, Any]:
    used = {name for stage in settings.mixture for name, _ in stage}
    train, dev = ([row for row in rows[split] if row.metadata["task"] in used] for split in ("train", "dev_loss"))
    identity = {
        "base": job.binding.base,
        "tokenizer": job.binding.tokenizer,
        "template": job.binding.template,
        "train": digest_of([row.to_dict() for row in train]),
    }
    section = job.recipe.finetune

    def make(key: str) -> dict[str, Any]:
        def tell(log: Any) -> None:
            observer.progress(f"finetune {what}: step", int(log["step"]), int(log["steps"]), step_detail(log))

        with sigterm_asked() as stop:
            result = launch.train(
                processes(job),
                threads=job.recipe.memory.threads,
                parallel=section.parallel,
                base_folder=job.base.folder,
                rows=train,
                dev_rows=dev,
                settings=settings,
                run_folder=job.home / "runs" / key[:24],
                identity=identity,
                # the last step's weights: another step's would be those of another budget
                dev=DevSettings(section.dev_passes, 0, keep_best=False),
                teacher_folder=job.teacher.folder if job.teacher else None,
                checkpoint_steps=section.checkpoint_steps,
                keep_checkpoints=section.keep_checkpoints,
                progress=tell,
                say=observer.say,
                stop=stop,
            )
        return {
            **asdict(result),
            "weights": str(result.weights.relative_to(job.home)),
            "weights_digest": sha256_tree(result.weights),
        }

    reads = {
        **identity,
        "settings": what_decides(settings),
        "sent": sent_dtype(job, settings),
        "dev": [digest_of([row.to_dict() for row in dev]), section.dev_passes],
        "code": source_digest(("components/finetuning", "components/data", "components/models")),
    }
    document = job.store.run("multitask", reads, make, lambda found: steps.weights_are_there(job, found)).document
    release_memory()
    return document


def _row(
    way: str,
    jobs: dict[str, Job],
    data: dict[str, Any],
    plan: dict[str, Any],
    bases: dict[str, dict[str, Any]],
    runs: dict[str, Mixture],
    trained: dict[str, dict[str, Any]],
    observer: Observer,
) -> dict[str, Any]:
    found = []
    tax: dict[str, dict[str, Any]] = {}
    for name, job in jobs.items():
        # a run of its own, or the one that learned all tasks
        training = trained.get(name) or trained[way]
        tuned = measure_steps.measure_tuned(job, data[name], plan, training, observer).document
        compared = compare(job, bases[name], tuned)
        for row in compared["tax"]:
            if row["suite"] not in tax or row["delta"] < tax[row["suite"]]["delta"]:
                tax[row["suite"]] = {"suite": row["suite"], "delta": row["delta"], "low": row["low"]}
        budgets = [count for mixture in runs.values() for stage in mixture for task, count in stage if task == name]
        found.append(
            {
                "task": name,
                "tokens": sum(budgets),
                **{key: tuned["task"][key] for key in ("score", "low", "high")},
                **{
                    f"delta{end}": compared["task"][key]
                    for end, key in (("", "delta"), ("_low", "low"), ("_high", "high"))
                },
            }
        )
    files = [path for run in trained.values() for path in (next(iter(jobs.values())).home / run["weights"]).iterdir()]
    return {
        "way": way,
        "runs": len(trained),
        **{key: sum(run[key] for run in trained.values()) for key in ("tokens", "steps", "seconds")},
        "bytes": sum(path.stat().st_size for path in files),
        "mean": sum(row["score"] for row in found) / len(found),
        "tasks": found,
        "tax": list(tax.values()),
    }
