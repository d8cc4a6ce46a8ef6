"""Feature-based transfer: the base stays frozen, and a classification or regression head learns from its hidden states
(Peters et al. 2018, arXiv:1802.05365; compared with finetuning in Devlin et al. 2019, arXiv:1810.04805, section 5.3,
and in Peters, Ruder & Smith 2019, arXiv:1903.05987).

Costs one pass of each row through the base, with the memory of inference; the features are kept, so that every epoch is
a product of small matrices. (H + 1) x classes parameters when linear. At inference a request takes one pass and no
decoding. What the base's states don't show linearly, or through one hidden layer, is out of reach: a method that trains
the base reaches more, at its price. The answers are labels or numbers and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["FeatureSettings", "attach"]


@dataclass(frozen=True)
class FeatureSettings:
    """What a head needs to know.

    Attributes:
        task: classification, regression, or auto, by the training answers.
        pooling: "last", the state of the prompt's last token; "mean", of all its tokens.
        layer: "last", behind the final norm, or a block's number from 1.
        width: Width of a hidden layer; 0: linear.
        class_weights: Weigh a class by what it lacks in rows.
        patience: Epochs without a smaller dev loss after which training ends; 0: never.
        batch_rows: Rows behind an optimizer step.
        seed: Of the start and of the rows' order.
    """

    task: str = "auto"
    pooling: str = "last"
    layer: int | str = "last"
    width: int = 0
    class_weights: bool = False
    patience: int = 10
    batch_rows: int = 16
    seed: int = 0


def attach(model: Any, _settings: FeatureSettings) -> Any:
    """Freeze the base; the head stands behind it and learns from what it computed once.

    Args:
        model: A causal language model.
        _settings: Nothing of it concerns the base.

    Returns:
        The same model, of which nothing is trained.
    """
    return model.requires_grad_(False)
