"""What others would have said: `accelerate estimate-memory` and the formula, both offline."""

from __future__ import annotations

from pathlib import Path

from components.memory.settings import StepSettings

__all__ = ["accelerate_bytes", "formula_bytes"]


def accelerate_bytes(folder: Path, settings: StepSettings) -> int:
    """Return what `accelerate estimate-memory` prints as "Training using Adam" for a dtype; it knows no method.

    The command wants the hub for the config; its own functions are called here on the same empty model.
    """
    import torch
    from accelerate import init_empty_weights
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes
    from transformers import AutoModel

    from components.models.base_config import read_config

    with init_empty_weights():
        model = AutoModel.from_config(read_config(folder), dtype=torch.float32)
    whole, _ = calculate_maximum_sizes(model)
    return int(max(estimate_training_usage(whole, settings.dtype).values()))


def formula_bytes(parameters: int, trainable: int, settings: StepSettings) -> int:
    """Return weights + gradients + optimizer states by the formula, which leaves the activations out."""
    from components.memory.formula import estimate

    bits = {"nf4": 0.5, "int8": 1.0, None: 2.0 if settings.dtype != "float32" else 4.0}
    weights = estimate(parameters, bits[settings.frozen_quantization], "sgd", 0).weights_bytes
    optimizer = {"momentum": "momentum", "sgd": "sgd"}.get(settings.optimizer, "adam")
    trained = estimate(parameters, 4.0 if settings.trained_dtype == "float32" else 2.0, optimizer, trainable)
    return weights + trained.gradient_and_optimizer_bytes
