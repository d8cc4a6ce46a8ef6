"""Weights in 8 or 4 bits, kept as plain safetensors: made by torchao after training, or trained for beforehand.

Symmetric integers times a scale, q in [-128, 127] with one scale for each row, or q in [-8, 7] with one for each 32
weights of a row; w = q s. The decoder's linear layers are quantized; embeddings, norms, biases and the head keep their
dtype. Fake quantization with straight-through gradients: Jacob et al. 2017, arXiv:1712.05877.

torchao computes, this module keeps. torchao's own way to safetensors is a prototype that stores 4 bits in 8 and builds
objects whose classes the file names; here a file holds integers and scales, two of 4 bits in a byte, and the config
says how to read them.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import InputError
from components.models.fingerprint import base_files

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "GROUP_SIZE",
    "QUANTIZED",
    "check_not_quantized",
    "check_torchao",
    "fake_quantize",
    "load_quantized",
    "save_quantized",
    "stored_quantization",
]

# name -> bits of a weight
QUANTIZED = {"int8": 8, "int4": 4}
# Weights of a row that share a scale in 4 bits; in 8 bits the whole row does.
GROUP_SIZE = 32
CONFIG_KEY = "quantization_config"
QUANT_METHOD = "tunewright-integers"
SCALE = "_scale"
# not the name that transformers looks for: it would warn of the config, and take integers for weights
WEIGHTS_FILE = "quantized.safetensors"


def check_torchao() -> None:
    """Refuse to go on where torchao isn't installed.

    Raises:
        InputError: With how to install it.
    """
    if importlib.util.find_spec("torchao") is None:
        raise InputError(
            "weights in int8 or int4 need torchao, which is not installed",
            next_step="install it with `pip install --constraint constraints.txt --editable '.[quantization]'`",
        )


def stored_quantization(folder: Path) -> dict[str, Any] | None:
    """Return how a folder's weights are quantized: `method` int8 or int4, `bits`, `group_size`; None for others.

    Raises:
        InputError: The config says so, and in a way that isn't known here.
    """
    path = folder / "config.json"
    if not path.is_file():
        return None
    found = json.loads(path.read_text(encoding="utf-8")).get(CONFIG_KEY)
    if not isinstance(found, dict) or found.get("quant_method") != QUANT_METHOD:
        return None
    record = {key: found.get(key) for key in ("method", "bits", "group_size")}
    if record not in [_record(to) for to in QUANTIZED]:
        raise InputError(
            f"the weights in {folder} are quantized in an unknown way: {found}",
            allowed=", ".join(QUANTIZED),
            next_step="check the version out of the registry again",
        )
    return record


def check_not_quantized(folder: Path, what: str) -> None:
    """Refuse weights that are integers already.

    Args:
        folder: The weights.
        what: What was to be done with them.

    Raises:
        InputError: They are.
    """
    found = stored_quantization(folder)
    if found is not None:
        raise InputError(
            f"{what}: the weights in {folder} are in {found['method']} already",
            allowed="weights in float32, bfloat16 or float16",
            next_step="take the version that they were made from; `tunewright registry lineage` names it",
        )


def fake_quantize(model: Any, to: str) -> Any:
    """Let every decoder layer compute with its weight as it will be quantized, and train the weight behind that.

    Args:
        model: A causal language model, not wrapped by peft.
        to: One of `QUANTIZED`.

    Returns:
        The same model; its parameters keep their names.

    Raises:
        InputError: torchao isn't installed, or a layer whose rows don't divide into groups.
    """
    from components.models.quiet import quiet

    with quiet():
        from torchao.quantization import quantize_
        from torchao.quantization.qat import QATConfig

        chosen = _layers(model, to)
        quantize_(model, QATConfig(_torchao_config(to), step="prepare"), filter_fn=lambda _, name: name in chosen)
    return model


def save_quantized(model: Any, to: str, source: Path, folder: Path) -> Path:
    """Write a model's weights as integers and scales, with its config and what its base has beside the weights.

    Args:
        model: A causal language model in floating point, plain or as `fake_quantize` left it; it stays as it is.
        to: One of `QUANTIZED`.
        source: Folder whose tokenizer, template and licence go along.
        folder: Created.

    Returns:
        The folder.

    Raises:
        InputError: As `fake_quantize`.
    """
    from safetensors.torch import save_file

    from components.models.quiet import quiet

    folder.mkdir(parents=True)
    for name, path in base_files(source).items():
        if not name.endswith((".safetensors", ".safetensors.index.json")):
            shutil.copyfile(path, folder / name)
    chosen = _layers(model, to)
    tensors: dict[str, Tensor] = {}
    # a weight that two modules share is listed once
    for name, parameter in model.named_parameters():
        layer, _, last = name.rpartition(".")
        if layer in chosen and last == "weight":
            tensors[name], tensors[name + SCALE] = _integers(parameter.detach(), to)
        else:
            tensors[name] = _narrowest(parameter.detach().contiguous())
    plain = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    tensors |= {name: value.contiguous() for name, value in model.state_dict().items() if name not in plain}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    with quiet():
        model.config.save_pretrained(folder)
        if model.generation_config is not None:
            model.generation_config.save_pretrained(folder)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config[CONFIG_KEY] = {"quant_method": QUANT_METHOD, **_record(to)}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    return folder


def load_quantized(folder: Path, dtype: str) -> Any:
    """Load what `save_quantized` wrote; the weights stay integers in memory.

    Args:
        folder: A checked folder.
        dtype: dtype of computation, and of everything that isn't quantized.

    Returns:
        The model in evaluation mode, on the accelerator where there is one; nothing of it can be trained.

    Raises:
        InputError: torchao isn't installed, or tensors that aren't those that the config asks for.
    """
    check_torchao()
    import torch
    from safetensors.torch import load_file
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    from components.models.quiet import quiet

    stored = stored_quantization(folder)
    assert stored is not None
    to, kind = str(stored["method"]), getattr(torch, dtype)
    with quiet():
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
        delattr(config, CONFIG_KEY)
        model = AutoModelForCausalLM.from_config(config, dtype=kind, attn_implementation="sdpa")
        if (folder / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(str(folder), local_files_only=True)
        tensors = load_file(folder / WEIGHTS_FILE)
        chosen = _layers(model, to)
        try:
            for name in chosen:
                layer = model.get_submodule(name)
                integers, scale = tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.weight{SCALE}")
                weight = _torchao_tensor(integers, scale, to, layer.weight.shape, kind)
                layer.weight = torch.nn.Parameter(weight, requires_grad=False)
            lacking, odd = model.load_state_dict({k: v.to(kind) for k, v in tensors.items()}, strict=False)
        except (KeyError, RuntimeError, ValueError) as error:
            raise _damaged(folder, str(error)) from error
    # what is shared is there under one of its names
    shared = {name for name, _ in model.named_parameters(remove_duplicate=False)} - {
        name for name, _ in model.named_parameters()
    }
    integers_of = {f"{name}.weight" for name in chosen}
    if missing := sorted(set(lacking) - shared - integers_of) + list(odd):
        raise _damaged(folder, f"{missing[0]} is on one side only")
    if torch.cuda.is_available():
        model.to("cuda")
    return model.requires_grad_(False).eval()


def _record(to: str) -> dict[str, Any]:
    return {"method": to, "bits": QUANTIZED[to], "group_size": GROUP_SIZE if to == "int4" else None}


def _layers(model: Any, to: str) -> frozenset[str]:
    """Return the names of the linear layers that are quantized: all but the head.

    Raises:
        InputError: An unknown name, or a layer whose rows don't divide into groups.
    """
    import torch

    if to not in QUANTIZED:
        raise InputError(f"unknown quantization {to!r}", allowed=", ".join(QUANTIZED))
    check_torchao()
    head = model.get_output_embeddings()
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
    if not found:
        raise InputError(f"{type(model).__name__} has no linear layers to quantize", allowed="decoders that have")
    for name, module in found.items():
        if to == "int4" and module.in_features % GROUP_SIZE:
            raise InputError(
                f"{name} has rows of {module.in_features} weights, which groups of {GROUP_SIZE} don't divide",
                allowed=f"layers whose width is a multiple of {GROUP_SIZE}",
                next_step="choose int8, which has one scale for a row",
            )
    return frozenset(found)


def _torchao_config(to: str) -> Any:
    import torch
    from torchao.quantization import IntxWeightOnlyConfig, PerAxis, PerGroup

    # Int4WeightOnlyConfig packs for kernels that no CPU has, and Int8WeightOnlyConfig has no fake quantization
    if to == "int8":
        return IntxWeightOnlyConfig(torch.int8, PerAxis(0))
    return IntxWeightOnlyConfig(getattr(torch, to), PerGroup(GROUP_SIZE))


def _integers(weight: Tensor, to: str) -> tuple[Tensor, Tensor]:
    """Quantize one weight [O, I]: integers int8 [O, I] or uint8 [O, I / 2], and scales [O, groups]."""
    import torch
    from torchao.quantization import quantize_

    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    # the module itself is changed in its place, but only as a part of another one
    quantize_(torch.nn.Sequential(layer), _torchao_config(to))
    found: Any = layer.weight
    assert not found.zero_point.any()
    integers: Tensor = found.qdata
    if to == "int4":
        integers = _packed(integers)
    return integers.contiguous(), found.scale.contiguous()


def _narrowest(weight: Tensor) -> Tensor:
    """Return a float32 weight in bfloat16 where that loses nothing, as in a model that was in 16 bits on disk."""
    import torch

    narrow = weight.to(torch.bfloat16)
    return narrow if torch.equal(narrow.to(weight.dtype), weight) else weight


def _packed(integers: Tensor) -> Tensor:
    """Put two integers of -8 to 7 into each byte, the one at the even place in the low half."""
    import torch

    halves = integers.view(torch.uint8) & 0xF
    return halves[:, 0::2] | (halves[:, 1::2] << 4)


def _unpacked(packed: Tensor) -> Tensor:
    import torch

    halves = torch.stack((packed & 0xF, packed >> 4), dim=-1).flatten(-2)
    # the fourth bit is the sign
    return (halves ^ 8).to(torch.int8) - 8


def _torchao_tensor(integers: Tensor, scale: Tensor, to: str, shape: Any, dtype: Any) -> Any:
    """Build torchao's tensor of a layer from what is stored.

    Raises:
        ValueError: Integers or scales of another dtype or shape than the layer asks for.
    """
    import torch
    from torchao.quantization import Int8Tensor, IntxUnpackedToInt8Tensor

    rows, columns = shape
    group = columns if to == "int8" else GROUP_SIZE
    kept = (torch.int8, (rows, columns)) if to == "int8" else (torch.uint8, (rows, columns // 2))
    if (integers.dtype, tuple(integers.shape)) != kept or tuple(scale.shape) != (rows, columns // group):
        raise ValueError(
            f"a layer of {rows} x {columns} has {integers.dtype} {tuple(integers.shape)} and scales "
            f"{tuple(scale.shape)}"
        )
    if to == "int8":
        # the same numbers as the other class, multiplied by the scales after the product instead of before
        return Int8Tensor(integers, scale, [1, columns], dtype)
    zeros = torch.zeros_like(scale, dtype=torch.int8)
    return IntxUnpackedToInt8Tensor(_unpacked(integers), scale, zeros, getattr(torch, to), (1, group), dtype, None)


def _damaged(folder: Path, why: str) -> InputError:
    return InputError(
        f"the quantized weights in {folder} can't be read: {why}",
        allowed="integers and scales for every layer that the config asks for",
        next_step="check the version out of the registry again",
    )
