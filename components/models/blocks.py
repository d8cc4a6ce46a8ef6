"""Which part of a model are its blocks: for whoever compiles, times, shards or widens them one by one."""

from __future__ import annotations

from typing import Any

__all__ = ["decoder_blocks", "longest_list"]


def decoder_blocks(model: Any) -> list[Any]:
    """Return a model's blocks; none for an architecture whose blocks don't stand in a list.

    Args:
        model: A transformers model.
    """
    import torch

    depth = model.config.get_text_config().num_hidden_layers
    found = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == depth)
    return list(next(found, ()))


def longest_list(model: Any) -> list[Any]:
    """Return the modules of the longest list in a model, whatever its config says; none where it has no list.

    Args:
        model: A model, bare or wrapped.
    """
    import torch

    lists = (module for module in model.modules() if isinstance(module, torch.nn.ModuleList))
    return list(max(lists, key=len, default=()))
