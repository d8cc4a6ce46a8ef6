"""Why a way to train wasn't chosen, in words that a person can act on. Used by the search for each alternative."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from components.memory.search import Candidate

__all__ = ["SAME_SPEED_FRACTION", "why_not"]

GIB = 2**30
# A longer time is worth less memory only beyond this difference.
SAME_SPEED_FRACTION = 0.05
# What is given up by going down from the method that was chosen to this one.
_COSTS_OF = {
    "qlora": "4-bit weights cost some quality and time",
    "lora": "LoRA learns less than full finetuning where there is much to learn",
    "full": "full finetuning is asked for by name only",
}
_NAMED_ONLY = "this method is asked for by name only"


def why_not(other: Candidate, chosen: Candidate, limit_bytes: int) -> str:
    """Say why an alternative lost.

    Args:
        other: The alternative.
        chosen: What was chosen, or where nothing fits what came nearest.
        limit_bytes: The budget less its head-room.

    Returns:
        One clause.
    """
    if not other.fits:
        return f"doesn't fit: needs {(other.peak_bytes - limit_bytes) / GIB:.2f} GiB more than the budget leaves"
    if other.method != chosen.method:
        return f"not needed: {chosen.method} fits, and {_COSTS_OF.get(other.method, _NAMED_ONLY)}"
    if other.optimizer != chosen.optimizer:
        return f"not needed: {chosen.optimizer} fits"
    if other.sharding != chosen.sharding:
        return "not needed: each device holds all of it, and shards would have to be gathered for each block"
    slower = other.relative_seconds / chosen.relative_seconds - 1
    difference = (other.peak_bytes - chosen.peak_bytes) / GIB
    memory = f"{abs(difference):.2f} GiB {'more' if difference > 0 else 'less'}"
    if slower > SAME_SPEED_FRACTION:
        recomputed = ", since it computes every block twice" if _only_recomputes(other, chosen) else ""
        return f"takes {slower:.0%} longer{recomputed}, for {memory}"
    return f"is no faster and takes {memory}"


def _only_recomputes(other: Candidate, chosen: Candidate) -> bool:
    return other.gradient_checkpointing and not chosen.gradient_checkpointing
