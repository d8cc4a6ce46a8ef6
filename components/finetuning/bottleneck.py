"""Bottleneck adapters: two narrow networks in every block of a frozen base (Houlsby et al. 2019, arXiv:1902.00751).

Costs 2 x (2 x width x hidden + width + hidden) parameters a block, and two small matrix products for each of them at
every token: unlike LoRA's deltas they can't be folded into the weights, so that answers take longer for good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.finetuning.seeding import seeded
from components.models.bottleneck_layers import insert_bottlenecks

__all__ = ["BottleneckSettings", "attach"]


@dataclass(frozen=True)
class BottleneckSettings:
    """What bottleneck adapters need to know.

    Attributes:
        width: Width of the bottleneck, 1 or more; 8 to 256 was tried in the paper.
        seed: Seed of the projections down; those up start at zero, so that the start is the base.
    """

    width: int = 64
    seed: int = 0


def attach(model: Any, settings: BottleneckSettings) -> Any:
    """Put an adapter behind the attention and the feed-forward layer of each block and freeze everything else.

    Args:
        model: A causal language model, plain or quantized.
        settings: Width and seed.

    Returns:
        The same model; the adapters are float32.

    Raises:
        InputError: The model has no such blocks.
    """
    with seeded(settings.seed):
        insert_bottlenecks(model, settings.width)
    return model
