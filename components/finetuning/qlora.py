"""QLoRA: LoRA on a base whose linear layers are kept in 4 bits (Dettmers et al. 2023, arXiv:2305.14314).

NF4 with double quantization takes about 0.52 bytes a weight; each layer is dequantised for its own computation, forward
and backward, which costs time. Chosen when LoRA doesn't fit the memory budget.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.errors import InputError
from components.finetuning import lora
from components.finetuning.lora import LoraSettings
from components.finetuning.seeding import seeded

__all__ = ["QUANTIZATION", "attach"]

QUANTIZATION = "nf4"
# Passes of the randomised decomposition; with four its factors are those of the exact one in all that LoftQ needs.
POWER_ITERATIONS = 4


def attach(model: Any, settings: LoraSettings) -> Any:
    """Put LoRA factors beside the layers of a model loaded in 4 bits.

    Args:
        model: A causal language model loaded with `quantization="nf4"`.
        settings: As for LoRA; with the start "loftq" the factors begin with what 4 bits lose of the weights.

    Returns:
        The peft model; factors and norms are float32.

    Raises:
        InputError: The targets match no module, or a start that weights in 4 bits can't have.
    """
    from peft import prepare_model_for_kbit_training

    folder = Path(model.name_or_path)
    # checkpointing is the plan's choice, not a side effect of quantization
    prepared = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    _keep_unpacked(prepared)
    wrapped = lora.attach(prepared, settings)
    if settings.start == "loftq":
        _start_with_the_loss(wrapped, folder, settings)
    return wrapped


def _keep_unpacked(model: Any) -> None:
    """Keep the 4 bits as they are when the dev loss is measured between two steps.

    Where the processor has bfloat16 arithmetic, bitsandbytes packs them for inference, and what it unpacks for the next
    step has other scales: training would depend on when it was looked at.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _start_with_the_loss(model: Any, folder: Path, settings: LoraSettings) -> None:
    """Let B A be the best low-rank part of what quantization took from each weight (LoftQ with one iteration).

    peft does this on an accelerator only, and leaves the adapter's scale out of account.

    Raises:
        InputError: The base's files have no weight of a layer's name.
    """
    import torch
    from bitsandbytes.functional import dequantize_4bit
    from peft.tuners.lora import Linear4bit
    from safetensors import safe_open

    from components.models.safety import weight_files

    places: dict[str, Path] = {}
    for path in weight_files(folder):
        with safe_open(path, "pt") as file:
            places |= dict.fromkeys(file.keys(), path)
    modules = model.get_base_model().named_modules()
    layers = [(name, module) for name, module in modules if isinstance(module, Linear4bit)]
    with seeded(settings.seed), torch.no_grad():
        for name, module in layers:
            key = f"{name}.weight"
            if key not in places:
                raise InputError(
                    f"the base's files have no {key}, which LoftQ compares with its 4 bits",
                    next_step="set finetune.lora_start to zero",
                )
            kept = module.weight
            with safe_open(places[key], "pt") as file:
                lost = file.get_tensor(key).to(kept.device, torch.float32)
            lost -= dequantize_4bit(kept.data, kept.quant_state).float()
            # a layer narrower than the rank has fewer singular values; the rest of its factors starts at zero
            rank = min(settings.rank, *lost.shape)
            left, values, right = torch.svd_lowrank(lost, q=rank, niter=POWER_ITERATIONS)
            root = (values / module.scaling["default"]).sqrt()
            module.lora_B["default"].weight.zero_()[:, :rank] = left * root
            module.lora_A["default"].weight[:rank] = (right * root).T
