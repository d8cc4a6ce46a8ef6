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


LORA, QLORA, FULL = StepSettings("lora"), StepSettings("qlora"), StepSettings("full")
# On the 135M base: settings, then (micro-batch, tokens, checkpointing) each. The quick ones are those of 64 tokens that
# stand first.
LARGE: tuple[tuple[StepSettings, tuple[tuple[int, int, bool], ...]], ...] = (
    (LORA, ((1, 64, False), (4, 64, True), (2, 256, False), (1, 1024, False), (1, 1024, True))),
    (StepSettings("lora", dtype="bfloat16"), ((1, 64, False), (1, 256, False), (2, 256, True))),
    (QLORA, ((1, 64, False), (1, 256, False), (2, 256, True))),
    (StepSettings("lora", quantization="int8"), ((1, 64, False), (2, 64, True))),
    (FULL, ((1, 64, False), (2, 64, True), (1, 256, False))),
    (StepSettings("full", optimizer="adamw_8bit"), ((1, 64, True),)),
    (StepSettings("prompt_tuning"), ((1, 64, False), (2, 256, True))),
    (StepSettings("prefix_tuning"), ((1, 64, False), (2, 256, False))),
    (StepSettings("bottleneck"), ((1, 64, False), (2, 256, True))),
)
QUICK = (LORA, QLORA, FULL)
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


def cases(which: str) -> list[Case]:
    """Return what is measured.

    Args:
        which: "quick", three methods at their smallest shape and a few small models; "usual", the matrix on the 135M
            base and every fourth small model; "all", that and all small models.
    """
    small = [
        Case(architecture, settings, _shape(settings, 2, 128, checkpointing))
        for architecture, settings, checkpointing in product(SMALL_ARCHITECTURES, SMALL_METHODS, (False, True))
        # the prefix is handed over as a cache, which checkpointing drops
        if not (checkpointing and settings.method == "prefix_tuning")
    ]
    large = [
        Case(BASE, settings, _shape(settings, *shape))
        for settings, shapes in LARGE
        for shape in (shapes[:1] if which == "quick" else shapes)
        if which != "quick" or settings in QUICK
    ]
    return large + small[:: {"quick": 16, "usual": 4, "all": 1}[which]]


def _shape(settings: StepSettings, rows: int, tokens: int, checkpointing: bool) -> StepShape:
    return StepShape(rows, tokens, checkpointing, accumulating=not settings.step_in_backward)
