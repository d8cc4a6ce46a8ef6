"""QLoRA: LoRA on a base whose linear layers are kept in 4 bits (Dettmers et al. 2023, arXiv:2305.14314).

NF4 with double quantization takes about 0.52 bytes a weight; each layer is dequantised for its own computation, forward
and backward, which costs time. Chosen when LoRA doesn't fit the memory budget.
"""

from __future__ import annotations

from typing import Any

from components.finetuning import lora
from components.finetuning.lora import LoraSettings

__all__ = ["QUANTIZATION", "attach"]

QUANTIZATION = "nf4"


def attach(model: Any, settings: LoraSettings) -> Any:
    """Put LoRA factors beside the layers of a model loaded in 4 bits.

    Args:
        model: A causal language model loaded with `quantization="nf4"`.
        settings: As for LoRA.

    Returns:
        The peft model; factors and norms are float32.

    Raises:
        InputError: The targets match no module.
    """
    from peft import prepare_model_for_kbit_training

    # checkpointing is the plan's choice, not a side effect of quantization
    prepared = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return lora.attach(prepared, settings)
