"""Full finetuning: every weight is trained, plainly or for the integers that it will become.

Costs weights, gradients and two optimizer states in float32, 16 bytes a parameter (Rajbhandari et al. 2020,
arXiv:1910.02054), and leaves whole weights behind for each task. Worth it with much data; with little, LoRA learns as
well and forgets less (Biderman et al. 2024, arXiv:2405.09673).

Quantization-aware, each linear layer of the decoder computes with its weight rounded as it will be stored, and the
gradient goes straight through the rounding to the weight behind it (Jacob et al. 2017, arXiv:1712.05877). That takes a
rounded copy of every layer in the forward pass, kept for the backward pass; what is saved are the integers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.models.quantize import fake_quantize

__all__ = ["FullSettings", "attach"]


@dataclass(frozen=True)
class FullSettings:
    """What full finetuning needs to know.

    Attributes:
        quantization_aware: None, or int8 or int4: what the weights are trained to become.
    """

    quantization_aware: str | None = None


def attach(model: Any, settings: FullSettings) -> Any:
    """Make every weight trainable.

    Args:
        model: A causal language model in float32: its weights are their own master copy, and 16-bit computation is
            left to autocast.
        settings: Whether it is trained for integers.

    Returns:
        The same model.

    Raises:
        InputError: Integers without torchao, or layers whose rows don't divide into groups.
    """
    model.requires_grad_(True)
    return fake_quantize(model, settings.quantization_aware) if settings.quantization_aware else model
