"""What a simulated pass is about: method, dtypes, optimizer, shape, devices. Checked here, used by every simulation."""

from __future__ import annotations

from dataclasses import dataclass

from components.errors import InputError
from components.finetuning.methods import METHODS
from components.models.packed_attention import ATTENTIONS

__all__ = [
    "DTYPES",
    "OBJECTIVES",
    "OPTIMIZERS",
    "QUANTIZATIONS",
    "SIMULATED_METHODS",
    "StepSettings",
    "StepShape",
    "check_settings",
    "check_shape",
    "is_paged",
]

# What trains through the base; a head's plan has no such step (`feature_plan`).
SIMULATED_METHODS = tuple(name for name, method in METHODS.items() if method.kind != "head")
DTYPES = ("float32", "bfloat16", "float16")
TRAINED_DTYPES = ("float32", "bfloat16")
QUANTIZATIONS = ("nf4", "int8")
OPTIMIZERS = ("adamw", "momentum", "sgd", "adamw_8bit", "paged_adamw", "paged_adamw_8bit")
OBJECTIVES = ("weighted", "logits")
DEVICES = ("cpu", "cuda")
STEP_ATTENTIONS = (*ATTENTIONS, "alone")


@dataclass(frozen=True)
class StepSettings:
    """What is trained and how.

    Attributes:
        method: One of `SIMULATED_METHODS`; qlora is LoRA on linear layers in 4 bits (NF4 with double quantization).
        rank: LoRA rank.
        targets: LoRA targets, as in the recipe.
        dtype: float32, bfloat16 or float16: dtype of the frozen weights, and of autocast.
        optimizer: One of `OPTIMIZERS`; paged states may leave the device when it is full.
        quantization: None, nf4 or int8 for the frozen linear layers; qlora means nf4.
        trained_dtype: float32, the mixed precision in which what is trained is its own master copy; or bfloat16, pure
            16-bit training without autocast.
        objective: weighted, the trainer's loss over packed sequences with their mask; or logits, the loss of
            transformers over whole sequences without a mask.
        device: cpu or cuda: on CUDA torch's optimizers work on all tensors at once, which takes copies of them.
        world_size: Devices over which FSDP shards parameters, gradients and optimizer states.
        offload_optimizer: Optimizer states, a copy of what is trained and its gradients are kept in the host's memory,
            where the step runs.
        step_in_backward: Each parameter is updated as soon as its gradient is there, which is then dropped.
        virtual_tokens: Length of a soft prompt.
        bottleneck_width: Width of a bottleneck adapter.
        dropout: LoRA's dropout, whose masks are kept for the backward pass.
        dora: Whether LoRA learns each weight's magnitude apart, for which it computes the whole weight.
        rope_scaling: None, or how the base's positions are scaled, such as yarn:2.
        quantization_aware: None, or the integers that full finetuning trains for: int8 or int4.
        teacher: Folder of a frozen model that reads every batch too; only its config.json is read.
        attention: sdpa, over a mask of T x T; alone, the same without a mask, for sequences of one row; flex or flash,
            which have none either.
    """

    method: str = "lora"
    rank: int = 16
    targets: str = "all-linear"
    dtype: str = "float32"
    optimizer: str = "adamw"
    quantization: str | None = None
    trained_dtype: str = "float32"
    objective: str = "weighted"
    device: str = "cpu"
    world_size: int = 1
    offload_optimizer: bool = False
    step_in_backward: bool = False
    virtual_tokens: int = 20
    bottleneck_width: int = 64
    dropout: float = 0.0
    dora: bool = False
    rope_scaling: str | None = None
    quantization_aware: str | None = None
    teacher: str | None = None
    attention: str = "sdpa"

    @property
    def frozen_quantization(self) -> str | None:
        """Quantization of the frozen linear layers, with what the method implies."""
        return "nf4" if self.method == "qlora" else self.quantization

    @property
    def mixed(self) -> bool:
        """Whether what is trained takes part in float32; whole weights that are parted are gathered in 16 bits."""
        return self.trained_dtype == "float32" and (self.world_size == 1 or self.method != "full")

    @property
    def autocast(self) -> bool:
        """Whether the forward pass runs under autocast: a 16-bit dtype beside trained weights in float32."""
        return self.dtype != "float32" and self.mixed


@dataclass(frozen=True)
class StepShape:
    """The shape of one micro-batch.

    Attributes:
        micro_batch_size: Sequences, B.
        sequence_tokens: Tokens of each, T.
        gradient_checkpointing: Keep only the input of each block and compute the rest again in the backward pass.
        accumulating: Gradients of an earlier micro-batch are there already.
    """

    micro_batch_size: int
    sequence_tokens: int
    gradient_checkpointing: bool = False
    accumulating: bool = False


def is_paged(optimizer: str) -> bool:
    """Tell whether an optimizer's states may leave the device."""
    return optimizer.startswith("paged_")


def check_settings(settings: StepSettings) -> None:
    """Refuse what is unknown, out of range, or contradicts itself.

    Raises:
        InputError: With what was given and what is allowed.
    """
    for what, value, allowed in (
        ("method", settings.method, SIMULATED_METHODS),
        ("optimizer", settings.optimizer, OPTIMIZERS),
        ("dtype", settings.dtype, DTYPES),
        ("dtype of trained weights", settings.trained_dtype, TRAINED_DTYPES),
        ("quantization", settings.quantization or "nf4", QUANTIZATIONS),
        ("objective", settings.objective, OBJECTIVES),
        ("device", settings.device, DEVICES),
        ("attention", settings.attention, STEP_ATTENTIONS),
    ):
        if value not in allowed:
            raise InputError(f"unknown {what} {value!r}", allowed=", ".join(allowed))
    for what, number in (
        ("LoRA rank", settings.rank),
        ("devices", settings.world_size),
        ("virtual tokens", settings.virtual_tokens),
        ("bottleneck width", settings.bottleneck_width),
    ):
        if number < 1:
            raise InputError(f"{what} {number}", allowed="1 or more")
    if not 0 <= settings.dropout < 1:
        raise InputError(f"dropout {settings.dropout}", allowed="from 0 up to, but not including, 1")
    if settings.method == "full" and settings.quantization:
        raise InputError(
            f"full finetuning of weights in {settings.quantization}",
            allowed="quantization with a method that leaves the base frozen",
            next_step="choose lora, or leave the quantization out",
        )
    if settings.quantization_aware is not None and (
        settings.method != "full" or settings.trained_dtype != "float32" or settings.world_size > 1
    ):
        raise InputError(
            f"training for {settings.quantization_aware} with {settings.method}, weights in {settings.trained_dtype}, "
            f"on {settings.world_size} devices",
            allowed="full finetuning of weights in float32 on one device",
            next_step="choose that, or leave finetune.quantization_aware out and quantize after training",
        )
    if settings.method == "qlora" and settings.quantization == "int8":
        raise InputError("qlora in int8", allowed="nf4", next_step="choose lora with quantization int8")
    if settings.trained_dtype == "bfloat16" and settings.dtype != "bfloat16":
        raise InputError(
            f"trained weights in bfloat16 beside computation in {settings.dtype}",
            allowed="dtype bfloat16 for pure 16-bit training",
        )
    if settings.step_in_backward and settings.offload_optimizer:
        raise InputError("a step in the backward pass with an optimizer in the host's memory", allowed="one of them")


def check_shape(settings: StepSettings, shape: StepShape) -> None:
    """Refuse shapes that can't be run.

    Raises:
        InputError: With what was given and what is allowed.
    """
    if shape.micro_batch_size < 1 or shape.sequence_tokens < 2:
        raise InputError(
            f"a micro-batch of {shape.micro_batch_size} sequences of {shape.sequence_tokens} tokens",
            allowed="at least one sequence of at least two tokens",
        )
    if shape.gradient_checkpointing and not METHODS[settings.method].recomputes:
        raise InputError(
            "prefix tuning with gradient checkpointing",
            allowed="prefix tuning without it: the blocks are handed the prefix as a cache, which checkpointing drops",
        )
    if settings.step_in_backward and shape.accumulating:
        raise InputError(
            "a step in the backward pass while gradients are accumulated",
            allowed="one micro-batch a step: gradients are gone before the next one could be added",
        )
