"""P-tuning: a soft prompt that a small network writes while it is trained (Liu et al. 2021, arXiv:2103.10385).

The network ties the virtual tokens together, which steadies learning; only the embeddings that it ends with are kept.
While training it costs three square matrices of the hidden size, at inference the positions of the virtual tokens.
"""

from __future__ import annotations

from typing import Any

from components.finetuning.prompt_tuning import SoftPromptSettings, attach_soft_prompt

__all__ = ["attach"]


def attach(model: Any, settings: SoftPromptSettings) -> Any:
    """Put embeddings, written by a network of three layers, before a frozen model.

    Args:
        model: A causal language model, plain or quantized.
        settings: Length and seed.

    Returns:
        The peft model; prompt and network are float32.
    """
    from peft import PromptEncoderConfig

    config = PromptEncoderConfig(
        task_type="CAUSAL_LM",
        num_virtual_tokens=settings.virtual_tokens,
        encoder_hidden_size=model.config.get_text_config().hidden_size,
    )
    return attach_soft_prompt(model, config, settings.seed)
