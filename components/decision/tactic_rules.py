"""What each rule of thumb says of one setting, and what speaks against another value. Gathered by tactics.py.

The rules are those of Huyen 2025 ("AI Engineering", chapter 7), with the papers named at each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from components.decision.situation import Situation

__all__ = ["AUTO", "Advice", "advise", "epochs_for"]

AUTO = "auto"
# "LoRA Without Regret" (Schulman & Thinking Machines Lab 2025) fits the best rate over Llama models of 1B to 70B:
# 5e-5 x (2000 / width)^0.781 for full finetuning, ten times that for LoRA, whatever the rank.
FULL_RATE, RATE_WIDTH, RATE_EXPONENT, LORA_FACTOR = 5e-5, 2000, 0.781, 10
# Beyond the widths that were fitted the power law is not trusted further than this.
HIGHEST_FULL_RATE = 2e-4
UNKNOWN_WIDTH = 4096
# A soft prompt is moved by its own size, and not by that of the model. Prompt tuning: Lester et al. 2021, section
# 3.3, and the best of 0.003, 0.03 and 0.3 on SmolLM2-135M (13 steps of text to SQL), where prefix tuning still gained
# from 0.03 to 0.3 and p-tuning, whose network has a scale of its own, took 0.001 and lost its way at 0.01.
SOFT_PROMPT_RATES = {"prompt_tuning": 0.3, "prefix_tuning": 0.1, "p_tuning": 1e-3}
# AdamW's own default; standardised features make the head's scale that of one, whatever the base.
HEAD_RATE = 1e-3
# A pass over kept features takes a fraction of a second, and the dev loss chooses among them.
HEAD_EPOCHS = 100.0
# Epochs by training rows, straight lines over the logarithm between them.
EPOCHS = ((1e3, 10.0), (1e4, 4.0), (1e6, 2.0), (1e7, 1.0))
MOST_EPOCHS = ((1e4, 10.0), (1e6, 2.0))
# Muennighoff et al. 2023 (arXiv:2305.16264): how often language modelling may see the same text.
MOST_TEXT_EPOCHS = 4.0
FEW_ROWS, SMALL_DATA_ROWS = 1_000, 10_000
SMALLEST_BATCH = 8
USUAL_RANKS = (4, 64)
LARGEST_PROMPT_WEIGHT = 0.1


@dataclass(frozen=True)
class Advice:
    """What a rule would take, why, and its objection to another value: a sentence, or None."""

    value: Any
    reason: str
    objection: Callable[[Any], str | None]


def advise(situation: Situation, method: str, effective_rows: int) -> dict[str, Advice]:
    """Ask every rule.

    Args:
        situation: Data, base and memory.
        method: The recipe's method; full finetuning, soft prompts and heads take learning rates of their own.
        effective_rows: The recipe's rows behind an optimizer step.

    Returns:
        Advice by key of the recipe's finetune section, in the order in which it is read.
    """
    return {
        "method": _method(situation),
        "rank": _rank(situation),
        "targets": _targets(situation),
        "learning_rate": _learning_rate(situation, method),
        "effective_rows": _batch(effective_rows),
        "epochs": _epochs(situation, method),
        "prompt_loss_weight": _prompt_loss_weight(situation),
    }


def epochs_for(rows: int) -> float:
    """Return the passes over so many training rows: 10 up to 1,000, 4 at 10,000, 2 at a million, 1 from ten."""
    return float(round(_between(EPOCHS, rows)))


def _method(s: Situation) -> Advice:
    if s.rows < SMALL_DATA_ROWS:
        reason = (
            f"{s.rows:,} training rows are few: full finetuning is not expected to beat LoRA below about "
            f"{SMALL_DATA_ROWS:,}, and takes many times the memory"
        )
        return Advice("lora or qlora", reason, lambda value: reason if value == "full" else None)
    reason = f"{s.rows:,} training rows are enough for LoRA and for full finetuning: the memory plan decides"
    return Advice(AUTO, reason, lambda _: None)


def _rank(s: Situation) -> Advice:
    low, high = USUAL_RANKS
    by_rows = next(rank for least, rank in ((1_000_000, 64), (100_000, 32), (FEW_ROWS, 16), (0, 8)) if s.rows >= least)
    rank = min(by_rows, 8) if s.tight else by_rows
    why = "memory is tight" if s.tight and by_rows > 8 else f"{s.rows:,} training rows ask for no more"
    return Advice(
        rank,
        f"{why}; {low} to {high} is usually enough, and a higher rank only costs memory",
        lambda value: None if low <= value <= high else f"a rank of {low} to {high} is usually enough",
    )


def _targets(s: Situation) -> Advice:
    said = f"the base in 16 bits takes {s.share_of_memory:.0%} of {s.memory_source}"
    if s.tight and s.base.has_query_and_value:
        return Advice("attention-qv", f"memory is tight ({said}): query and value give the most for it", lambda _: None)
    if s.tight:
        return Advice(
            "all-linear", f"memory is tight ({said}), but no layer is called q_proj or v_proj", lambda _: None
        )
    return Advice(
        "all-linear", f"{said}, so every linear layer can have factors, which comes nearest to full finetuning",
        lambda _: None,
    )  # fmt: skip


def _learning_rate(s: Situation, method: str) -> Advice:
    full = method == "full"
    final = s.base.final_learning_rate
    if method in SOFT_PROMPT_RATES:
        rate, reason = SOFT_PROMPT_RATES[method], f"{method} moves a soft prompt alone, whatever the base's size"
    elif method == "features":
        rate, reason = HEAD_RATE, "a head on standardised features, whatever the base's size"
    elif final is not None:
        # between 0.1 and 1 by what the method bears: adapters take about ten times the rate of full finetuning
        factor = 0.1 if full else 1.0
        rate = final * factor
        reason = (
            f"pretraining ended at {final:g} ({s.base.final_learning_rate_source}); times {factor:g}, of 0.1 to 1: "
            + ("all weights are trained" if full else "an adapter bears the upper end")
        )
    else:
        rate, reason = _rate_by_size(s.base.hidden_size, full)
    rate = float(f"{rate:.1e}")

    def objection(value: float) -> str | None:
        times = value / rate
        if 0.1 < times < 10:
            return None
        far = f"{times:.3g} times" if times >= 1 else f"a {1 / times:.3g}th of"
        return f"{far} the advised {rate:g} ({reason}); the loss curve will say which is right"

    return Advice(rate, reason, objection)


def _rate_by_size(width: int | None, full: bool) -> tuple[float, str]:
    size = width or UNKNOWN_WIDTH
    factor = 1 if full else LORA_FACTOR
    rate = FULL_RATE * (RATE_WIDTH / size) ** RATE_EXPONENT
    capped = rate > HIGHEST_FULL_RATE
    rate = min(rate, HIGHEST_FULL_RATE) * factor
    name = "full finetuning" if full else "LoRA, ten times the rate of full finetuning"
    known = f"a width of {size:,}" if width else f"a width that the config does not name ({size:,} is taken)"
    limit = ", at its upper limit" if capped else ""
    return rate, f"no final rate of pretraining is named; by size: {known}, {name}{limit}"


def _batch(effective_rows: int) -> Advice:
    reason = (
        f"at least {SMALLEST_BATCH} rows behind an optimizer step, or its gradient is mostly noise; the memory plan "
        "makes them up by accumulation where they don't fit at once"
    )
    advised = max(effective_rows, SMALLEST_BATCH)
    return Advice(
        advised, reason,
        lambda value: f"fewer than {SMALLEST_BATCH} rows behind a step; accumulation makes more at no memory"
        if value < SMALLEST_BATCH else None,
    )  # fmt: skip


def _epochs(s: Situation, method: str) -> Advice:
    if method == "features":
        reason = "features are computed once, so that a pass costs next to nothing; the dev loss ends them"
        return Advice(HEAD_EPOCHS, reason, lambda _: None)
    if s.text:
        said = f"raw text repeated up to {MOST_TEXT_EPOCHS:g} times is worth nearly as much as new text"
        return Advice(
            MOST_TEXT_EPOCHS, f"{said} (Muennighoff et al. 2023)",
            lambda value: f"{said}, and soon nothing beyond it" if value > MOST_TEXT_EPOCHS else None,
        )  # fmt: skip
    advised = epochs_for(s.rows)
    most = _between(MOST_EPOCHS, s.rows)
    reason = f"{s.rows:,} training rows: 4 to 10 passes for thousands (10 for fewer), 1 to 2 for millions"
    # the rule says nothing of hundreds of rows, where many passes are common
    return Advice(
        advised, reason,
        lambda value: f"more than {most:.3g} passes over {s.rows:,} rows learn them by heart; the dev loss will rise"
        if value > most and s.rows >= FEW_ROWS else None,
    )  # fmt: skip


def _prompt_loss_weight(s: Situation) -> Advice:
    if s.text:
        return Advice(0.0, "raw text has no prompt: every token carries weight 1", lambda _: None)
    short = s.answer_characters < s.prompt_characters
    weight = LARGEST_PROMPT_WEIGHT if short else 0.01
    times = s.prompt_characters / max(1.0, s.answer_characters)
    reason = (
        f"prompts are {times:.1f} times as long as answers: "
        if short
        else f"answers are {1 / max(times, 1e-9):.1f} times as long as prompts: "
    ) + (
        "a small weight on the prompt steadies training on short answers (Huerta-Enochian & Ko 2024)"
        if short
        else "the answers carry enough, so the prompt counts next to nothing"
    )
    return Advice(
        weight, reason,
        lambda value: f"more than {LARGEST_PROMPT_WEIGHT:g} teaches to write prompts; the answer should carry the loss"
        if value > LARGEST_PROMPT_WEIGHT else None,
    )  # fmt: skip


def _between(points: Sequence[tuple[float, float]], rows: int) -> float:
    """Interpolate over the logarithm of the rows; the ends go on level."""
    place = math.log10(max(1, rows))
    left = points[0]
    for right in points:
        if place <= math.log10(right[0]):
            span = math.log10(right[0]) - math.log10(left[0])
            share = (place - math.log10(left[0])) / span if span else 0.0
            return left[1] + (right[1] - left[1]) * max(0.0, share)
        left = right
    return points[-1][1]
