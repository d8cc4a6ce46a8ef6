"""The decision of a run on raw text: how likely the base finds the dev documents, which no prompt changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flows.job import Job

__all__ = ["decide_on_text"]

CANDIDATE = "zero-shot"


def decide_on_text(job: Job, model: Any, tokenizer: Any, progress: Callable[[str, int, int], None]) -> dict[str, Any]:
    """Measure the base on the dev documents and say whether there is enough to train on.

    Args:
        job: The recipe on this machine.
        model: The base.
        tokenizer: Its tokenizer.
        progress: Called with (candidate, finished, all).

    Returns:
        The decision document with what raw text has of it: one candidate, no failures, no requests and their money.
    """
    from components.decision.rules import Rule
    from components.evaluation.perplexity import evaluate_texts

    rows, least = len(job.train_rows), job.recipe.decision.min_train_rows
    found = evaluate_texts(
        model,
        tokenizer,
        job.decision_rows,
        max_tokens=job.recipe.finetune.max_tokens,
        progress=lambda done, whole: progress(CANDIDATE, done, whole),
    )
    task, enough = found.task, rows >= least
    perplexity = f"perplexity {found.perplexity:.4g} on {task.n} dev documents, {found.tokens} tokens"
    rules = [
        Rule(
            "too few documents" if not enough else "enough documents",
            not enough,
            "more_data",
            f"{rows} documents to train on, at least {least} wanted",
            f"{least - rows} more documents" if not enough else f"fewer than {least} documents",
        )
    ]
    if enough:
        rules.append(
            Rule(
                "text is learned by training alone",
                True,
                "finetune",
                f"{perplexity}; a prompt changes no knowledge of a language or a domain",
                "nothing that is measured before training: the gate reads the held-out documents after it",
            )
        )
    candidate = {
        "name": CANDIDATE,
        "kind": "simple",
        **{key: getattr(task, key) for key in ("score", "low", "high", "n", "tokens_per_request")},
        "simultaneous_low": task.low,
        "simultaneous_high": task.high,
        "seconds_per_request": task.seconds_per_request,
        "scores": list(task.scores),
        "delta": None,
        "delta_low": None,
        "delta_high": None,
        "passages": None,
        "perplexity": found.perplexity,
    }
    return {
        "verdict": rules[-1].verdict,
        "reasons": [f"{rule.name}: {rule.evidence}. Would change with {rule.would_change}." for rule in rules],
        "best_candidate": CANDIDATE,
        "best_simple": CANDIDATE,
        "candidates": [candidate],
        "comparisons": [],
        "failures": {"form": 0, "facts": 0, "capability": 0},
        "failure_examples": [],
        "learning_curve": None,
        "rules": [rule.to_dict() for rule in rules],
        "undecided": [],
        "n": task.n,
        "subsets": [],
        "seed": job.recipe.seed,
        "override_reason": None,
        "champion": None,
    }
