"""How long a run will take and what it will cost, before anything is spent: the simulation's operations at the device's
measured rate. A GPU that isn't at hand is taken at a part of its datasheet's peak, with a wider interval.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from components.memory.block_probe import BlockRate, StepSpeed
from components.memory.gpus import Gpu
from components.memory.workload import MicroBatch, Workload

__all__ = ["Duration", "assumed_duration", "features_duration", "measured_duration", "shared_duration"]

# What a step takes beside its blocks, output layer and optimizer, against the blocks: lengths that come anew (4-8 %),
# batches, logs, the watch over memory. Three runs of benchmarks.memory.duration on quiet cores (LoRA on the 135M model,
# bfloat16, CPU) had 10, 16 and 17 % in all.
BESIDE_BLOCKS = 0.14
# Half the interval's width against the prediction: neighbours on the machine, the trainer's own work, checkpoints.
MEASURED_UNCERTAINTY = 0.25
# Training reaches between a fifth and a half of the dense peak, depending on shapes and kernels.
ASSUMED_UTILISATION = 0.35
ASSUMED_UNCERTAINTY = 0.45


@dataclass(frozen=True)
class Duration:
    """The predicted time of a run; seconds.

    Attributes:
        seconds: All of training, with the dev losses.
        uncertainty_fraction: Half the interval's width against `seconds`.
        measured: Whether the rate was measured on this device, or assumed from a datasheet.
        steps: Optimizer steps.
        tokens: Tokens that go through the model, without padding.
        flops: Floating-point operations of the run.
        flops_per_second: Rate behind the prediction.
        parts: Seconds by what they go to.
        how: Where the rate comes from, in words.
    """

    seconds: float
    uncertainty_fraction: float
    measured: bool
    steps: int
    tokens: int
    flops: int
    flops_per_second: float
    parts: dict[str, float]
    how: str

    def to_dict(self) -> dict[str, Any]:
        """Return the `time` of a plan's document."""
        return {
            "seconds": round(self.seconds, 3),
            "low_seconds": round(self.seconds * (1 - self.uncertainty_fraction), 3),
            "high_seconds": round(self.seconds * (1 + self.uncertainty_fraction), 3),
            "uncertainty_fraction": round(self.uncertainty_fraction, 3),
            "tokens_per_second": round(self.tokens / self.seconds, 3),
            "seconds_per_step": round(self.seconds / self.steps, 4),
            "steps": self.steps,
            "tokens": self.tokens,
            "flops": self.flops,
            "flops_per_second": round(self.flops_per_second),
            "measured": self.measured,
            "parts": {name: round(seconds, 3) for name, seconds in self.parts.items()},
            "how": self.how,
        }


def measured_duration(
    workload: Workload,
    speed: StepSpeed,
    *,
    blocks: int,
    trainable_parameters: int,
    micro_batch_size: int,
    sequences_per_step: int,
    teacher: tuple[StepSpeed, int] | None = None,
) -> Duration:
    """Predict a run on the device that was measured.

    Args:
        workload: The sequences of the run.
        speed: The measurement, at the planned micro-batch, checkpointing and dtype.
        blocks: Blocks of the base.
        trainable_parameters: Parameters that are trained.
        micro_batch_size: Sequences at once.
        sequences_per_step: Sequences behind each optimizer step.
        teacher: The same measurement of a frozen model that reads every batch too, and its blocks.

    Returns:
        The prediction.
    """
    curve = _Curve(speed.rates)
    batches = list(workload.micro_batches(micro_batch_size, sequences_per_step))
    steps = workload.steps(sequences_per_step)
    flops = blocks * sum(curve.flops(batch) for batch in batches)
    dev = [MicroBatch(1, tokens, 0) for tokens in workload.dev_lengths]
    dev_seconds = blocks * curve.forward_share * sum(curve.seconds(batch) for batch in dev)
    block_seconds = blocks * sum(curve.seconds(batch) for batch in batches)
    parts = {
        "blocks": block_seconds,
        "beside the blocks": BESIDE_BLOCKS * block_seconds,
        "output layer and loss": speed.output_seconds * sum(batch.labelled for batch in batches),
        "optimizer": speed.optimizer_seconds * trainable_parameters * steps,
        "dev loss": workload.dev_measurements(sequences_per_step) * dev_seconds,
    }
    if teacher is not None:
        parts["teacher"] = _teacher_seconds(*teacher, batches)
    seconds = sum(parts.values())
    return Duration(
        seconds=seconds,
        uncertainty_fraction=max(MEASURED_UNCERTAINTY, speed.spread),
        measured=True,
        steps=steps,
        tokens=workload.tokens,
        flops=round(flops),
        flops_per_second=flops / parts["blocks"],
        parts=parts,
        how=(
            f"blocks forward and backward at {' and '.join(f'{r.sequences} x {r.tokens}' for r in speed.rates)} "
            f"tokens on this device: {speed.rates[-1].flops_per_second / 1e9:,.0f} GFLOP/s, matrix products alone "
            f"{speed.product_flops_per_second / 1e9:,.0f}"
        ),
    )


def _teacher_seconds(speed: StepSpeed, blocks: int, batches: list[MicroBatch]) -> float:
    """Return the time of a frozen model's passes: forward alone, a third of what its output layer takes in a step."""
    curve = _Curve(speed.rates)
    passes = blocks * curve.forward_share * sum(curve.seconds(batch) for batch in batches)
    return passes + speed.output_seconds * sum(batch.labelled for batch in batches) / 3


def shared_duration(alone: Duration, factor: float, processes: int) -> Duration:
    """Return the time of a run that several processes share, from that of one; what they say to each other isn't timed.

    Args:
        alone: The prediction for one process with all of this machine's cores, or with one of its GPUs.
        factor: Time against that.
        processes: How many.
    """
    return replace(
        alone,
        seconds=alone.seconds * factor,
        uncertainty_fraction=max(alone.uncertainty_fraction, ASSUMED_UNCERTAINTY),
        flops_per_second=alone.flops_per_second / factor,
        parts={name: seconds * factor for name, seconds in alone.parts.items()},
        how=f"{alone.how}; timed with one process, and {factor:.2f} times that assumed of {processes}",
    )


def features_duration(workload: Workload, speed: StepSpeed, *, blocks: int, prompts_at_once: int) -> Duration:
    """Predict the passes that compute features, on the device that was measured.

    Args:
        workload: The prompts, shortest first.
        speed: The measurement, of which the passes without gradients count.
        blocks: Blocks of the base.
        prompts_at_once: Prompts in one pass.

    Returns:
        The prediction; its steps are passes.
    """
    curve = _Curve(speed.rates)
    batches = list(workload.micro_batches(prompts_at_once, prompts_at_once))
    seconds = blocks * curve.forward_share * sum(curve.seconds(batch) for batch in batches)
    # a step's operations are those of a forward pass and twice as many backward
    flops = blocks * sum(curve.flops(batch) for batch in batches) / 3
    return Duration(
        seconds=seconds,
        uncertainty_fraction=max(MEASURED_UNCERTAINTY, speed.spread),
        measured=True,
        steps=len(batches),
        tokens=workload.tokens,
        flops=round(flops),
        flops_per_second=flops / seconds,
        parts={"features": seconds},
        how=(
            f"blocks forward at {' and '.join(f'{r.sequences} x {r.tokens}' for r in speed.rates)} tokens on this "
            "device; an epoch of the head on kept features takes less than a second for some hundred rows"
        ),
    )


def assumed_duration(
    workload: Workload,
    gpu: Gpu,
    *,
    dtype: str,
    flops_per_token: float,
    slowdown: float,
    sequences_per_step: int,
    devices: int,
) -> Duration:
    """Predict a run on GPUs that are not at hand, from their datasheet.

    Args:
        workload: The sequences of the run.
        gpu: The GPU.
        dtype: dtype of computation.
        flops_per_token: The simulation's operations of forward and backward, for one token.
        slowdown: Time against the same operations in plain layers, such as for unpacking 4-bit weights.
        sequences_per_step: Sequences behind each optimizer step.
        devices: GPUs that share each step.

    Returns:
        The prediction.
    """
    peak = gpu.peak_flops(dtype) or gpu.float32_flops
    rate = peak * ASSUMED_UTILISATION * devices / slowdown
    dev_passes = workload.dev_measurements(sequences_per_step)
    flops = flops_per_token * (workload.tokens + dev_passes * sum(workload.dev_lengths) / 2)
    return Duration(
        seconds=flops / rate,
        uncertainty_fraction=ASSUMED_UNCERTAINTY,
        measured=False,
        steps=workload.steps(sequences_per_step),
        tokens=workload.tokens,
        flops=round(flops),
        flops_per_second=rate,
        parts={"all": flops / rate},
        how=(
            f"not measured: {ASSUMED_UTILISATION:.0%} of the {peak / 1e12:g} TFLOP/s that the {gpu.source} gives for "
            f"{dtype}" + (f", on each of {devices} devices" if devices > 1 else "")
        ),
    )


class _Curve:
    """Operations and seconds of a block over length: one sequence takes a x tokens + b x tokens squared operations."""

    def __init__(self, rates: tuple[BlockRate, ...]) -> None:
        self._rates = sorted(rates, key=lambda rate: rate.sequences * rate.tokens)
        self.forward_share = rates[-1].forward_seconds / rates[-1].seconds
        first, last = self._rates[0], self._rates[-1]
        one, two = first.flops / first.sequences, last.flops / last.sequences
        self._square = 0.0
        if first.tokens != last.tokens:
            self._square = (two / last.tokens - one / first.tokens) / (last.tokens - first.tokens)
        self._linear = one / first.tokens - self._square * first.tokens

    def flops(self, batch: MicroBatch) -> float:
        """Return the operations of one block."""
        return batch.sequences * batch.tokens * (self._linear + self._square * batch.tokens)

    def seconds(self, batch: MicroBatch) -> float:
        """Return the time of one block, its rate taken between the measured ones."""
        first, last = self._rates[0], self._rates[-1]
        low, high = first.sequences * first.tokens, last.sequences * last.tokens
        at = min(max(batch.sequences * batch.tokens, low), high)
        part = (at - low) / (high - low) if high > low else 0.0
        rate = first.flops_per_second + part * (last.flops_per_second - first.flops_per_second)
        return self.flops(batch) / rate
