"""Score a model on the recipe's test rows: answers by the task's metric, or raw text by how likely it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flows.job import Job
from flows.step_store import source_digest

if TYPE_CHECKING:
    from components.data.rows import Message

__all__ = ["measure_task", "metric_digest"]


def measure_task(
    job: Job,
    model: Any,
    tokenizer: Any,
    *,
    progress: Callable[[int, int], None],
    prompts: Sequence[Sequence[Message]] | None = None,
) -> dict[str, Any]:
    """Score a model on the test rows.

    Args:
        job: The recipe on this machine.
        model: The model as it is served.
        tokenizer: Its tokenizer.
        progress: Called with (finished, all).
        prompts: What to ask instead of the rows' own prompts.

    Returns:
        The document of a task's measurement, with `rows_digest`; on raw text also `perplexity`, `bits_per_token` and
        `tokens`.
    """
    from components.evaluation.perplexity import evaluate_texts
    from components.evaluation.task import evaluate_task

    recipe = job.recipe
    if job.on_text:
        found: Any = evaluate_texts(
            model, tokenizer, job.test_rows, max_tokens=recipe.finetune.max_tokens, progress=progress
        )
    else:
        found = evaluate_task(
            model,
            tokenizer,
            job.test_rows,
            metric=recipe.task.metric,
            options=job.metric_options,
            max_new_tokens=recipe.task.max_new_tokens,
            prompts=prompts,
            batch_size=recipe.evaluation.batch_size,
            progress=progress,
        )
    return {**found.to_dict(), "rows_digest": job.test_rows_digest}


def metric_digest(job: Job) -> list[Any] | str:
    """Digest what the score is made by, apart from the rows: the metric's code, and on raw text the windows' length."""
    if job.on_text:
        return [job.metric, job.recipe.finetune.max_tokens]
    return source_digest((f"components/evaluation/metric_modules/{job.recipe.task.metric}",))
