"""What a run came to: reads the run document's outcome, and why a section of it is missing.

The run document is what `tunewright run RECIPE --json` prints; the report and the summary are two views of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from components.evaluation.formatting import interval, number, percent, plain, points

__all__ = ["VERDICT_TEXT", "Outcome", "alias_stayed", "missing_reason", "outcome", "section"]

FINETUNE_VERDICTS = ("finetune",)
VERDICT_TEXT = {
    "prompt": "prompting is enough",
    "rag": "retrieval is the answer",
    "finetune": "finetune",
    "rag_then_finetune": "retrieve, then finetune",
    "other_base": "take another base model",
    "more_data": "collect more data first",
}


@dataclass(frozen=True)
class Outcome:
    """How the run ended: `tone` is good, bad or neutral; `label` is two words, `sentence` says why."""

    tone: str
    label: str
    sentence: str


def section(run: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a section of the run document, empty when it is missing or null."""
    found = run.get(name)
    return found if isinstance(found, Mapping) else {}


def alias_stayed(run: Mapping[str, Any]) -> bool:
    """Say whether the alias pointed at this very version before the run, so that nothing was moved."""
    return section(run, "promotion").get("changed") is False


def _task_sentence(run: Mapping[str, Any]) -> str:
    task = section(run, "task")
    if not task:
        return ""
    baseline = plain(task.get("baseline") or "the base model")
    scores = f"{percent(task.get('tuned'))} tuned against {percent(task.get('base'))} for {baseline}"
    span = interval(task.get("low"), task.get("high"), signed=True)
    subset = f"{plain(task['subset'])} " if task.get("subset") else ""
    gained = f"{points(task.get('delta'))} points (95 % interval {span})"
    perplexity = section(task, "perplexity")
    if perplexity:
        scores += f" (perplexity {number(perplexity.get('tuned'))} against {number(perplexity.get('base'))})"
    rows = "documents" if perplexity else "rows"
    return f"{plain(task.get('metric'))}: {scores}, {gained} on {task.get('n')} held-out {subset}{rows}."


def _stopped_at_decision(run: Mapping[str, Any]) -> bool:
    verdict = section(run, "decision").get("verdict")
    return verdict is not None and verdict not in FINETUNE_VERDICTS and not any(map(run.get, ("training", "task")))


def outcome(run: Mapping[str, Any]) -> Outcome:
    """Say how the run ended.

    Args:
        run: The run document; any section may be missing or null.

    Returns:
        Promoted, still promoted, gate refused, not finetuned, or the last stage that it reached.
    """
    decision, gate, promotion = section(run, "decision"), section(run, "gate"), section(run, "promotion")
    evidence = _task_sentence(run)
    if promotion:
        alias = plain(promotion.get("alias"))
        if alias_stayed(run):
            return Outcome("good", f"Still {alias}", f"{plain(run.get('version'))} stays {alias}. {evidence}".strip())
        return Outcome("good", "Promoted", f"{plain(run.get('version'))} is now {alias}. {evidence}".strip())
    if gate and not gate.get("passed"):
        reasons = "; ".join(plain(reason) for reason in gate.get("reasons") or ()) or "no reason was recorded"
        return Outcome("bad", "Gate refused", f"Registered, not promotable: {reasons}. {evidence}".strip())
    if _stopped_at_decision(run):
        verdict = plain(decision.get("verdict"))
        reasons = " ".join(plain(reason) for reason in decision.get("reasons") or ())
        return Outcome("neutral", "Not finetuned", f"Verdict: {VERDICT_TEXT.get(verdict, verdict)}. {reasons}".strip())
    plan = section(run, "plan")
    if plan and plan.get("fits") is False and not run.get("training"):
        return Outcome("bad", "Does not fit", "No finetuning method fits the memory budget, so nothing was trained.")
    if gate:
        return Outcome("neutral", "Gate passed", f"Not promoted in this run. {evidence}".strip())
    reached = [name for name in ("decision", "plan", "training", "task", "tax") if run.get(name)]
    where = f"after: {reached[-1]}" if reached else "before anything was measured"
    return Outcome("neutral", "Incomplete", f"The run ended {where}. {evidence}".strip())


def missing_reason(run: Mapping[str, Any], name: str) -> str:
    """Say why a section of the run document is missing.

    Args:
        run: The run document.
        name: The section's key.

    Returns:
        One sentence, for people.
    """
    gate = section(run, "gate")
    if name == "decision":
        return "the run ended before the decision, or the recipe switched it off"
    if name == "bases":
        return "the recipe names no bases to compare (decision.bases)"
    if name in ("money", "tactics"):
        return "the run ended before this stage"
    if _stopped_at_decision(run):
        verdict = plain(section(run, "decision").get("verdict"))
        return f"the decision was '{verdict}' ({VERDICT_TEXT.get(verdict, verdict)}), so the run ended there"
    if name == "tax" and run.get("task"):
        return "the recipe names no suites (evaluation.suites)"
    if name in ("promotion", "bundle", "endpoint") and gate and not gate.get("passed"):
        return "the gate refused this version"
    if name in ("bundle", "endpoint"):
        return "this run promoted nothing" if not run.get("promotion") else "this run was not asked to serve"
    if name == "promotion":
        return "this run was not asked to promote, or it ended before"
    if name == "training" and run.get("trained") is False and run.get("version"):
        return "the same data, recipe and base were trained before, so that version was returned"
    if name == "training" and section(run, "plan").get("fits") is False:
        return "no finetuning method fits the memory budget"
    return "the run ended before this stage"
