"""Prefix tuning: keys and values before every input are learned in each layer (Li & Liang 2021, arXiv:2101.00190).

Costs 2 x layers x virtual tokens x width of the keys parameters, and that many positions of every request. It steers
every layer, where prompt tuning steers the first one. Blocks can't be computed again in the backward pass: they are
handed the prefix as a cache.
"""

from __future__ import annotations

from typing import Any

from components.finetuning.prompt_tuning import SoftPromptSettings, attach_soft_prompt

__all__ = ["attach"]

# Keys of norm-1 queries that are far larger than real ones would take all attention at the start.
INITIAL_STD = 0.02


def attach(model: Any, settings: SoftPromptSettings) -> Any:
    """Put learned keys and values before every layer of a frozen model.

    Args:
        model: A causal language model, plain or quantized.
        settings: Length and seed.

    Returns:
        The peft model; the prefix is float32.
    """
    import torch
    from peft import PrefixTuningConfig

    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=settings.virtual_tokens)
    wrapped = attach_soft_prompt(model, config, settings.seed)
    with torch.no_grad():
        for parameter in wrapped.prompt_encoder.parameters():
            parameter.mul_(INITIAL_STD)  # peft draws it with a deviation of 1
    return wrapped
