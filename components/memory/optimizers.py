"""The optimizers of a simulated step: torch's and bitsandbytes' own classes, on fake parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from components.memory.settings import is_paged

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TORCH_OPTIMIZERS", "build_optimizer", "pageable_sizes", "state_tensors"]

TORCH_OPTIMIZERS = ("adamw", "momentum", "sgd")
# bitsandbytes keeps the states of smaller parameters on the device
SMALLEST_PAGED_ELEMENTS = 100_000


def build_optimizer(parameters: list[Any], name: str, device: str) -> Any:
    """Build an optimizer.

    Args:
        parameters: What is trained.
        name: One of `OPTIMIZERS`.
        device: cpu or cuda; on CUDA torch's optimizers take all tensors at once by default.

    Returns:
        The optimizer, without states.
    """
    import torch

    foreach = device == "cuda"
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=1e-3, foreach=foreach)
    if name in ("momentum", "sgd"):
        return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9 if name == "momentum" else 0.0, foreach=foreach)
    import bitsandbytes

    classes = {
        "adamw_8bit": bitsandbytes.optim.AdamW8bit,
        "paged_adamw": bitsandbytes.optim.PagedAdamW,
        "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit,
    }
    return classes[name](parameters, lr=1e-3)


def state_tensors(optimizer: Any) -> Iterator[Tensor]:
    """Yield an optimizer's states; maps that several parameters share come several times."""
    import torch

    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def pageable_sizes(optimizer: Any, name: str) -> list[int]:
    """Return the bytes of each state that a paged optimizer may move to the host when the device is full."""
    if not is_paged(name):
        return []
    states = (
        state[key]
        for parameter, state in optimizer.state.items()
        if parameter.numel() >= SMALLEST_PAGED_ELEMENTS
        for key in ("state1", "state2")
    )
    return [state.numel() * state.element_size() for state in states]
