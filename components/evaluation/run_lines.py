"""What each stage of a run came to, in a line each. The terminal summary and the markdown report print them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from components.evaluation.formatting import count, duration, number, plain, ratio, short, size, value
from components.evaluation.perplexity import TEXT_METRIC
from components.evaluation.run_document import VERDICT_TEXT, alias_stayed, missing_reason, section
from components.evaluation.table import rows_of

__all__ = ["outcome_lines", "planning_lines"]


def _decided(run: Mapping[str, Any]) -> str:
    decision = section(run, "decision")
    if not decision:
        return f"not run: {missing_reason(run, 'decision')}"
    verdict = plain(decision.get("verdict"))
    reasons = " ".join(plain(reason) for reason in decision.get("reasons") or ())
    override = decision.get("override_reason")
    went_on = f" Went on against the verdict: {plain(override)}." if override else ""
    return f"{VERDICT_TEXT.get(verdict, verdict)}. {reasons}{went_on}".strip()


def _planned(run: Mapping[str, Any]) -> str:
    plan, training = section(run, "plan"), section(run, "training")
    if not plan:
        return f"not run: {missing_reason(run, 'plan')}"
    batch = f"{count(plan.get('micro_batch_size'))} × {count(plan.get('gradient_accumulation_steps'))}"
    planned = f"{value(plan.get('method'))} in {value(plan.get('dtype'))}, batch {batch}"
    predicted = training.get("predicted_peak_bytes") or plan.get("peak_bytes")
    text = f"{planned}; peak {size(predicted)} predicted"
    if training.get("peak_bytes"):
        measured = training["peak_bytes"]
        text += f", {size(measured)} measured ({ratio(measured, predicted)} of predicted)"
    return f"{text}, budget {size(plan.get('budget_bytes'))}"


def _trained(run: Mapping[str, Any]) -> str:
    training = section(run, "training")
    if not training:
        return f"not run: {missing_reason(run, 'training')}"
    # documents are cut where a sequence is full
    rows = "pieces of documents" if section(run, "task").get("metric") == TEXT_METRIC else "rows"
    resumed, time = training.get("resumed_from"), section(training, "time")
    return (
        f"{count(training.get('steps'))} steps over {count(training.get('rows'))} {rows}, "
        f"{count(training.get('tokens'))} tokens in {duration(training.get('seconds'))} "
        f"({number(training.get('tokens_per_second'))} tokens/s)"
        + (f", {duration(time['predicted_seconds'])} predicted" if time else "")
        + (f"; {plain(training['ended'])}" if _ended_early(training) else "")
        + (f"; the weights of step {count(training['kept_step'])} are kept" if _kept_earlier(training) else "")
        + (f", resumed from {value(resumed)}" if resumed is not None else "")
        + (", before this run" if run.get("trained") is False else "")
    )


def _ended_early(training: Mapping[str, Any]) -> bool:
    planned = training.get("planned_steps")
    return planned is not None and planned != training.get("steps")


def _kept_earlier(training: Mapping[str, Any]) -> bool:
    kept = training.get("kept_step")
    return kept is not None and kept != training.get("steps")


def _gate(run: Mapping[str, Any]) -> str:
    gate = section(run, "gate")
    if not gate:
        return f"not run: {missing_reason(run, 'gate')}"
    checks = rows_of(gate.get("checks"))
    passed = sum(1 for check in checks if check.get("passed"))
    reasons = "; ".join(plain(reason) for reason in gate.get("reasons") or ())
    counted = f"{passed} of {len(checks)} checks passed" if checks else ""
    return ": ".join(filter(None, ["passed" if gate.get("passed") else "refused", counted, reasons]))


def _promoted(run: Mapping[str, Any]) -> str:
    promotion = section(run, "promotion")
    if not promotion:
        return f"not run: {missing_reason(run, 'promotion')}"
    pointing = f"{plain(promotion.get('alias'))} is {plain(promotion.get('current'))}"
    revision = value(promotion.get("revision"))
    if alias_stayed(run):
        return f"{pointing} as before (revision {revision}, unchanged)"
    before = promotion.get("previous")
    was = f", before {plain(before)}" if before else ", the first"
    return f"{pointing} (revision {revision}{was})"


def _bundled(run: Mapping[str, Any]) -> str:
    bundle = section(run, "bundle")
    if not bundle:
        return f"not run: {missing_reason(run, 'bundle')}"
    return f"{value(bundle.get('tag'))}, {size(bundle.get('bytes'))}, {value(bundle.get('path'))}"


def _answered(run: Mapping[str, Any]) -> str:
    endpoint = section(run, "endpoint")
    if not endpoint:
        return f"not run: {missing_reason(run, 'endpoint')}"
    streamed = f"{count(endpoint.get('streamed_chunks'))} chunks in {duration(endpoint.get('seconds'))}"
    return (
        f"{value(endpoint.get('question'))}\n{value(endpoint.get('answer'))}\n"
        f"(by {short(endpoint.get('model_digest'))}, {streamed}; gold: {value(endpoint.get('gold'))})"
    )


def planning_lines(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what was decided, planned and trained: (name, sentence) in order."""
    return [("Decided", _decided(run)), ("Planned", _planned(run)), ("Trained", _trained(run))]


def outcome_lines(run: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what the gate, the registry, the bundle and the endpoint came to: (name, sentence) in order."""
    named = (("Gate", _gate), ("Promoted", _promoted), ("Bundle", _bundled), ("Endpoint", _answered))
    lines = [(name, render(run)) for name, render in named]
    return [*lines, ("Took", duration(run.get("seconds")))]
