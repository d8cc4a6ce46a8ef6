"""What is measured: method x batch x sequence x checkpointing on a 135M base, and every method on small models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

from components.memory.settings import StepSettings, StepShape

__all__ = ["Case", "cases"]

BASE = "smollm2-135m"


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        base: Name of a base: of `BASE`, or of a small model of that architecture.
        settings: What is trained and how.
        shape: The micro-batch.
        steps: Real steps before the measured one.
    """

    base: str
    settings: StepSettings
    shape: StepShape
    steps: int = 2

    @property
    def name(self) -> str:
        """What tells the case from others."""
        settings = self.settings
        extra = [settings.quantization, settings.optimizer if settings.optimizer != "adamw" else None]
        extra += ["pure bf16" if settings.trained_dtype == "bfloat16" else None]
        extra += ["step in backward" if settings.step_in_backward else None]
        extra += ["bf16" if settings.dtype == "bfloat16" and settings.trained_dtype == "float32" else None]
        return " ".join([settings.method, *filter(None, extra)])

    def shortened(self, tokens: int) -> Case:
        """Return the case with sequences of at most so many tokens."""
        shape = replace(self.shape, sequence_tokens=min(tokens, self.shape.sequence_tokens))
        return replace(self, shape=shape)


# (settings, micro-batch, tokens, checkpointing) on the 135M base
QUICK = (
    (StepSettings("lora"), 1, 256, False),
    (StepSettings("lora"), 2, 256, True),
    (StepSettings("qlora"), 1, 256, False),
    (StepSettings("full"), 1, 128, False),
    (StepSettings("full", optimizer="adamw_8bit"), 1, 128, True),
    (StepSettings("bottleneck"), 1, 256, False),
    (StepSettings("prompt_tuning"), 1, 256, False),
    (StepSettings("lora", quantization="int8"), 1, 128, False),
)
SMALL_METHODS = (
    StepSettings("lora", 8, dtype="bfloat16"),
    StepSettings("lora", 8, quantization="int8"),
    StepSettings("qlora", 8, dtype="bfloat16", optimizer="paged_adamw_8bit"),
    StepSettings("full", dtype="bfloat16"),
    StepSettings("full", dtype="bfloat16", trained_dtype="bfloat16"),
    StepSettings("full", optimizer="momentum"),
    StepSettings("full", step_in_backward=True),
    StepSettings("bottleneck", bottleneck_width=16),
    StepSettings("prompt_tuning", virtual_tokens=8),
    StepSettings("prefix_tuning", virtual_tokens=8),
)
SMALL_ARCHITECTURES = ("llama", "mistral", "qwen2", "gpt2")


def cases(quick: bool) -> list[Case]:
    """Return what is measured.

    Args:
        quick: A sample of minutes instead of the whole matrix.
    """
    small = [
        Case(architecture, settings, _shape(settings, 2, 128, checkpointing))
        for architecture, settings, checkpointing in product(SMALL_ARCHITECTURES, SMALL_METHODS, (False, True))
        # the prefix is handed over as a cache, which checkpointing drops
        if not (checkpointing and settings.method == "prefix_tuning")
    ]
    if quick:
        return [Case(BASE, s, _shape(s, rows, tokens, on)) for s, rows, tokens, on in QUICK] + small[::4]
    large = [
        Case(BASE, settings, _shape(settings, rows, tokens, checkpointing))
        for settings in (StepSettings("lora"), StepSettings("qlora"), StepSettings("full"))
        for rows, tokens, checkpointing in product((1, 4), (256, 1024), (False, True))
    ]
    large += [
        Case(BASE, settings, _shape(settings, 2, 256, checkpointing))
        for settings, checkpointing in product((case[0] for case in QUICK[4:]), (False, True))
    ]
    return large + small


def _shape(settings: StepSettings, rows: int, tokens: int, checkpointing: bool) -> StepShape:
    return StepShape(rows, tokens, checkpointing, accumulating=not settings.step_in_backward)
