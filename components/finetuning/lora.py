"""LoRA: two low-rank factors beside each chosen linear layer (Hu et al. 2021, arXiv:2106.09685).

W' = W + (alpha / rank) B A, with A [rank, in] and B [out, rank]; only A and B are trained. Costs rank x (in + out)
parameters a layer; nothing at inference once merged. On a base loaded in 4 bits the same attachment is QLoRA
(Dettmers et al. 2023, arXiv:2305.14314).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.errors import InputError

__all__ = ["TARGET_PRESETS", "LoraSettings", "attach"]

# The presets name the modules of Llama-like decoders; anything else is given by name.
TARGET_PRESETS: dict[str, str | list[str]] = {
    "attention-qv": ["q_proj", "v_proj"],
    "attention-qkvo": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "all-linear": "all-linear",
}


@dataclass(frozen=True)
class LoraSettings:
    """What LoRA needs to know.

    Attributes:
        rank: Width of the factors, 1 or more; 4 to 64 is usual.
        alpha: Scale; the delta is multiplied by alpha / rank.
        dropout: Probability of dropping an input of A.
        targets: A preset of `TARGET_PRESETS`, or module names parted by commas.
        seed: Seed of A; B starts at zero, so that the start is the base.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str = "all-linear"
    seed: int = 0


def attach(model: Any, settings: LoraSettings) -> Any:
    """Put LoRA factors beside the model's chosen layers and freeze everything else.

    Args:
        model: A causal language model, plain or loaded in 4 bits.
        settings: Rank, scale, dropout, targets and seed.

    Returns:
        The peft model; its trainable parameters are float32.

    Raises:
        InputError: The targets match no module.
    """
    import torch
    from peft import LoraConfig, get_peft_model

    preset = TARGET_PRESETS.get(settings.targets)
    names: str | list[str] = preset or [name.strip() for name in settings.targets.split(",") if name.strip()]
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=names,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        try:
            wrapped = get_peft_model(model, config, autocast_adapter_dtype=True)
        except ValueError as error:
            raise InputError(
                f"LoRA targets {settings.targets!r} match no module of {type(model).__name__}",
                allowed=f"{', '.join(TARGET_PRESETS)}, or names of its linear layers",
                next_step="set finetune.targets in the recipe",
            ) from error
    return wrapped
