"""Bottleneck adapters in a model: a narrow two-layer network behind the attention and the feed-forward layer of each
block (Houlsby et al. 2019, arXiv:1902.00751). Inserted for training and for its simulation; written and read here.

peft has no such adapters. The files have its names and its form, so that everything that binds, checks and serves an
adapter does it for these too.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.models.blocks import decoder_blocks

__all__ = ["PEFT_TYPE", "insert_bottlenecks", "is_bottlenecked", "load_bottlenecks", "save_bottlenecks", "switched_off"]

PEFT_TYPE = "BOTTLENECK"
CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"
ACTIVATION = "gelu"
# Attention and feed-forward.
PARTS = 2
# The name under which an adapter hangs below the layer that it follows.
CHILD = "bottleneck_adapter"


def insert_bottlenecks(model: Any, width: int, *, device: str | None = None) -> None:
    """Freeze a model and put an adapter behind each attention and each feed-forward layer of its blocks.

    The adapter's output, added to its input, takes the layer's place: h + W_up gelu(W_down h + b) + c. W_up and c begin
    at zero, so that the start is the base. Its parameters are float32; under autocast it computes in autocast's dtype.

    Args:
        model: A causal language model.
        width: Width of the bottleneck, 1 or more.
        device: Where the adapters' parameters are made; each beside its layer when not given.

    Raises:
        InputError: The model has no blocks with layers that end in the hidden size.
    """
    hidden = model.config.get_text_config().hidden_size
    model.requires_grad_(False)
    by_block = [_parts(block) for block in decoder_blocks(model)]
    found = [part for parts in by_block for part in parts]
    # some architectures keep the feed-forward layers in the block itself: there is nothing to hang the second one on
    if not found or any(len(parts) != PARTS for parts in by_block):
        raise InputError(
            f"{type(model).__name__} has no blocks of attention and feed-forward layers",
            allowed="decoder architectures whose blocks hold them as modules of their own",
        )
    for part in found:
        part.add_module(CHILD, _adapter(hidden, width, device or next(part.parameters()).device))
        part.register_forward_hook(_adapted)


def is_bottlenecked(model: Any) -> bool:
    """Tell whether a model has bottleneck adapters."""
    return next(_adapters(model), None) is not None


def save_bottlenecks(model: Any, folder: Path) -> None:
    """Write a model's adapters as adapter_config.json and adapter_model.safetensors.

    Args:
        model: A model with bottleneck adapters.
        folder: An existing folder.
    """
    from safetensors.torch import save_file

    tensors = {
        f"{name}.{key}": value.detach().contiguous().cpu()
        for name, adapter in _adapters(model)
        for key, value in adapter.state_dict().items()
    }
    width = next(adapter[0].out_features for _, adapter in _adapters(model))
    save_file(tensors, folder / WEIGHTS_FILE)
    config = {
        "peft_type": PEFT_TYPE,
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "width": width,
        "activation": ACTIVATION,
    }
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def load_bottlenecks(model: Any, folder: Path) -> None:
    """Insert the adapters of a folder, or put their weights into those that are there.

    Args:
        model: The base, or one that has adapters of this width already.
        folder: What `save_bottlenecks` wrote.

    Raises:
        InputError: Files that don't fit the model or each other.
    """
    from safetensors.torch import load_file

    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    width = config.get("width")
    if type(width) is not int or width < 1 or config.get("activation") != ACTIVATION:
        raise InputError(
            f"{folder / CONFIG_FILE} asks for a bottleneck of width {width!r} with {config.get('activation')!r}",
            allowed=f"a width of 1 or more, with {ACTIVATION!r}",
        )
    if not is_bottlenecked(model):
        insert_bottlenecks(model, width)
    tensors = load_file(folder / WEIGHTS_FILE)
    expected = {f"{name}.{key}" for name, adapter in _adapters(model) for key in adapter.state_dict()}
    if expected != tensors.keys():
        odd = sorted(expected ^ tensors.keys())[0]
        raise InputError(f"the adapter in {folder} is not one for {type(model).__name__}: {odd} is on one side only")
    for name, adapter in _adapters(model):
        try:
            adapter.load_state_dict({key: tensors[f"{name}.{key}"] for key in adapter.state_dict()})
        except RuntimeError as error:
            raise InputError(f"the adapter in {folder} has other shapes than its config: {error}") from error


@contextmanager
def switched_off(model: Any) -> Iterator[None]:
    """Let a model compute as its base does."""
    adapters = [adapter for _, adapter in _adapters(model)]
    for adapter in adapters:
        adapter.off = True
    try:
        yield
    finally:
        for adapter in adapters:
            adapter.off = False


def _adapter(hidden: int, width: int, device: Any) -> Any:
    import torch

    linear: dict[str, Any] = {"device": device, "dtype": torch.float32}
    down, up = torch.nn.Linear(hidden, width, **linear), torch.nn.Linear(width, hidden, **linear)
    torch.nn.init.normal_(down.weight, std=hidden**-0.5)
    for parameter in (down.bias, up.weight, up.bias):
        torch.nn.init.zeros_(parameter)
    return torch.nn.Sequential(down, torch.nn.GELU(), up)


def _adapted(module: Any, _arguments: Any, output: Any) -> Any:
    adapter = getattr(module, CHILD)
    if getattr(adapter, "off", False):
        return output
    states = output[0] if isinstance(output, tuple) else output
    changed = states + adapter(states.to(adapter[0].weight.dtype)).to(states.dtype)
    return (changed, *output[1:]) if isinstance(output, tuple) else changed


def _adapters(model: Any) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in model.named_modules() if name.rpartition(".")[2] == CHILD)


def _parts(block: Any) -> list[Any]:
    """Children that hold layers of their own: attention and feed-forward, not norms and dropout."""
    return [child for child in block.children() if next(child.children(), None) is not None]
