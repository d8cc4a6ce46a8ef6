"""What a recipe with method features must have in rows and metric, checked before anything costly is done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from components.data.answers import Targets, check_answers, number_in, read_targets
from components.errors import InputError

if TYPE_CHECKING:
    from flows.job import Job

__all__ = ["check_head", "check_labels_fit"]

# What scores labels; numbers are scored by nearness alone, and labels that are numbers may be.
LABEL_METRICS, NUMBER_METRICS = ("label_accuracy", "exact_match"), ("number_closeness",)


def check_head(job: Job) -> Targets | None:
    """Hold rows and metric against what a head can learn, where the recipe's method is features.

    Returns:
        What the answers are; None for other methods.

    Raises:
        InputError: Answers that no head can learn, a label in dev or test that training never saw, or a metric that
            doesn't score what the head answers.
    """
    recipe = job.recipe
    if recipe.finetune.method != "features":
        return None
    data = recipe.data
    targets = read_targets(job.train_rows, recipe.finetune.head, job.repo / data.train)
    for path, rows in ((data.dev, job.dev_rows), (data.test, job.test_rows)):
        check_answers(targets, rows, job.repo / path)
    _check_metric(recipe.task.metric, targets)
    return targets


def check_labels_fit(targets: Targets, tokenizer: Any, max_new_tokens: int) -> None:
    """Refuse labels that an answer of `task.max_new_tokens` has no room for: the endpoint would cut them off.

    Raises:
        InputError: With the longest label.
    """
    from components.models.head import answer_ids

    lengths = {label: len(answer_ids(tokenizer, label)) for label in targets.labels}
    longest = max(lengths, key=lengths.__getitem__, default=None)
    if longest is not None and lengths[longest] > max_new_tokens:
        raise InputError(
            f"the label {longest!r} has {lengths[longest]} tokens with the turn's end, and task.max_new_tokens is "
            f"{max_new_tokens}",
            allowed=f"task.max_new_tokens of {lengths[longest]} or more",
            next_step="raise task.max_new_tokens",
        )


def _check_metric(metric: str, targets: Targets) -> None:
    allowed: Sequence[str] = NUMBER_METRICS
    if targets.task == "classification":
        numeric = all(number_in(label) is not None for label in targets.labels)
        allowed = (*LABEL_METRICS, *(NUMBER_METRICS if numeric else ()))
    if metric not in allowed:
        raise InputError(
            f"task.metric {metric} for a head that does {targets.task}",
            allowed=", ".join(allowed),
            next_step="set task.metric to one of these, or finetune.head to what the answers are",
        )
