"""What a token takes: of a model with its adapter and without it, or of several models, the same answer in turns.

In turns, because a machine's speed drifts: two models that are timed one after the other differ by more than an
adapter. Used by the comparison of methods and of quantized weights.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from components.errors import InputError
from components.evaluation.generation import generate_ids

__all__ = ["AddedLatency", "measure_added_latency", "token_seconds"]

TURNS = 5
FIRST_TOKENS, ALL_TOKENS = 4, 28


@dataclass(frozen=True)
class AddedLatency:
    """Seconds for one more token of one answer.

    Attributes:
        base_seconds: Of the base.
        adapted_seconds: With the adapter beside it, not merged.
        added_fraction: What the adapter adds, as a share of the base's; the median over the turns.
        low: Smallest share in a turn.
        high: Largest share in a turn.
        turns: How often both were timed.
    """

    base_seconds: float
    adapted_seconds: float
    added_fraction: float
    low: float
    high: float
    turns: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


def measure_added_latency(model: Any, prompt: Sequence[int]) -> AddedLatency:
    """Time single tokens of one answer with and without a model's adapter.

    Args:
        model: A base with an adapter of any kind beside it.
        prompt: Token ids, at least one.

    Returns:
        Medians over some turns; the prompt's own time is left out.

    Raises:
        InputError: An empty prompt, or one that leaves no room for an answer.
    """
    from components.models.adapters import without_adapter

    if not prompt:
        raise InputError("a prompt without tokens", allowed="at least one token")
    _seconds(model, prompt)  # the first pass also pays for set-up
    pairs = []
    for _ in range(TURNS):
        with without_adapter(model) as bare:
            plain = _seconds(bare, prompt)
        pairs.append((plain, _seconds(model, prompt)))
    added = [adapted / plain - 1 for plain, adapted in pairs]
    return AddedLatency(
        base_seconds=statistics.median(plain for plain, _ in pairs),
        adapted_seconds=statistics.median(adapted for _, adapted in pairs),
        added_fraction=statistics.median(added),
        low=min(added),
        high=max(added),
        turns=TURNS,
    )


def token_seconds(models: Mapping[str, Any], prompt: Sequence[int]) -> dict[str, float]:
    """Time single tokens of one answer, one model after the other in each turn.

    Args:
        models: Causal language models by name, all of them in memory.
        prompt: Token ids, at least one.

    Returns:
        Name -> seconds for one more token, the median over some turns.

    Raises:
        InputError: An empty prompt, or one that leaves no room for an answer.
    """
    if not prompt:
        raise InputError("a prompt without tokens", allowed="at least one token")
    for model in models.values():
        _seconds(model, prompt)  # the first pass also pays for set-up
    turns = [{name: _seconds(model, prompt) for name, model in models.items()} for _ in range(TURNS)]
    return {name: statistics.median(turn[name] for turn in turns) for name in models}


def _seconds(model: Any, prompt: Sequence[int]) -> float:
    """Time a long and a short answer; their difference is the tokens between."""
    times = []
    for tokens in (FIRST_TOKENS, ALL_TOKENS):
        started = time.perf_counter()
        # no token ends the answer, so that all have the same length
        generate_ids(model, [list(prompt)], max_new_tokens=tokens, stops=frozenset())
        times.append(time.perf_counter() - started)
    return max(1e-9, times[1] - times[0]) / (ALL_TOKENS - FIRST_TOKENS)
