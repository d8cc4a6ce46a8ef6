"""The book's arithmetic: how much memory a model needs, by numbers alone. The first, rough answer of `tunewright plan`.

Sources: inference as N x M x 1.2 and training as weights + activations + gradients + optimizer states, one gradient and
0 (SGD), 1 (momentum) or 2 (Adam) states a trainable parameter (Huyen 2025, "AI Engineering", chapter 7).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.errors import InputError

__all__ = ["INFERENCE_OVERHEAD", "OPTIMIZER_STATES", "FormulaEstimate", "estimate"]

# Activations and the cache at inference are taken as a fifth of the weights.
INFERENCE_OVERHEAD = 1.2
# Values that each optimizer keeps for a trainable parameter.
OPTIMIZER_STATES = {"sgd": 0, "momentum": 1, "adam": 2, "adamw": 2}


@dataclass(frozen=True)
class FormulaEstimate:
    """What the arithmetic says; sizes in bytes.

    Attributes:
        parameters: Number of parameters, N.
        trainable_parameters: How many of them are trained.
        bytes_per_value: Bytes of one value, M.
        optimizer: Key of `OPTIMIZER_STATES`.
        weights_bytes: N x M.
        inference_bytes: N x M x 1.2.
        gradient_and_optimizer_bytes: trainable x M x (1 + states).
        training_bytes_without_activations: Weights + gradients + optimizer states.
    """

    parameters: int
    trainable_parameters: int
    bytes_per_value: float
    optimizer: str
    weights_bytes: int
    inference_bytes: int
    gradient_and_optimizer_bytes: int
    training_bytes_without_activations: int

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `plan --params`."""
        return dict(vars(self))

    def explain(self) -> list[str]:
        """Return the arithmetic, a line for each step; GB are 10^9 bytes."""
        n, m, states = self.parameters, self.bytes_per_value, OPTIMIZER_STATES[self.optimizer]
        trainable = self.trainable_parameters
        gradients, optimizer = round(trainable * m), round(trainable * m * states)
        kept = ", ".join(f"{name} {count}" for name, count in OPTIMIZER_STATES.items())
        return [
            f"N = {n:,} parameters, of which {trainable:,} are trained; M = {m:g} bytes a value ({m * 8:g} bits)",
            f"inference  = N x M x {INFERENCE_OVERHEAD} = {n:,} x {m:g} x {INFERENCE_OVERHEAD} = "
            f"{_gb(self.inference_bytes)} (a fifth more for activations and the key-value cache)",
            "training   = weights + activations + gradients + optimizer states",
            f"  weights    = N x M = {n:,} x {m:g} = {_gb(self.weights_bytes)}",
            f"  gradients  = trained x M (one value a parameter) = {trainable:,} x {m:g} = {_gb(gradients)}",
            f"  optimizer  = trained x M x {states} = {trainable:,} x {m:g} x {states} = {_gb(optimizer)} "
            f"(states a parameter: {kept})",
            f"  gradients + optimizer = {trainable:,} x {m:g} x (1 + {states}) = "
            f"{_gb(self.gradient_and_optimizer_bytes)}",
            f"  in all     = {_gb(self.training_bytes_without_activations)} + activations",
            "activations depend on batch, length, attention and checkpointing, and mixed precision keeps what is "
            "trained in 4 bytes a value, 16 bytes a parameter in all: give --base to simulate a real step",
        ]


def estimate(
    parameters: float, bytes_per_value: float, optimizer: str, trainable_parameters: float | None = None
) -> FormulaEstimate:
    """Compute the formula.

    Args:
        parameters: Number of parameters, 1 or more.
        bytes_per_value: Bytes of one value; 2 for 16 bits, 0.5 for 4 bits.
        optimizer: One of `OPTIMIZER_STATES`.
        trainable_parameters: How many are trained; all when not given.

    Returns:
        The estimate.

    Raises:
        InputError: A number out of range, or an unknown optimizer.
    """
    if optimizer not in OPTIMIZER_STATES:
        raise InputError(f"unknown optimizer {optimizer!r}", allowed=", ".join(OPTIMIZER_STATES))
    if not 1 <= parameters < 1e16:
        raise InputError(f"{parameters:g} parameters", allowed="a number from 1 to 1e16, as in --params 13e9")
    if not 0 < bytes_per_value <= 16:
        raise InputError(f"{bytes_per_value:g} bytes a value", allowed="more than 0 and at most 16, as in --bytes 2")
    trainable = parameters if trainable_parameters is None else trainable_parameters
    if not 0 <= trainable <= parameters:
        raise InputError(f"{trainable:g} trainable of {parameters:g} parameters", allowed="0 up to all of them")
    weights = round(parameters * bytes_per_value)
    gradient_and_optimizer = round(trainable * bytes_per_value * (1 + OPTIMIZER_STATES[optimizer]))
    return FormulaEstimate(
        parameters=round(parameters),
        trainable_parameters=round(trainable),
        bytes_per_value=bytes_per_value,
        optimizer=optimizer,
        weights_bytes=weights,
        inference_bytes=round(parameters * bytes_per_value * INFERENCE_OVERHEAD),
        gradient_and_optimizer_bytes=gradient_and_optimizer,
        training_bytes_without_activations=weights + gradient_and_optimizer,
    )


def _gb(size: int) -> str:
    return f"{size / 1e9:,.2f} GB"
