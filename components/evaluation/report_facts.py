"""The named values of the report that stand outside its tables, each with a note such as its sample size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from components.evaluation.formatting import (
    ABSENT,
    count,
    duration,
    interval,
    number,
    percent,
    plain,
    points,
    short,
    size,
    value,
)
from components.evaluation.run_document import alias_stayed, section
from components.evaluation.table import rows_of

__all__ = ["Fact", "headline_facts", "memory_facts", "provenance_facts", "serving_facts", "training_facts"]


class Fact(NamedTuple):
    """One measured or recorded value with its name, and a note such as its sample size."""

    label: str
    text: str
    note: str = ""


def headline_facts(run: Mapping[str, Any]) -> list[Fact]:
    """Return the few numbers that a reader looks for first."""
    task, training, plan = section(run, "task"), section(run, "training"), section(run, "plan")
    facts = []
    if task:
        note = f"{percent(task.get('base'))} to {percent(task.get('tuned'))}, n = {count(task.get('n'))}"
        facts.append(Fact("Task, points gained", points(task.get("delta")), note))
    suites = [row for row in rows_of(run.get("tax")) if isinstance(row.get("delta"), int | float)]
    if suites:
        worst = min(suites, key=lambda row: row["delta"])
        note = f"{plain(worst.get('suite'))}, {interval(worst.get('low'), worst.get('high'), signed=True)}"
        facts.append(Fact("Worst tax, points", points(worst["delta"]), f"{note}, n = {count(worst.get('n'))}"))
    measured, predicted = training.get("peak_bytes"), plan.get("peak_bytes")
    if measured or predicted:
        note = f"planned {size(predicted)}" if measured else f"planned; budget {size(plan.get('budget_bytes'))}"
        facts.append(Fact("Peak memory", size(measured or predicted), note))
    if training:
        note = f"{count(training.get('rows'))} rows, {number(training.get('tokens_per_second'))} tokens/s"
        facts.append(Fact("Training", duration(training.get("seconds")), note))
    elif candidates := rows_of(section(run, "decision").get("candidates")):
        best = max(candidates, key=lambda row: row.get("score") or 0.0)
        note = f"{plain(best.get('name'))}, n = {count(best.get('n', section(run, 'decision').get('n')))}"
        facts.append(Fact("Best prompting score", percent(best.get("score")), note))
    return [*facts, Fact("Whole run", duration(run.get("seconds")), plain(run.get("profile") or ""))]


def memory_facts(run: Mapping[str, Any]) -> list[Fact]:
    """Return how training was planned to fit the memory."""
    plan = section(run, "plan")
    batch = f"{count(plan.get('micro_batch_size'))} × {count(plan.get('gradient_accumulation_steps'))}"
    return [
        Fact("Method", value(plan.get("method")), f"{value(plan.get('dtype'))} on {value(plan.get('device'))}"),
        Fact("Micro-batch × accumulation", batch, f"{value(plan.get('rows_per_sequence'))} rows a sequence"),
        Fact("Gradient checkpointing", value(plan.get("gradient_checkpointing"))),
        Fact("Predicted peak", size(plan.get("peak_bytes")), f"budget {size(plan.get('budget_bytes'))}"),
    ]


def training_facts(run: Mapping[str, Any]) -> list[Fact]:
    """Return how much was trained, for how long."""
    training = section(run, "training")
    trainable, total = training.get("trainable_parameters"), training.get("total_parameters")
    share = percent(trainable / total) if trainable and total else ABSENT
    resumed, hint = training.get("resumed_from"), section(training, "deltas").get("hint")
    kept = training.get("kept_step")
    return [
        Fact("Steps", count(training.get("steps")), f"{number(training.get('epochs'))} epochs"),
        Fact("Rows", count(training.get("rows")), f"{count(training.get('tokens'))} tokens"),
        Fact("Time", duration(training.get("seconds")), f"{number(training.get('tokens_per_second'))} tokens/s"),
        Fact("Trained parameters", count(trainable), f"{share} of {count(total)}"),
        *([Fact("Ended", plain(training["ended"]))] if training.get("ended") else []),
        *([Fact("Weights of step", count(kept), plain(training.get("kept_reason")))] if kept is not None else []),
        Fact("Resumed from", value(resumed) if resumed is not None else "the start"),
        *([Fact("Ranks in use", plain(hint))] if hint else []),
        *_head_facts(section(training, "head")),
    ]


def _head_facts(head: Mapping[str, Any]) -> list[Fact]:
    """Return what a head is, and what an epoch of it took."""
    if not head:
        return []
    kind = f"{value(head.get('task'))}, " + (f"a hidden layer of {head['width']}" if head.get("width") else "linear")
    taken = f"{plain(head.get('pooling'))} token" if head.get("pooling") == "last" else "mean over the prompt's tokens"
    return [
        Fact("Head", kind, f"features: {taken}, layer {value(head.get('layer'))}"),
        Fact("Best epoch", f"{count(head.get('best_epoch'))} of {count(head.get('epochs'))}",
             f"{duration(head.get('seconds_per_epoch'))} an epoch; features took "
             f"{duration(head.get('features_seconds'))}"),
    ]  # fmt: skip


def provenance_facts(run: Mapping[str, Any]) -> list[Fact]:
    """Return what another run needs to come to the same version."""
    base, environment, data = section(run, "base"), section(run, "environment"), section(run, "data")
    splits = section(data, "splits")
    fingerprint = base.get("fingerprint") or run.get("base_fingerprint")
    facts = [
        Fact("Version", value(run.get("version")), f"digest {value(run.get('digest'))}"),
        Fact("Base", value(base.get("name")), f"fingerprint {value(fingerprint)}"),
        Fact("Seed", value(run.get("seed")), f"profile {value(run.get('profile'))}"),
        Fact("Started", value(run.get("started_at")), f"took {duration(run.get('seconds'))}"),
        Fact("Licence of the data", value(data.get("licence"))),
    ]
    for name, split in splits.items():
        groups = split.get("groups") or () if isinstance(split, Mapping) else ()
        rows = split.get("rows") if isinstance(split, Mapping) else split
        facts.append(Fact(f"Split {plain(name)}", f"{count(rows)} rows", value(list(groups)) if groups else ""))
    machine = f"{value(environment.get('cores'))} cores, {size(environment.get('memory_bytes'))}"
    if environment:
        facts.append(Fact("Machine", value(environment.get("cpu")), f"{machine}, {value(environment.get('platform'))}"))
        versions = section(environment, "versions")
        listed = ", ".join(f"{plain(name)} {plain(number_)}" for name, number_ in sorted(versions.items()))
        facts.append(Fact("Software", f"Python {value(environment.get('python'))}", listed))
    return facts


def serving_facts(run: Mapping[str, Any]) -> list[Fact]:
    """Return what was promoted, bundled and asked."""
    promotion, bundle, endpoint = section(run, "promotion"), section(run, "bundle"), section(run, "endpoint")
    facts = []
    if promotion:
        before = value(promotion.get("previous")) if promotion.get("previous") else "nothing"
        moved = "unchanged" if alias_stayed(run) else f"before: {before}"
        note = f"{moved}; revision {value(promotion.get('revision'))}"
        facts.append(Fact(f"Alias {plain(promotion.get('alias'))}", value(promotion.get("current")), note))
    if bundle:
        facts.append(
            Fact("Bundle", value(bundle.get("tag")), f"{size(bundle.get('bytes'))}, {value(bundle.get('path'))}")
        )
    if endpoint:
        same = endpoint.get("model_digest") == run.get("digest")
        note = "the digest that was registered" if same else f"differs from the registered {short(run.get('digest'))}"
        usage = section(endpoint, "usage")
        spent = f"{value(usage.get('prompt_tokens'))} tokens in, {value(usage.get('completion_tokens'))} out"
        streamed = f"{count(endpoint.get('streamed_chunks'))} chunks in {duration(endpoint.get('seconds'))}"
        facts.append(Fact("Model that answered", short(endpoint.get("model_digest")), note))
        facts.append(Fact("Streamed", streamed, spent))
        canary = section(endpoint, "canary")
        if canary:
            listed = ", ".join(f"{plain(k)} {value(v)}" for k, v in canary.items() if k != "passed")
            facts.append(
                Fact(
                    "Canary",
                    "failed" if canary.get("passed") is False else "passed" if canary.get("passed") else "ran",
                    listed,
                )
            )
    return facts
