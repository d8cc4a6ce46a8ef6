"""LoRA: two low-rank factors beside each chosen linear layer (Hu et al. 2021, arXiv:2106.09685).

W' = W + scale B A, with A [rank, in] and B [out, rank]; only A and B are trained. Costs rank x (in + out) parameters a
layer; nothing at inference once merged. On a base loaded in 4 bits the same attachment is QLoRA (Dettmers et al. 2023,
arXiv:2305.14314).

Variants: rsLoRA scales by alpha / sqrt(rank), so that high ranks still learn (Kalajdzievski 2023, arXiv:2312.03732);
DoRA learns each weight's magnitude apart from its direction (Liu et al. 2024, arXiv:2402.09353); PiSSA begins with the
largest singular parts of the weights, which leave the base for it (Meng et al. 2024, arXiv:2404.02948); LoftQ begins
with what 4 bits lose of them (Li et al. 2023, arXiv:2310.08659).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.errors import InputError
from components.finetuning.seeding import seeded

__all__ = ["STARTS", "TARGET_PRESETS", "LoraSettings", "attach"]

# The presets name the modules of Llama-like decoders; anything else is given by name.
TARGET_PRESETS: dict[str, str | list[str]] = {
    "attention-qv": ["q_proj", "v_proj"],
    "attention-qkvo": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "all-linear": "all-linear",
}
STARTS = ("zero", "pissa", "loftq")
# PiSSA by randomised decomposition: its exact one takes minutes for a model of billions.
PISSA = "pissa_niter_16"


@dataclass(frozen=True)
class LoraSettings:
    """What LoRA needs to know.

    Attributes:
        rank: Width of the factors, 1 or more; 4 to 64 is usual.
        alpha: Scale; the delta is multiplied by alpha / rank.
        dropout: Probability of dropping an input of A.
        targets: A preset of `TARGET_PRESETS`, or module names parted by commas.
        seed: Seed of A; B starts at zero, so that the start is the base.
        rslora: Multiply the delta by alpha / sqrt(rank) instead.
        dora: Learn each weight's magnitude apart from its direction.
        start: "zero": B is zero; "pissa": the weights' largest singular parts; "loftq": what 4 bits lose.
    """

    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    targets: str = "all-linear"
    seed: int = 0
    rslora: bool = False
    dora: bool = False
    start: str = "zero"


def attach(model: Any, settings: LoraSettings) -> Any:
    """Put LoRA factors beside the model's chosen layers and freeze everything else.

    Args:
        model: A causal language model, plain or loaded in 4 bits.
        settings: Rank, scale, dropout, targets, seed and variant. A start with "loftq" is left to `qlora`.

    Returns:
        The peft model; its trainable parameters are float32.

    Raises:
        InputError: A target matches no module, or a start that the base can't have.
    """
    from peft import LoraConfig, get_peft_model

    quantized = bool(getattr(model, "is_quantized", False))
    _check_start(model, settings, quantized)
    names = _target_names(settings)
    _check_targets(model, settings, names)
    config = LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=names,
        use_rslora=settings.rslora,
        use_dora=settings.dora,
        init_lora_weights=PISSA if settings.start == "pissa" else True,
        bias="none",
        task_type="CAUSAL_LM",
    )
    with seeded(settings.seed):
        try:
            wrapped = get_peft_model(model, config, autocast_adapter_dtype=True)
        except ValueError as error:  # a module of a kind that peft puts no factors beside, for one
            raise InputError(
                f"LoRA targets {settings.targets!r} can't be had of {type(model).__name__}: {error}",
                allowed=f"{', '.join(TARGET_PRESETS)}, or names of its linear layers",
                next_step="set finetune.targets in the recipe",
            ) from error
    return wrapped


def _check_targets(model: Any, settings: LoraSettings, names: str | list[str]) -> None:
    """Refuse a name that matches no module: peft looks that one of them does, and leaves the others out."""
    if isinstance(names, str):
        return
    paths = [name for name, _ in model.named_modules()]
    wrong = [name for name in names if not any(path == name or path.endswith(f".{name}") for path in paths)]
    if wrong or not names:
        linear = {path.rpartition(".")[2] for path, module in model.named_modules() if hasattr(module, "in_features")}
        named = ", ".join(map(repr, wrong)) or repr(settings.targets)
        raise InputError(
            f"LoRA targets {named} match no module of {type(model).__name__}",
            allowed=f"{', '.join(TARGET_PRESETS)}, or names of its linear layers: {', '.join(sorted(linear))}",
            next_step="set finetune.targets in the recipe",
        )


def _target_names(settings: LoraSettings) -> str | list[str]:
    preset = TARGET_PRESETS.get(settings.targets)
    return preset or [name.strip() for name in settings.targets.split(",") if name.strip()]


def _narrowest(model: Any, settings: LoraSettings) -> int:
    """Return the smallest side of the linear layers that get factors: no weight has more singular values than that.

    Raises:
        InputError: A target that is no linear layer of its own, or the head that shares the embedding's weight.
    """
    import torch

    names, head = _target_names(settings), model.get_output_embeddings()
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    sides = []
    for name, module in model.named_modules():
        wanted = names == "all-linear" and isinstance(module, torch.nn.Linear) and module is not head
        if not wanted and (names == "all-linear" or name.rpartition(".")[2] not in names):
            continue
        if not isinstance(module, torch.nn.Linear) or (module is head and tied):
            raise InputError(
                f"PiSSA can't take a part of {name} ({type(module).__name__})",
                allowed="linear layers with weights of their own",
                next_step="name other finetune.targets, or set finetune.lora_start to zero",
            )
        sides.append(min(module.weight.shape))
    return min(sides, default=settings.rank)


def _check_start(model: Any, settings: LoraSettings, quantized: bool) -> None:
    if settings.start not in STARTS:
        raise InputError(f"unknown start {settings.start!r}", allowed=", ".join(STARTS))
    if settings.start == "pissa" and quantized:
        raise InputError(
            "PiSSA takes parts of the weights into the adapter, which weights in 4 bits can't give",
            allowed="zero or loftq with qlora; pissa with lora",
            next_step="set finetune.lora_start, or finetune.method",
        )
    if settings.start == "loftq" and not quantized:
        raise InputError(
            "LoftQ begins with what 4 bits lose of the weights, and this base is not in 4 bits",
            allowed="loftq with qlora",
            next_step="set finetune.lora_start, or finetune.method",
        )
    if settings.start == "pissa" and settings.rank > (narrowest := _narrowest(model, settings)):
        raise InputError(
            f"PiSSA with rank {settings.rank}, and a target layer of width {narrowest}",
            allowed=f"a rank of at most {narrowest}, or targets that are wider",
            next_step="lower finetune.rank, name other finetune.targets, or set finetune.lora_start to zero",
        )
    if settings.start == "pissa" and settings.dora:
        raise InputError(
            "PiSSA together with DoRA can't be written as an adapter on the untouched base",
            allowed="one of them",
            next_step="set finetune.lora_start to zero, or finetune.dora to false",
        )
