"""Prompt tuning: embeddings before every input are learned, nothing else (Lester et al. 2021, arXiv:2104.08691).

Costs virtual tokens x hidden size parameters, and that many positions of every request. The fewest of all methods, and
the slowest to learn: the paper's gap to full finetuning closes only at ten billion parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.finetuning.seeding import seeded

__all__ = ["SoftPromptSettings", "attach", "attach_soft_prompt"]


@dataclass(frozen=True)
class SoftPromptSettings:
    """What a soft prompt needs to know.

    Attributes:
        virtual_tokens: Its length, 1 or more; 20 to 100 is usual.
        seed: Seed of its start.
    """

    virtual_tokens: int = 20
    seed: int = 0


def attach(model: Any, settings: SoftPromptSettings) -> Any:
    """Put learned embeddings, which begin as those of tokens drawn from the vocabulary, before a frozen model.

    Args:
        model: A causal language model, plain or quantized.
        settings: Length and seed.

    Returns:
        The peft model; the prompt is float32.
    """
    from peft import PromptTuningConfig, PromptTuningInit

    # the paper's second best start, which needs no text of the task; a random one learns much more slowly
    return attach_soft_prompt(
        model,
        PromptTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=settings.virtual_tokens,
            prompt_tuning_init=PromptTuningInit.SAMPLE_VOCAB,
        ),
        settings.seed,
    )


def attach_soft_prompt(model: Any, config: Any, seed: int) -> Any:
    """Let peft put a prompt before a model, from a seed of its own."""
    from peft import get_peft_model

    with seeded(seed):
        return get_peft_model(model, config)
