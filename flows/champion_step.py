"""The step between registration and promotion that measures the champion on the present test, where nobody has yet.

The gate compares scores of one test only. Without this step a challenger would pass unopposed whenever test rows, seed
or metric changed since the champion was measured.
"""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from flows.comparison_step import compare_task_scores
from flows.job import Job
from flows.observer import Observer
from flows.promotion_step import held_alias
from flows.step_store import library_versions, source_digest
from flows.task_measure import measure_task

if TYPE_CHECKING:
    from registry.entities import Version
    from registry.store import Registry

__all__ = ["is_unmeasured", "measure_champion"]


def is_unmeasured(job: Job, comparison: dict[str, Any], registered: dict[str, Any]) -> bool:
    """Tell whether the alias holds another version that has no report on the present test."""
    from registry.store import Registry

    with Registry.open(job.home / "registry") as registry:
        return _unmeasured(registry, job, comparison, registered) is not None


def measure_champion(
    job: Job, base: dict[str, Any], comparison: dict[str, Any], registered: dict[str, Any], observer: Observer
) -> dict[str, Any]:
    """Score the version that the alias holds on the present test rows, and record that as its newest report.

    Its alignment tax, its policy and the rest of its report stay what they were.

    Args:
        job: The recipe on this machine.
        base: Document of `measure_base`, which the champion is compared with as the challenger was.
        comparison: Document of `compare`.
        registered: Document of `register`.
        observer: Who watches.

    Returns:
        `version`, `digest`, and `task` as in the run document; all None where there is nothing to measure.
    """
    from deploy.from_registry import version_files
    from registry.store import Registry

    with Registry.open(job.home / "registry") as registry:
        holder = _unmeasured(registry, job, comparison, registered)
        if holder is None:
            return dict.fromkeys(("version", "digest", "task"))
        observer.say(f"  {holder.label} was measured on another test, and is measured on this one")
        files = version_files(registry, holder.digest)

    def make(_: str) -> dict[str, Any]:
        from components.models.load import load_as_served

        model, tokenizer = load_as_served(
            files.base_folder, adapter=files.adapter_folder, quantization=files.quantization
        )
        return measure_task(
            job,
            model,
            tokenizer,
            progress=lambda done, total: observer.progress(f"evaluate the champion {holder.label}", done, total),
        )

    reads = {
        "version": holder.digest,
        "test": comparison["task"]["test_digest"],
        "rows": job.test_rows_digest,
        "batch_size": job.recipe.evaluation.batch_size,
        "libraries": library_versions(),
        "code": source_digest(("components/evaluation", "components/data", "components/models", "deploy")),
    }
    step = job.store.run("measure-champion", reads, make)
    gc.collect()
    task = compare_task_scores(job, base, {"task": step.document})
    with Registry.open(job.home / "registry") as registry:
        # recipes that share the alias may measure it at the same time: neither may take the other's report for its own
        registry.record_evaluation(holder.digest, {"task": task, "seed": job.recipe.seed}, over_newest=True)
    return {"version": holder.label, "digest": holder.digest, "task": task}


def _unmeasured(registry: Registry, job: Job, comparison: dict[str, Any], registered: dict[str, Any]) -> Version | None:
    held = held_alias(registry, job)
    if held is None or held.digest == registered["digest"]:
        return None
    tasks = [found.report.get("task") or {} for found in registry.evaluations(held.digest)]
    present = (comparison["task"]["metric"], comparison["task"]["test_digest"])
    if present in [(task.get("metric"), task.get("test_digest")) for task in tasks]:
        return None
    return registry.resolve(held.digest)
