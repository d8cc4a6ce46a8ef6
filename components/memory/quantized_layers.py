"""bitsandbytes' 4-bit and 8-bit layers without data: their own classes, around fake storages of the right sizes.

NF4 keeps two weights a byte, a one-byte scale every 64 weights and a four-byte scale every 256 scales (Dettmers et al.
2023, arXiv:2305.14314); LLM.int8 keeps a byte a weight and a four-byte scale a row (Dettmers et al. 2022,
arXiv:2208.07339).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["fake_parameter", "parameter_count", "quantize_linear_layers", "scale_tensors"]

BLOCK = 64  # weights that share a scale
SCALE_BLOCK = 256  # scales that share a scale of their own
_CLASSES = {"nf4": "Params4bit", "int8": "Int8Params"}


def quantize_linear_layers(model: Any, quantization: str, dtype: Any) -> None:
    """Put bitsandbytes' layers in the place of linear ones, all but the output layer, as transformers does on loading.

    Args:
        model: A causal language model on the meta device.
        quantization: nf4 or int8.
        dtype: dtype of computation.
    """
    import torch
    from transformers.pytorch_utils import Conv1D

    kept = model.get_output_embeddings()
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if child is kept or not (type(child) is torch.nn.Linear or isinstance(child, Conv1D)):
                continue
            # Conv1D of GPT-2 keeps its weight the other way round
            columns, rows = child.weight.shape if isinstance(child, Conv1D) else reversed(child.weight.shape)
            layer = _layer(columns, rows, child.bias is not None, quantization, dtype)
            if child.bias is not None:
                layer.bias = child.bias
            layer.requires_grad_(False)
            setattr(parent, name, layer)
    if quantization == "nf4":
        model.is_loaded_in_4bit = True
    else:
        model.is_loaded_in_8bit = True


def fake_parameter(old: Any, module: Any) -> Any:
    """Return the fake parameter of a quantized layer in the place of its meta one; None for any other parameter."""
    name = type(old).__name__
    if name == _CLASSES["nf4"]:
        return _four_bit(old, module)
    return _eight_bit(old) if name == _CLASSES["int8"] else None


def scale_tensors(model: Any) -> Iterator[Tensor]:
    """Yield what quantized layers keep beside their weights, which is no parameter of the model."""
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            yield from (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code)
        for holder in (getattr(module, "state", None), getattr(module, "weight", None)):
            scales = getattr(holder, "SCB", None)
            if scales is not None:
                yield scales


def parameter_count(model: Any) -> int:
    """Return the number of parameters, a packed 4-bit weight counting as what it stands for."""
    total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        total += state.shape[0] * state.shape[1] if state is not None else parameter.numel()
    return total


def _layer(columns: int, rows: int, bias: bool, quantization: str, dtype: Any) -> Any:
    import bitsandbytes

    if quantization == "int8":
        # the columns that are kept in 16 bits depend on data: with threshold 0 there are none
        return bitsandbytes.nn.Linear8bitLt(columns, rows, bias=bias, has_fp16_weights=False, threshold=0.0)
    return bitsandbytes.nn.Linear4bit(
        columns, rows, bias=bias, compute_dtype=dtype, compress_statistics=True, quant_type="nf4"
    )


def _four_bit(old: Any, module: Any) -> Any:
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


def _eight_bit(old: Any) -> Any:
    import torch

    weight = torch.nn.Parameter(torch.empty(old.shape, dtype=torch.int8), requires_grad=False)
    # the layer takes both over at its first forward pass
    weight.CB = weight.data  # type: ignore[attr-defined]
    weight.SCB = torch.empty(old.shape[0], dtype=torch.float32)  # type: ignore[attr-defined]
    return weight
