"""The plan of feature-based transfer: passes without gradients, features of all rows, and a head beside them. Behind
`make_plan`, which gives budget, dtype and process; the passes are those that training makes, simulated.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.memory import fake_model
from components.memory.block_probe import measure_step_speed
from components.memory.duration import Duration, assumed_duration, features_duration
from components.memory.gpus import Gpu
from components.memory.hardware import Budget
from components.memory.process import (
    ProcessOverhead,
    TrainingProcess,
    cuda_overhead,
    kept_mapped_bytes,
)
from components.memory.search import HEADROOM_FRACTION, Candidate, Outcome
from components.memory.settings import StepSettings
from components.memory.simulate import Simulation
from components.memory.tracked_model import TrackedModel
from components.memory.workload import Workload

__all__ = ["METHOD", "FeaturePass", "plan_features"]

METHOD = "features"
# Prompts in one pass. On a CPU more are no faster (a pass has 2,048 tokens at most), and take more memory.
SIZES = (16, 8, 4, 2, 1)
# Features as they are gathered, and once more standardised while the head learns.
FEATURE_COPIES = 3
# Blocks of a pass are freed in the order in which they were made, so that the heap has few holes. What is first touched
# in it (code, work buffers, what loading imports) is the rest. Measured with the 135M model, float32 and bfloat16.
HEAP_FACTOR = 1.25
FIRST_PASS_BYTES = 100_000_000


@dataclass(frozen=True)
class FeaturePass:
    """How features are taken.

    Attributes:
        pooling: "last" or "mean".
        layer: "last" or a block's number.
    """

    pooling: str = "last"
    layer: int | str = "last"


def plan_features(
    config: Any,
    settings: StepSettings,
    how: FeaturePass,
    *,
    workload: Workload,
    budget: Budget,
    process: TrainingProcess | None,
    folder: Path,
    gpu: Gpu | None,
) -> tuple[Outcome, Duration | None]:
    """Find the largest batch of prompts that fits, and predict the time of all passes.

    Args:
        config: The base's config.
        settings: dtype and device; what belongs to training is passed over.
        how: Which states are pooled.
        workload: The prompts.
        budget: What the process may take.
        process: A training process, asked for what frameworks take; None for a CUDA budget.
        folder: The base's; only the sizes of its weights are used.
        gpu: A named GPU, None for the device at hand.

    Returns:
        The outcome, whose `micro_batch_size` is the number of prompts in a pass, and the time; None where the device
        isn't at hand. The head's own passes take seconds and are not in it.

    Raises:
        InputError: A layer that the base hasn't, or an architecture that can't be simulated.
    """
    from components.models.features import check_layer

    check_layer(config, how.layer)
    # building a model writes its own dtype into the config
    file_dtype = getattr(config, "dtype", None)
    model = _Passes(config, settings, how)
    limit = round(budget.budget_bytes * (1 - HEADROOM_FRACTION))
    file_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    mapped = model.mapped_bytes(file_dtype)
    kept = FEATURE_COPIES * len(workload.lengths) * config.get_text_config().hidden_size * 4
    found: list[tuple[Candidate, Simulation, ProcessOverhead]] = []
    for size in SIZES:
        simulation = model.run(_rows(size, workload.longest), workload.longest)
        tensors = simulation.peak.peak_bytes
        if process is None:
            extra = cuda_overhead(tensors, beside_context=budget.beside_context)
        else:
            heap = round((tensors - simulation.peak.breakdown["weights"]) * (HEAP_FACTOR - 1))
            # what simulating has imported stays in this process, where the run will take place
            process.look_again()
            # weights that are converted are there twice while they are loaded
            loading = 0 if mapped else file_bytes + simulation.peak.breakdown["weights"]
            extra = ProcessOverhead(
                process.baseline_bytes(),
                max(heap, loading - tensors) + FIRST_PASS_BYTES,
                kept_mapped_bytes(mapped, file_bytes),
            )
        peak = tensors + extra.total_bytes + kept
        candidate = Candidate(
            method=METHOD,
            dtype=settings.dtype,
            optimizer="adamw",
            sharding="none",
            micro_batch_size=size,
            gradient_accumulation_steps=1,
            gradient_checkpointing=False,
            peak_bytes=peak,
            relative_seconds=1.0,
            fits=peak <= limit,
            why_not="" if peak <= limit else f"takes {(peak - limit) / 2**30:.2f} GiB more than fits",
        )
        found.append((candidate, simulation, extra))
        if candidate.fits:
            break
    chosen, simulation, extra = found[-1]
    breakdown = dict(simulation.peak.breakdown)
    breakdown["other"] += extra.total_bytes + kept
    others = tuple(candidate for candidate, _, _ in found[:-1])
    outcome = Outcome(chosen, simulation, extra, breakdown, others)
    return outcome, _duration(config, settings, outcome, workload, budget, gpu)


def _rows(size: int, tokens: int) -> int:
    """Return how many prompts of the longest length one pass takes: it has a limit of tokens."""
    from components.models.batches import PREFILL_TOKENS

    return max(1, min(size, PREFILL_TOKENS // tokens))


class _Passes:
    """A frozen model without data, and one pass of it."""

    def __init__(self, config: Any, settings: StepSettings, how: FeaturePass) -> None:
        self._settings, self._how = settings, how
        self._tracked = TrackedModel(config, settings, training=False)
        self._tracked.model.requires_grad_(False)

    def run(self, rows: int, tokens: int) -> Simulation:
        import time

        import torch

        from components.models.features import pooled_states

        started = time.perf_counter()
        log = self._tracked.log
        log.restart()
        with self._tracked.running(), torch.no_grad():
            log.phase = METHOD
            ids = torch.zeros(rows, tokens, dtype=torch.int64)
            lengths = torch.full((rows,), tokens)
            pooled_states(self._tracked.model, ids, lengths, self._how.pooling, self._how.layer)
        seconds = time.perf_counter() - started
        return Simulation(log.peak((METHOD,)), log.flops, self._tracked.parameters, 0, seconds)

    def mapped_bytes(self, file_dtype: Any) -> int:
        parameters = self._tracked.model.parameters()
        mapped = (p for p in parameters if fake_model.is_mapped(p, self._settings, file_dtype))
        return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in mapped}.values())


def _duration(
    config: Any, settings: StepSettings, outcome: Outcome, workload: Workload, budget: Budget, gpu: Gpu | None
) -> Duration | None:
    import torch

    size = outcome.chosen.micro_batch_size
    if gpu is not None:
        tokens = _rows(size, workload.longest) * workload.longest
        # `assumed_duration` takes operations of a training step; these are all there are
        return assumed_duration(
            workload,
            gpu,
            dtype=settings.dtype,
            flops_per_token=outcome.simulation.flops / tokens,
            slowdown=1.0,
            sequences_per_step=size,
            devices=1,
        )
    if budget.device != ("cuda" if torch.cuda.is_available() else "cpu"):
        return None
    lengths = sorted(workload.lengths)
    probed = tuple(sorted({lengths[len(lengths) // 4], lengths[(3 * len(lengths)) // 4]}))
    # the narrowest adapter: of its timings only the pass without gradients counts
    speed = measure_step_speed(
        config,
        StepSettings("lora", rank=1, dtype=settings.dtype, device=budget.device),
        sequences=_rows(size, lengths[-1]),
        lengths=probed,
        labelled=1,
        gradient_checkpointing=False,
    )
    if speed is None:
        return None
    return features_duration(workload, speed, blocks=config.get_text_config().num_hidden_layers, prompts_at_once=size)
