"""Which part of a model are its blocks: for whoever compiles, times, shards or widens them one by one."""

from __future__ import annotations

from typing import Any

__all__ = ["decoder_blocks"]


def decoder_blocks(model: Any) -> list[Any]:
    """Return a model's blocks; none for an architecture whose blocks don't stand in a list.

    Args:
        model: A causal language model, bare or wrapped by peft.
    """
    import torch

    depth = model.config.get_text_config().num_hidden_layers
    found = (m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == depth)
    return list(next(found, ()))
