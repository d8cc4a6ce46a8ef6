"""Full finetuning: every weight is trained.

Costs weights, gradients and two optimizer states in float32, 16 bytes a parameter (Rajbhandari et al. 2020,
arXiv:1910.02054), and leaves whole weights behind for each task. Worth it with much data; with little, LoRA learns as
well and forgets less (Biderman et al. 2024, arXiv:2405.09673).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["FullSettings", "attach"]


@dataclass(frozen=True)
class FullSettings:
    """Nothing beyond what every run has."""


def attach(model: Any, _settings: FullSettings) -> Any:
    """Make every weight trainable.

    Args:
        model: A causal language model in float32: its weights are their own master copy, and 16-bit computation is
            left to autocast.
        _settings: Nothing: here for the form that all methods share.

    Returns:
        The same model.
    """
    return model.requires_grad_(True)
