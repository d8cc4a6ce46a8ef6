"""The step that compares base and tuned model, on the task and on what was to be kept."""

from __future__ import annotations

from typing import Any

from components.errors import TunewrightError
from components.files import digest_of, sha256_file
from flows.job import Job
from flows.task_measure import metric_digest

__all__ = ["compare", "compare_task_scores"]


def compare(job: Job, base: dict[str, Any], tuned: dict[str, Any]) -> dict[str, Any]:
    """Compare base and tuned model: task with its subsets, and the alignment tax by suite.

    Returns:
        `task` and `tax` as in the run document.

    Raises:
        TunewrightError: As `compare_task_scores`.
    """
    from components.evaluation.suites import SuiteResult
    from components.evaluation.tax import compare as compare_suites
    from components.evaluation.tax import untouched

    def suites(document: dict[str, Any]) -> list[SuiteResult]:
        fields = ("suite", "digest", "metric", "score", "low", "high", "seconds")
        return [SuiteResult(**{k: s[k] for k in fields}, correct=tuple(s["correct"])) for s in document["suites"]]

    allowed = job.recipe.gate.max_suite_drop
    if tuned["base_untouched"]:
        tax = untouched(suites(base), max_drop=allowed)
    else:
        tax = compare_suites(suites(base), suites(tuned), max_drop=allowed)
    return {"task": compare_task_scores(job, base, tuned), "tax": tax}


def compare_task_scores(job: Job, base: dict[str, Any], tuned: dict[str, Any]) -> dict[str, Any]:
    """Compare what base and a version scored on the test rows, by subset.

    Args:
        job: The recipe on this machine.
        base: Document of `measure_base`.
        tuned: A document whose `task` is that of the version.

    Returns:
        `task` as in the run document. `test_digest` in it says what was scored and how: scores with the same one can
        be compared.

    Raises:
        TunewrightError: Kept scores are of other rows, or of the same in another order.
    """
    from components.evaluation.task import compare_task

    for document in (base, tuned):
        if document["task"]["rows_digest"] != job.test_rows_digest:
            raise TunewrightError(
                "the kept scores are not those of the present test rows",
                next_step=f"remove {job.home / 'steps'} and run again",
            )

    def compared(subset: str | None) -> dict[str, Any]:
        chosen = [i for i, row in enumerate(job.test_rows) if subset in (None, row.metadata.get("subset"))]
        columns = [document["task"][key] for key in ("scores", "predictions") for document in (base, tuned)]
        return compare_task(
            [job.test_rows[i] for i in chosen],
            *([column[i] for i in chosen] for column in columns),
            metric=job.metric,
            baseline=base["candidate"],
            options=None if job.on_text else job.metric_options,
            seed=job.recipe.seed,
        )

    subset = job.recipe.gate.subset
    task = {**compared(subset), "subset": subset, "subsets": compared(None)["subsets"]}
    cost = {
        side: {key: document["task"][key] for key in ("tokens_per_request", "seconds_per_request")}
        for side, document in (("base", base), ("tuned", tuned))
    }
    perplexity = (
        {"perplexity": {"base": base["task"]["perplexity"], "tuned": tuned["task"]["perplexity"]}}
        if job.on_text
        else {}
    )
    return {**task, **perplexity, "cost": cost, "test_digest": _test_digest(job, subset)}


def _test_digest(job: Job, subset: str | None) -> str:
    """Digest everything that a task score depends on but the model: rows, metric, its options and code, answer length.

    The seed is not in it: it matters only through the rows that it chose.
    """
    task, assets = job.recipe.task, job.recipe.data.assets
    return digest_of(
        {
            "rows": [row.to_dict() for row in job.test_rows if subset in (None, row.metadata.get("subset"))],
            "task": task.model_dump(mode="json"),
            "assets": sha256_file(job.repo / assets) if assets else None,
            "metric code": metric_digest(job),
        }
    )
