"""The main job's steps up to the weights as plain functions: each reads a job and earlier documents, gives a document.

`tasks.py` wraps them for Prefect; `--no-prefect` calls them as they are. Costly ones go through the step store, so
that a step whose inputs haven't changed isn't done again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from components.data.texts import SPLITS, check_texts
from components.errors import InputError
from components.files import digest_of, sha256_tree
from components.finetuning.best import GiveUp
from components.finetuning.methods import METHODS
from components.finetuning.processes import current_processes
from components.finetuning.settings import what_decides, what_dev_decides
from components.memory.process import TrainingProcess
from components.recipe_sections import MemorySection
from flows.decision_inputs import CHAMPION, find_champion, probe_trainer
from flows.head_checks import check_head, check_labels_fit
from flows.interruption import sigterm_asked
from flows.job import Job
from flows.long_context import task_scaling
from flows.observer import Observer
from flows.run_settings import (
    dev_settings,
    dev_task,
    kernel_wishes,
    probe_settings,
    processes,
    rope_scaling,
    rows_of_a_sequence,
    run_settings,
    sent_dtype,
    shared_work,
)
from flows.step_reads import model_reads, prompting_reads, split_digest, task_reads
from flows.step_store import Step, released, source_digest, torchao_version
from flows.text_objective import decide_on_text
from flows.training import train, watched_rows

__all__ = ["data", "decide", "finetune", "is_trained", "plan", "run_folder", "training_key", "weights_are_there"]

# A run trains on the rows as they are. With rag_then_finetune they lack the passages, and training on them would teach
# the model to invent facts: retrieval is put into the rows first, and the decision is made anew.
FINETUNE_VERDICTS = ("finetune",)


def data(job: Job, observer: Observer) -> dict[str, Any]:
    """Bring the data into the workspace, check the splits, and say what is there."""
    from components.data.chat import check_control_tokens
    from components.data.check import check_splits
    from components.models.load import load_tokenizer
    from flows.data_version import materialise

    version = materialise(job.repo, job.data_files, observer.say)
    job.forget_rows()
    if version.modified:
        observer.say("the data on disk differ from dvc.lock; the run uses what is on disk and records its digests")
    tokenizer = load_tokenizer(job.base.folder)
    # documents are split by their content, so that none is in two splits
    if not job.on_text:
        # all of the test file: what this seed doesn't draw, another does
        check_splits(job.train_rows, job.dev_rows, job.held_out_rows)
    for name in SPLITS:
        check = check_texts if job.on_text else check_control_tokens
        check(tokenizer, getattr(job, f"{name}_rows"), job.split_path(name))
    targets = check_head(job)
    if targets is not None:
        check_labels_fit(targets, tokenizer, job.recipe.task.max_new_tokens)
        observer.say(f"  {targets.task}" + (f" into {len(targets.labels)} classes" if targets.labels else ""))

    def described(rows: Sequence[Any]) -> dict[str, Any]:
        groups = sorted({str(r.metadata["database"]) for r in rows if "database" in r.metadata})
        return {"rows": len(rows), "groups": groups}

    splits = {"train": job.train_rows, "dev": job.dev_rows, "test": job.test_rows}
    return {
        **version.to_dict(),
        "splits": {name: described(rows) for name, rows in splits.items()},
        "licence": job.recipe.data.licence,
    }


def decide(job: Job, data: dict[str, Any], observer: Observer) -> Step:
    """Measure every candidate on a dev sample, and give a verdict."""
    recipe = job.recipe
    champion = find_champion(job, observer)

    def make(key: str) -> dict[str, Any]:
        from components.decision.decide import decide as measure
        from components.models.load import load_as_served

        model, tokenizer = load_as_served(
            job.base.folder, adapter=None, quantization=None, rope_scaling=task_scaling(job)
        )
        if job.on_text:
            return decide_on_text(
                job, model, tokenizer, lambda name, done, total: observer.progress(f"decide: {name}", done, total)
            )
        section = recipe.decision
        probe = (section.probe, probe_trainer(job, probe_settings(job), key, observer)) if section.probe else None
        decision = measure(
            model,
            tokenizer,
            dev_rows=job.decision_rows,
            train_rows=job.train_rows,
            metric=recipe.task.metric,
            metric_options=job.metric_options,
            max_new_tokens=recipe.task.max_new_tokens,
            candidates=tuple(name for name in section.candidates if name != CHAMPION),
            few_shot=section.few_shot,
            target_score=section.target_score,
            min_train_rows=section.min_train_rows,
            seed=recipe.seed,
            batch_size=recipe.evaluation.batch_size,
            written=job.written_prompt,
            context=job.context,
            champion=None if champion is None else partial(champion.load, job),
            probe=probe,
            progress=lambda name, done, total: observer.progress(f"decide: {name}", done, total),
        )
        return {**decision.to_dict(), "champion": champion and {"version": champion.label, "digest": champion.digest}}

    reads = {
        **task_reads(job, data),
        "splits": [split_digest(job, data, "train"), split_digest(job, data, "dev")],
        "subsets": [list(recipe.data.train_subsets), list(recipe.data.test_subsets), recipe.gate.subset],
        "settings": recipe.decision.model_dump(mode="json", exclude={"override_reason", "bases"}),
        "prompting": prompting_reads(job, data),
        "champion": champion and champion.digest,
        "probe": _probe_reads(job),
        "batch_size": recipe.evaluation.batch_size,
        "code": source_digest(("components/decision", "components/evaluation", "components/data")),
    }
    return released(job.store.run("decide", reads, make))


def plan(
    job: Job,
    data: dict[str, Any],
    observer: Observer,
    target: dict[str, Any] | None = None,
    process: TrainingProcess | None = None,
) -> Step:
    """Choose method and batch shape within the memory budget, and predict the run's time.

    Args:
        job: The recipe on this machine.
        data: The data step's document.
        observer: Who watches.
        target: Hardware and methods to plan for instead of this machine's, as `make_plan` takes them: gpu, devices,
            methods. A plan for other hardware is to be looked at, not to be trained by.
        process: A training process that was started early.
    """
    recipe = job.recipe
    own = shared_work(job)

    def make(_: str) -> dict[str, Any]:
        from components.finetuning.head_training import feature_workload
        from components.finetuning.run_schedule import run_workload
        from components.memory.hardware import parse_size
        from components.memory.plan import make_plan
        from components.models.load import load_tokenizer

        budget = None if recipe.memory.budget == "auto" else parse_size(recipe.memory.budget)
        if recipe.finetune.method == "features":
            watched_by_head = watched_rows(job, "features")
            workload = feature_workload(job.base.folder, job.train_rows, watched_by_head, recipe.finetune.max_tokens)
            observer.say(f"  longest prompt: {workload.longest} tokens")
        else:
            tokenizer = load_tokenizer(job.base.folder)
            settings, watched = run_settings(job, {}), dev_settings(job)
            workload = run_workload(tokenizer, job.train_rows, job.dev_loss_rows, settings, watched)
            observer.say(f"  longest packed sequence: {workload.longest} tokens")
        found = make_plan(
            job.base.folder,
            method=recipe.finetune.method,
            rank=job.tactics.rank,
            targets=job.tactics.targets,
            sequence_tokens=workload.longest,
            effective_rows=recipe.finetune.effective_rows,
            rows_per_sequence=recipe.finetune.rows_per_sequence,
            budget_bytes=budget,
            dtype=recipe.memory.dtype,
            workload=workload,
            dropout=recipe.finetune.dropout,
            dora=recipe.finetune.dora,
            bottleneck_width=recipe.finetune.bottleneck_width,
            virtual_tokens=recipe.finetune.virtual_tokens,
            rope_scaling=rope_scaling(job),
            head_pooling=recipe.finetune.head_pooling,
            head_layer=recipe.finetune.head_layer,
            quantization_aware=recipe.finetune.quantization_aware,
            teacher=job.teacher.folder if job.teacher else None,
            wishes=kernel_wishes(job),
            rows=rows_of_a_sequence(job),
            process=process,
            **{"methods": job.tactics.methods, **own, **(target or {})},
        )
        return found.to_dict()

    shape = ("method", "rank", "targets", "effective_rows", "rows_per_sequence", "max_tokens", "epochs",
             "prompt_loss_weight", "dropout", "dora", "bottleneck_width", "virtual_tokens", "head_pooling",
             "head_layer", "quantization_aware", "objective", "attention", "compile", "liger")  # fmt: skip
    reads = {
        **model_reads(job),
        "train": [split_digest(job, data, "train"), list(recipe.data.train_subsets)],
        "dev loss": [
            digest_of([row.to_dict() for row in watched_rows(job, recipe.finetune.method)]),
            recipe.finetune.dev_passes,
        ],
        "finetune": {name: getattr(job.tactics, name, getattr(recipe.finetune, name)) for name in shape},
        "rope scaling": str(rope_scaling(job)),
        "methods": job.tactics.methods if recipe.finetune.method == "auto" else None,
        "target": target,
        "processes": own,
        "teacher": job.teacher_fingerprint,
        # another price plans nothing anew
        "memory": recipe.memory.model_dump(mode="json", exclude={"price_per_hour", "gpu_prices"}),
        # what is free at the moment is not among these: the same machine gets the same plan
        "machine": _machine(),
        # planning draws nothing, but the seed groups the rows, and the longest group is what memory is planned for
        "seed": recipe.seed,
        "code": source_digest(("components/memory", "components/finetuning", "components/data")),
    }
    # memory that was short when nothing fitted may be there now; a given budget stays what it is
    asked_again = recipe.memory.budget == "auto"
    step = job.store.run("plan", reads, make, lambda document: document["fits"] or not asked_again)
    # the search's models and the timed blocks would count as training's
    return released(_priced(step, recipe.memory))


def finetune(
    job: Job,
    data: dict[str, Any],
    plan: dict[str, Any],
    observer: Observer,
    give_up: GiveUp = lambda _: False,
    *,
    first_in_process: bool = True,
) -> Step:
    """Train by the plan, or go on where a killed run stopped, or return the weights that are there.

    Args:
        job: The recipe on this machine.
        data: The data step's document.
        plan: The plan step's.
        observer: Who watches.
        give_up: Told each dev measurement of a run that trains, says whether to stop.
        first_in_process: Nothing was trained before in this process; what that leaves is no misprediction.

    Raises:
        StoppedError: SIGTERM came, or `give_up` said so; a checkpoint of the last step is saved.
    """
    from components.memory.misprediction import compare_peak, compare_time, report_request

    if current_processes().count > 1:
        raise InputError(
            "a recipe's chain runs in one process, and starts others for training itself",
            next_step="start it without torchrun or accelerate launch, and set finetune.processes",
        )
    settings = run_settings(job, plan)
    identity = _identity(job, data)
    watched = watched_rows(job, plan["method"])
    # where they decide nothing, other dev rows leave the weights what they are
    dev_loss_digest = digest_of([row.to_dict() for row in watched])

    def make(key: str) -> dict[str, Any]:
        folder = run_folder(job, key)
        with sigterm_asked() as stop:
            result = train(job, watched, settings, folder, identity, stop, give_up, observer)
        document = asdict(result)
        peak = result.planned_peak_bytes
        memory = compare_peak(plan, peak, result.splits) if peak is not None else None
        if result.deltas is not None:
            observer.say(f"  {result.deltas['hint']}")
        # a plan is that of plain blocks
        as_planned = first_in_process and not (settings.kernels.compile or settings.kernels.liger)
        warning = report_request(memory, plan, result.splits) if memory is not None and as_planned else None
        if warning is not None:
            observer.say(f"  {warning}")
        return {
            **document,
            "memory": memory,
            # the plan's time is that of all steps, and of no answers and no epochs of a head
            "time": compare_time(plan, result.planned_seconds) if result.planned_seconds is not None else None,
            "weights": str(result.weights.relative_to(job.home)),
            "weights_digest": sha256_tree(result.weights),
            "predicted_peak_bytes": plan.get("peak_bytes"),
            "epochs": job.tactics.epochs,
            "processes": processes(job),
            "parallel": job.recipe.finetune.parallel,
            "dev_loss_digest": dev_loss_digest,
        }

    step = job.store.run("finetune", _training_reads(job, data, plan), make, partial(weights_are_there, job))
    if step.document["dev_loss_digest"] != dev_loss_digest:
        observer.say("  the dev losses are of the dev rows at the time of training, which differ from today's")
    return released(step)


def training_key(job: Job, data: dict[str, Any], plan: dict[str, Any]) -> str:
    """Return the content key under which `finetune` keeps what it trains."""
    return job.store.key("finetune", _training_reads(job, data, plan))


def run_folder(job: Job, key: str) -> Path:
    """Return where the checkpoints and weights of a training are, by its content key."""
    return job.home / "runs" / key[:24]


def is_trained(job: Job, data: dict[str, Any], plan: dict[str, Any]) -> bool:
    """Tell whether `finetune` would return weights that are there."""
    return job.store.find("finetune", _training_reads(job, data, plan), partial(weights_are_there, job)) is not None


def _identity(job: Job, data: dict[str, Any]) -> dict[str, str]:
    """Return the digests that a checkpoint must share to be resumed."""
    recipe = job.recipe
    return {
        "base": job.binding.base,
        "tokenizer": job.binding.tokenizer,
        "template": job.binding.template,
        "train": digest_of([split_digest(job, data, "train"), list(recipe.data.train_subsets)]),
    }


def _training_reads(job: Job, data: dict[str, Any], plan: dict[str, Any]) -> dict[str, Any]:
    # a head is the epoch with the smallest loss on all dev rows
    head = METHODS[plan["method"]].kind == "head"
    every_dev_row = digest_of([row.to_dict() for row in job.dev_rows]) if head else None
    settings = run_settings(job, plan)
    return {
        **_identity(job, data),
        **model_reads(job),
        # how many processes share it decides nothing, nor how, but for what they round before it is sent
        "settings": what_decides(settings),
        "sent": sent_dtype(job, settings),
        "dev": every_dev_row or what_dev_decides(dev_settings(job), job.dev_loss_rows, dev_task(job)),
        "dev metric": _dev_metric_reads(job, data),
        "torchao": torchao_version() if job.recipe.finetune.quantization_aware else None,
        "code": source_digest(("components/finetuning", "components/data")),
    }


def _dev_metric_reads(job: Job, data: dict[str, Any]) -> list[Any] | None:
    """Return what the score of dev answers depends on besides rows; None where no weights depend on it."""
    if not job.dev_metric_rows or not dev_settings(job).decides:
        return None
    reads = task_reads(job, data)
    return [reads["task"], reads["assets"], source_digest(("components/evaluation",))]


def weights_are_there(job: Job, document: dict[str, Any]) -> bool:
    """Tell whether what a training document names is on disk, to the byte."""
    folder = job.home / document["weights"]
    return folder.is_dir() and sha256_tree(folder) == document["weights_digest"]


def _probe_reads(job: Job) -> list[Any] | None:
    """Return what a probe depends on, since it trains; without one, finetuning has no part in the decision."""
    if not job.recipe.decision.probe:
        return None
    return [asdict(probe_settings(job)), source_digest(("components/finetuning", "components/memory"))]


def _priced(step: Step, memory: MemorySection) -> Step:
    """Say what a plan's run costs at today's prices, which aren't kept with the plan."""
    from components.memory.prices import priced

    return replace(step, document=priced(step.document, memory.price_per_hour, memory.gpu_prices))


def _machine() -> dict[str, Any]:
    from components.memory.hardware import machine

    return asdict(machine())
