"""Measure the task itself: answer held-out rows, score them, and compare two models row by row.

After finetuning in the flow (base against tuned); the decision uses it for each prompting candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from components.errors import InputError
from components.evaluation.generation import generate
from components.evaluation.metrics import check_metric, score, summaries
from components.evaluation.statistics import mcnemar_p, paired_interval, pairs_needed, score_interval

if TYPE_CHECKING:
    from components.data.rows import Message, Row

__all__ = ["EXAMPLES_SHOWN", "TaskResult", "compare_task", "evaluate_task"]

EXAMPLES_SHOWN = 12
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class TaskResult:
    """What one model (with one way of prompting) scored on the rows.

    Attributes:
        metric: Name of the metric.
        scores: One number a row.
        predictions: One text a row.
        score: Mean of the scores.
        low: Lower bound of its 95 % interval.
        high: Upper bound.
        n: Number of rows.
        prompt_tokens_per_request: Mean length of the prompts.
        tokens_per_request: Mean length of prompt and answer together.
        seconds_per_request: Wall time divided by the number of rows, generation only.
        summaries: What the metric says of all rows together beside its mean.
    """

    metric: str
    scores: tuple[float, ...]
    predictions: tuple[str, ...]
    score: float
    low: float
    high: float
    n: int
    prompt_tokens_per_request: float
    tokens_per_request: float
    seconds_per_request: float
    summaries: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain JSON."""
        return {
            **{name: getattr(self, name) for name in ("metric", "score", "low", "high", "n")},
            "prompt_tokens_per_request": self.prompt_tokens_per_request,
            "tokens_per_request": self.tokens_per_request,
            "seconds_per_request": self.seconds_per_request,
            "summaries": dict(self.summaries),
            "scores": list(self.scores),
            "predictions": list(self.predictions),
        }


def evaluate_task(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Row],
    *,
    metric: str,
    options: Mapping[str, Any],
    max_new_tokens: int,
    prompts: Sequence[Sequence[Message]] | None = None,
    batch_size: int = 32,
    progress: Callable[[int, int], None] | None = None,
) -> TaskResult:
    """Answer every row and score the answers.

    Args:
        model: A causal language model, bare or wrapped by peft.
        tokenizer: Its tokenizer.
        rows: Rows with answers, at least one.
        metric: Name of a shipped metric.
        options: Options of the metric.
        max_new_tokens: Most tokens an answer may have.
        prompts: What to ask instead of the rows' own prompts, one for each row.
        batch_size: Prompts decoded at once.
        progress: Called with (finished, all) after each answer.

    Returns:
        Scores, predictions, interval and cost.

    Raises:
        InputError: No rows, an unknown metric or option (before anything is generated), or a prompt that is too long.
    """
    if not rows:
        raise InputError(
            "there are no rows to evaluate", next_step="check the split's file with `tunewright data check`"
        )
    check_metric(metric, options, rows)
    asked = [row.prompt for row in rows] if prompts is None else prompts
    if len(asked) != len(rows):
        raise InputError(f"{len(asked)} prompts for {len(rows)} rows", allowed="one prompt for each row")
    completions = generate(
        model, tokenizer, asked, max_new_tokens=max_new_tokens, batch_size=batch_size, progress=progress
    )
    predictions = tuple(completion.text for completion in completions)
    scores = tuple(score(metric, predictions, rows, options))
    interval = score_interval(scores)
    n = len(rows)
    prompt_tokens = sum(completion.prompt_tokens for completion in completions)
    answer_tokens = sum(completion.completion_tokens for completion in completions)
    return TaskResult(
        metric,
        scores,
        predictions,
        interval.delta,
        interval.low,
        interval.high,
        n,
        prompt_tokens / n,
        (prompt_tokens + answer_tokens) / n,
        sum(completion.seconds for completion in completions) / n,
        summaries(metric, predictions, rows, options),
    )


def compare_task(
    rows: Sequence[Row],
    base_scores: Sequence[float],
    tuned_scores: Sequence[float],
    base_predictions: Sequence[str],
    tuned_predictions: Sequence[str],
    *,
    metric: str,
    baseline: str,
    options: Mapping[str, Any] | None = NO_OPTIONS,
    subset_key: str = "subset",
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two models on the same rows, in all and for each subset.

    Args:
        rows: The rows, with their subset in `metadata[subset_key]` where there is one.
        base_scores: One score a row for the baseline.
        tuned_scores: The same for the tuned model.
        base_predictions: What the baseline answered.
        tuned_predictions: What the tuned model answered.
        metric: Name of the metric.
        baseline: Name of the prompting candidate behind the base scores.
        options: Options of the metric, for what it says of all rows together; None for a score of no metric module.
        subset_key: Metadata key that names a row's subset.
        seed: Seed of the bootstrap for scores other than 0 and 1.

    Returns:
        The `task` part of the run document: `metric`, `n`, `baseline`, `base`, `tuned`, `delta`, `low`, `high`,
        `p_value`, `pairs_needed`, `subsets`, `summaries` {`base`, `tuned`} where the metric has any, and up to 12
        `examples` each of rows `won` and `lost`.

    Raises:
        InputError: The lists differ in length.
    """
    if not len(rows) == len(base_predictions) == len(tuned_predictions) == len(base_scores) == len(tuned_scores):
        raise InputError("rows, scores and predictions differ in number", allowed="one of each for every row")
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if subset_key in row.metadata:
            groups.setdefault(str(row.metadata[subset_key]), []).append(index)
    subsets = [
        {"subset": name, **_difference([base_scores[i] for i in group], [tuned_scores[i] for i in group], seed)}
        for name, group in sorted(groups.items())
    ]
    won = [i for i in range(len(rows)) if tuned_scores[i] > base_scores[i]]
    lost = [i for i in range(len(rows)) if tuned_scores[i] < base_scores[i]]

    def example(index: int) -> dict[str, Any]:
        row = rows[index]
        return {
            "id": row.metadata.get("id", row.line),
            "subset": row.metadata.get(subset_key),
            "database": row.metadata.get("database"),
            "question": row.prompt[-1].content if row.prompt else "",
            "gold": row.answer,
            "base": base_predictions[index],
            "tuned": tuned_predictions[index],
        }

    return {
        "metric": metric,
        "baseline": baseline,
        **_difference(base_scores, tuned_scores, seed),
        "subsets": subsets,
        "summaries": {
            side: {} if options is None else summaries(metric, predictions, rows, options)
            for side, predictions in (("base", base_predictions), ("tuned", tuned_predictions))
        },
        "examples": {
            "won": [example(index) for index in won[:EXAMPLES_SHOWN]],
            "lost": [example(index) for index in lost[:EXAMPLES_SHOWN]],
        },
        "won": len(won),
        "lost": len(lost),
    }


def _difference(base: Sequence[float], tuned: Sequence[float], seed: int) -> dict[str, Any]:
    interval = paired_interval(base, tuned, seed)
    n = len(base)
    undecided = interval.low <= 0 <= interval.high
    differing = sum(a != b for a, b in zip(base, tuned, strict=True)) / n
    return {
        "n": n,
        "base": sum(base) / n,
        "tuned": sum(tuned) / n,
        "delta": interval.delta,
        "low": interval.low,
        "high": interval.high,
        "p_value": mcnemar_p(base, tuned),
        "pairs_needed": pairs_needed(differing, interval.delta) if undecided else None,
    }
