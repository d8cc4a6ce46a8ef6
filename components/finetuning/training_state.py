"""A training run's state as tensors and JSON: weights, optimizer, random generators. What a checkpoint is made of."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "fields_of",
    "pack_optimizer",
    "random_document",
    "random_tensors",
    "restore_random",
    "trainable_state",
    "unpack_optimizer",
]


def trainable_state(model: Any) -> dict[str, Tensor]:
    """Return the trainable parameters by name."""
    return {name: parameter.detach() for name, parameter in model.named_parameters() if parameter.requires_grad}


def fields_of(state: Any) -> dict[str, Any]:
    """Return a trainer state's fields as JSON values."""
    from dataclasses import asdict

    fields: dict[str, Any] = json.loads(json.dumps(asdict(state)))
    return fields


def pack_optimizer(state: dict[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Part an optimizer's state into tensors, and what is none (bitsandbytes counts its steps in plain numbers)."""
    import torch

    named = {f"{index}.{name}": value for index, entry in state["state"].items() for name, value in entry.items()}
    tensors = {key: value for key, value in named.items() if isinstance(value, torch.Tensor)}
    numbers = {key: value for key, value in named.items() if key not in tensors}
    return tensors, {"param_groups": state["param_groups"], "numbers": numbers}


def unpack_optimizer(tensors: dict[str, Tensor], document: dict[str, Any]) -> dict[str, Any]:
    """Put an optimizer's state together again."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in (*tensors.items(), *document["numbers"].items()):
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    return {"state": state, "param_groups": document["param_groups"]}


def random_document() -> dict[str, Any]:
    """Return what of the generators' states is no tensor."""
    import numpy as np

    name, _, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {"python": random.getstate(), "numpy": [name, None, position, has_gauss, cached]}


def random_tensors() -> dict[str, Tensor]:
    """Return the states of torch's generators, on every device, and of NumPy's."""
    import numpy as np
    import torch

    _, words, *_ = np.random.get_state(legacy=True)
    keys = np.asarray(words).astype(np.int64)
    states = {"torch": torch.get_rng_state(), "numpy": torch.from_numpy(keys)}
    if torch.cuda.is_available():
        states |= {f"cuda{i}": state for i, state in enumerate(torch.cuda.get_rng_state_all())}
    return states


def restore_random(document: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    """Put Python's, NumPy's and torch's generators back to where they were.

    Args:
        document: As `random_document` gave it.
        tensors: As `random_tensors` gave them.
    """
    import numpy as np
    import torch

    version, state, gauss = document["python"]
    random.setstate((version, tuple(state), gauss))
    name, _, position, has_gauss, cached = document["numpy"]
    np.random.set_state((name, tensors["numpy"].numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(tensors["torch"])
    for number in range(torch.cuda.device_count()):
        if f"cuda{number}" in tensors:  # the run may have begun on a machine with fewer devices
            torch.cuda.set_rng_state(tensors[f"cuda{number}"], number)
