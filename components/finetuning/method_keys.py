"""Which of the recipe's `finetune` keys a method reads. No torch here."""

from __future__ import annotations

from components.models.soft_prompt import SOFT_PROMPTS

__all__ = ["DEV_ROWS", "LORA", "NOT_OF_HEADS", "READ_BY", "left_out", "reads"]

LORA = ("lora", "qlora")
# What method 'auto' may become.
AUTO_METHODS = ("full", *LORA)
# Keys that only some methods read.
READ_BY = {
    **dict.fromkeys(("rank", "alpha", "dropout", "targets", "rslora", "dora", "lora_start"), LORA),
    "bottleneck_width": ("bottleneck",),
    "virtual_tokens": SOFT_PROMPTS,
    # soft prompts are laid before a mask, which only one kernel takes
    "attention": (*AUTO_METHODS, "bottleneck"),
    "quantization_aware": ("full",),
    # weights in 4 bits can't be parted
    "parallel": ("full", "lora", "bottleneck", *SOFT_PROMPTS),
    **dict.fromkeys(
        ("head", "head_pooling", "head_layer", "head_width", "head_class_weights", "head_patience"), ("features",)
    ),
}
# A head is measured on all dev rows after every epoch, whatever these say.
DEV_ROWS = ("dev_loss_rows", "dev_passes")
# Keys that every method reads but the one that doesn't train through the base.
NOT_OF_HEADS = (
    *DEV_ROWS,
    "attention",
    "compile",
    "dev_metric_rows",
    "distillation_weight",
    "early_stopping",
    "keep_best",
    "liger",
    "parallel",
    "processes",
    "report_to",
    "rope_scaling",
    "teacher",
    "temperature",
)


def reads(method: str, key: str) -> bool:
    """Tell whether a method, or one that 'auto' may become, reads a key.

    Args:
        method: `finetune.method`.
        key: A key's name within `finetune`.
    """
    if method == "features" and key in NOT_OF_HEADS:
        return False
    readers = READ_BY.get(key)
    return readers is None or any(name in readers for name in (AUTO_METHODS if method == "auto" else (method,)))


def left_out(method: str) -> tuple[str, ...]:
    """Return the keys that a method doesn't read."""
    return tuple(key for key in (*READ_BY, *NOT_OF_HEADS) if not reads(method, key))
