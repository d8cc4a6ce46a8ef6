"""Build the model of a simulated step: the real classes on torch's meta device, then fake tensors in their place.

4-bit layers are bitsandbytes' own Linear4bit, with its packed storage and its doubly quantized scales.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["build", "four_bit_tensors", "materialise", "parameter_count", "read_config"]

BLOCK = 64  # weights that share a scale
SCALE_BLOCK = 256  # scales that share a scale of their own


def read_config(folder: Path) -> Any:
    """Read a base's config; nothing else of the folder is needed to simulate it.

    Raises:
        InputError: No config.json, or an architecture that transformers doesn't have.
    """
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise InputError(f"{folder} has no config.json", allowed="the folder of a base model")
    try:
        return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the config in {folder} can't be read: {error}", allowed="architectures that transformers has"
        ) from error


def build(config: Any, *, method: str, rank: int, targets: str, dtype: str) -> Any:
    """Build a model without data, prepared for training by a method as the trainer prepares it.

    Args:
        config: A transformers config.
        method: full, lora or qlora.
        rank: LoRA rank.
        targets: LoRA targets.
        dtype: dtype of frozen weights; what is trained is float32.

    Returns:
        The model on the meta device, in training mode.

    Raises:
        InputError: No causal language model of this architecture, or targets that match nothing.
    """
    import torch
    from transformers import AutoModelForCausalLM

    from components.finetuning import lora, qlora

    frozen = torch.float32 if method == "full" else getattr(torch, dtype)
    with torch.device("meta"):
        try:
            model = AutoModelForCausalLM.from_config(config, dtype=frozen, attn_implementation="sdpa")
        except (ValueError, KeyError) as error:
            raise InputError(
                f"no causal language model can be built of {type(config).__name__}: {error}",
                allowed="decoder architectures that transformers has",
            ) from error
        if method == "qlora":
            _replace_linear_layers(model, frozen)
            model.is_loaded_in_4bit = True
        if method != "full":
            settings = lora.LoraSettings(rank=rank, targets=targets)
            model = (qlora if method == "qlora" else lora).attach(model, settings)
    model.train()
    return model


def materialise(model: Any) -> None:
    """Put fake CPU tensors in the place of meta ones; call inside the fake mode. Ties between weights stay."""
    done: dict[int, tuple[Any, Any]] = {}  # the meta tensor is kept too, so that its id is not used again
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in list(tensors.items()):
                if old is None:
                    continue
                if id(old) not in done:
                    done[id(old)] = (old, _fake(old, module))
                tensors[name] = done[id(old)][1]


def four_bit_tensors(model: Any) -> Iterator[Tensor]:
    """Yield the scales of 4-bit layers, which are no parameters of the model."""
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        if state is not None:
            yield from (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)


def parameter_count(model: Any) -> int:
    """Return the number of parameters, a packed 4-bit weight counting as what it stands for."""
    total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        total += state.shape[0] * state.shape[1] if state is not None else parameter.numel()
    return total


def _replace_linear_layers(model: Any, dtype: Any) -> None:
    """Put Linear4bit in the place of every linear layer but the output layer, as transformers does on loading."""
    import bitsandbytes
    import torch

    kept = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is torch.nn.Linear and child is not kept:
                layer = bitsandbytes.nn.Linear4bit(
                    child.in_features,
                    child.out_features,
                    bias=child.bias is not None,
                    compute_dtype=dtype,
                    compress_statistics=True,
                    quant_type="nf4",
                )
                layer.weight.requires_grad_(False)
                if child.bias is not None:
                    layer.bias = child.bias
                setattr(parent, name, layer)


def _fake(old: Any, module: Any) -> Any:
    import torch

    if type(old).__name__ == "Params4bit":
        return _packed(old, module)
    new = torch.empty_strided(old.shape, old.stride(), dtype=old.dtype, device="cpu")
    if isinstance(old, torch.nn.Parameter):
        return torch.nn.Parameter(new, requires_grad=old.requires_grad)
    return new


def _packed(old: Any, module: Any) -> Any:
    """Two weights a byte, a one-byte scale every 64 weights, a four-byte scale every 256 scales."""
    import torch
    from bitsandbytes.functional import QuantState

    scales = -(-old.numel() // BLOCK)
    state2 = QuantState(
        absmax=torch.empty(-(-scales // SCALE_BLOCK), dtype=torch.float32),
        code=torch.empty(256, dtype=torch.float32),
        blocksize=SCALE_BLOCK,
        dtype=torch.float32,
    )
    state = QuantState(
        absmax=torch.empty(scales, dtype=torch.uint8),
        shape=old.shape,
        code=torch.empty(16, dtype=torch.float32),
        blocksize=BLOCK,
        quant_type="nf4",
        dtype=module.compute_dtype,
        offset=torch.empty((), dtype=torch.float32),
        state2=state2,
    )
    # bitsandbytes' parameter class can't wrap a fake tensor; its layer only asks for the storage and the state
    packed = torch.nn.Parameter(torch.empty((old.numel() + 1) // 2, 1, dtype=torch.uint8), requires_grad=False)
    packed.quant_state = state  # type: ignore[attr-defined]
    return packed
