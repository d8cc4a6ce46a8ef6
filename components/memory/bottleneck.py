"""Bottleneck adapters for a simulated step: a narrow two-layer network behind attention and feed-forward of each block
(Houlsby et al. 2019, arXiv:1902.00751). Costs 2 x (2 x width x hidden + width + hidden) parameters a block.
"""

from __future__ import annotations

from typing import Any

from components.errors import InputError

__all__ = ["insert"]


def insert(model: Any, width: int, device: str | None = None) -> None:
    """Freeze a model and put an adapter behind each attention and each feed-forward layer of its blocks.

    The adapter's output, added to its input, takes the layer's place: h + W_up gelu(W_down h + b) + c, in float32.

    Args:
        model: A causal language model.
        width: Width of the bottleneck.
        device: Where the adapters' parameters are made; where torch makes them by default when not given.

    Raises:
        InputError: The model has no blocks with layers that end in the hidden size.
    """
    hidden = model.config.get_text_config().hidden_size
    model.requires_grad_(False)
    found = [part for block in _blocks(model) for part in _parts(block)]
    if not found:
        raise InputError(
            f"{type(model).__name__} has no blocks of attention and feed-forward layers",
            allowed="decoder architectures whose blocks hold them as modules of their own",
        )
    for part in found:
        part.bottleneck_adapter = _adapter(hidden, width, device)
        part.register_forward_hook(_adapted)


def _adapter(hidden: int, width: int, device: str | None) -> Any:
    import torch

    linear: dict[str, Any] = {"device": device, "dtype": torch.float32}
    return torch.nn.Sequential(
        torch.nn.Linear(hidden, width, **linear), torch.nn.GELU(), torch.nn.Linear(width, hidden, **linear)
    )


def _adapted(module: Any, _arguments: Any, output: Any) -> Any:
    states = output[0] if isinstance(output, tuple) else output
    adapter = module.bottleneck_adapter
    changed = states + adapter(states.to(adapter[0].weight.dtype)).to(states.dtype)
    return (changed, *output[1:]) if isinstance(output, tuple) else changed


def _blocks(model: Any) -> list[Any]:
    import torch

    longest = max(
        (module for module in model.modules() if isinstance(module, torch.nn.ModuleList)), key=len, default=()
    )
    return list(longest)


def _parts(block: Any) -> list[Any]:
    """Children that hold layers of their own: attention and feed-forward, not norms and dropout."""
    return [child for child in block.children() if next(child.children(), None) is not None]
