"""Simulate one real training step under fake tensors: its peak, what the peak is made of, where and when it is.

The real model class, method, loss, optimizer, checkpointing and attention run; only the data is missing. Takes no
weights and no accelerator. The plan calls it for each shape that it considers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.memory.fake_model import is_mapped
from components.memory.optimizers import TORCH_OPTIMIZERS, build_optimizer, pageable_sizes, state_tensors
from components.memory.settings import (
    DTYPES,
    OPTIMIZERS,
    StepSettings,
    StepShape,
    check_settings,
    check_shape,
)
from components.memory.sharding import BlockGathering
from components.memory.storages import Moment, Peak
from components.memory.tracked_model import TrackedModel

__all__ = [
    "DTYPES",
    "OPTIMIZERS",
    "Simulation",
    "StepModel",
    "StepSettings",
    "StepShape",
    "micro_batch_loss",
    "simulate",
    "zero_batch",
]

PHASES = ("forward", "backward", "step")


@dataclass(frozen=True)
class Simulation:
    """What one pass takes.

    Attributes:
        peak: The greatest moment of forward, backward and optimizer step, in tensors on one device.
        flops: Floating-point operations of forward and backward.
        parameters: All parameters.
        trainable_parameters: Those that are trained.
        seconds: How long the simulation took.
        host_bytes: What an offloaded optimizer keeps in the host's memory.
        pageable_bytes: The part of the peak that a paged optimizer may move to the host when the device is full.
        least_bytes: The peak on the device once all of that is moved; in the step one paged tensor is there at a time.
    """

    peak: Peak
    flops: int
    parameters: int
    trainable_parameters: int
    seconds: float
    host_bytes: int = 0
    pageable_bytes: int = 0
    least_bytes: int = 0


def simulate(config: Any, settings: StepSettings, shape: StepShape) -> Simulation:
    """Simulate one training step.

    Args:
        config: A transformers config, or the folder that holds one.
        settings: What is trained and how.
        shape: The micro-batch.

    Returns:
        Peak, breakdown and floating-point operations.

    Raises:
        InputError: Unknown or contradictory settings, an impossible shape, or an architecture without a causal
            language model.
    """
    return StepModel(config, settings).run(shape)


class StepModel:
    """A model without data, built once, whose training step can be run in many shapes.

    Args:
        config: A transformers config, or the folder that holds one.
        settings: What is trained and how.

    Raises:
        InputError: Unknown or contradictory settings, or an architecture without a causal language model.
    """

    def __init__(self, config: Path | Any, settings: StepSettings) -> None:
        check_settings(settings)
        self.settings = settings
        self._tracked = TrackedModel(config, settings)
        self._model, self._log = self._tracked.model, self._tracked.log
        self._checkpointing = False
        self._trainable = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._share = self._trained_share()
        self._place_shards()
        self._optimizer = build_optimizer(self._trainable, settings.optimizer, settings.device)
        with self._tracked.running():
            # the first step makes the states
            self._gradients_of_zeros()
            self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)
        # bitsandbytes keeps its states in 8 or 32 bits whatever the gradients are in; torch's are like them
        self._state_share = self._share if settings.optimizer in TORCH_OPTIMIZERS else 1 / settings.world_size
        state_share = 0.0 if settings.offload_optimizer else self._state_share
        self._log.add(state_tensors(self._optimizer), "optimizer", state_share)
        if settings.step_in_backward:
            for parameter in self._trainable:
                parameter.register_post_accumulate_grad_hook(self._step_of)
        self.parameters = self._tracked.parameters
        self.trainable_parameters = sum(parameter.numel() for parameter in self._trainable)

    def run(self, shape: StepShape) -> Simulation:
        """Run forward, backward and optimizer step once, in the steady state: the optimizer's states exist.

        Args:
            shape: The micro-batch.

        Returns:
            Peak, breakdown and floating-point operations.

        Raises:
            InputError: An impossible shape.
        """
        check_shape(self.settings, shape)
        started = time.perf_counter()
        log = self._log
        log.restart()
        with self._tracked.running():
            self._set_checkpointing(shape.gradient_checkpointing)
            batch = zero_batch(self.settings, shape)
            log.add(batch.values(), "other")
            if shape.accumulating:
                self._gradients_of_zeros()
            self._forward_and_backward(batch)
            flops = log.flops
            # an offloaded optimizer steps in the host's memory
            if not self.settings.step_in_backward and not self.settings.offload_optimizer:
                log.phase = "step"
                self._optimizer.step()
            log.phase = "end"
            self._optimizer.zero_grad(set_to_none=True)
        peak = log.peak(PHASES)
        pageable = [size * self._state_share for size in pageable_sizes(self._optimizer, self.settings.optimizer)]
        worked_on = {"backward" if self.settings.step_in_backward else "step": max(pageable, default=0.0)}
        least = max(size - sum(pageable) + worked_on.get(phase, 0.0) for phase, size in peak.phase_peaks.items())
        return Simulation(
            peak,
            flops,
            self.parameters,
            self.trainable_parameters,
            time.perf_counter() - started,
            self._host_bytes(),
            round(sum(pageable)),
            round(least) if pageable else peak.peak_bytes,
        )

    def moments(self) -> Iterator[Moment]:
        """Yield what was alive after each change of the last run."""
        return self._log.moments()

    def mapped_bytes(self, file_dtype: Any) -> int:
        """Return the bytes of weights that are read from the file's pages.

        Args:
            file_dtype: dtype of the weights on disk; weights of that dtype are read from the file's pages.
        """
        mapped = (p for p in self._model.parameters() if is_mapped(p, self.settings, file_dtype))
        unique = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in mapped}
        return sum(unique.values())

    def unmapped_bytes(self, file_dtype: Any) -> int:
        """Return the bytes of the whole weights that a process has of its own when it has loaded them.

        Args:
            file_dtype: dtype of the weights on disk. Weights that are trained don't stay what they are there.
        """
        import torch

        whole = self.settings.method == "full"
        loaded = torch.float32 if whole else getattr(torch, self.settings.dtype)
        return 0 if not whole and loaded == file_dtype else self.parameters * int(loaded.itemsize)

    def _forward_and_backward(self, batch: dict[str, Any]) -> None:
        log = self._log
        if self._gathering is not None:
            self._gathering.begin()
        log.phase = "forward"
        loss = micro_batch_loss(self._model, batch, self.settings, self._tracked.teacher)
        log.phase = "backward"
        loss.backward()
        log.add(self._gradients(), "gradients", self._share)
        if self._gathering is not None:
            self._gathering.end()

    def _gradients(self) -> Iterator[Any]:
        return (parameter.grad for parameter in self._trainable if parameter.grad is not None)

    def _gradients_of_zeros(self) -> None:
        import torch

        for parameter in self._trainable:
            parameter.grad = torch.zeros_like(parameter)
        self._log.add(self._gradients(), "gradients", self._share)

    def _step_of(self, parameter: Any) -> None:
        """Update one parameter and drop its gradient; the others have none at this moment."""
        self._log.add((parameter.grad,), "gradients", self._share)
        self._optimizer.step()
        parameter.grad = None

    def _trained_share(self) -> float:
        """Bytes of a device's shard of what is trained, against the simulated copy's in the dtype of computation."""
        import torch

        simulated = max((parameter.element_size() for parameter in self._trainable), default=4)
        kept = getattr(torch, self.settings.trained_dtype).itemsize
        return float(kept / simulated / self.settings.world_size) if self.settings.world_size > 1 else 1.0

    def _place_shards(self) -> None:
        self._gathering: BlockGathering | None = None
        if self.settings.world_size == 1:
            return
        self._gathering = BlockGathering(self._model, self._log)
        self._log.add(self._tracked.weights(), "weights", 1 / self.settings.world_size)
        self._log.add(self._trainable, "weights", self._share)
        if self._tracked.teacher is not None:
            # each device has all of it
            self._log.add(self._tracked.teacher.parameters(), "weights", 1.0)

    def _host_bytes(self) -> int:
        if not self.settings.offload_optimizer:
            return 0
        states = {tensor.untyped_storage()._cdata: tensor for tensor in state_tensors(self._optimizer)}
        kept = sum(tensor.untyped_storage().nbytes() for tensor in states.values())
        copies = sum(2 * parameter.numel() * parameter.element_size() for parameter in self._trainable)
        return round(kept * self._state_share + copies * self._share)

    def _set_checkpointing(self, on: bool) -> None:
        if on == self._checkpointing:
            return
        self._checkpointing = on
        if on:
            self._model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            return
        self._model.gradient_checkpointing_disable()
        # switching on made the embeddings' output require a gradient, which switching off leaves as it is
        inner = self._model.get_base_model() if hasattr(self._model, "get_base_model") else self._model
        inner.disable_input_require_grads()


def zero_batch(settings: StepSettings, shape: StepShape) -> dict[str, Any]:
    """Return tensors as `collate` gives them; every place carries a label, which is the most that a batch can hold.

    Args:
        settings: What is trained and how.
        shape: B sequences of T tokens.

    Returns:
        Token ids, labels and positions [B, T], weights [B, T], and where attention takes one a mask [B, 1, T, T]; ids
        and labels alone where the loss is transformers' own.
    """
    import torch

    rows, tokens = shape.micro_batch_size, shape.sequence_tokens
    whole = {name: torch.zeros(rows, tokens, dtype=torch.int64) for name in ("input_ids", "labels")}
    if settings.objective == "logits":
        return whole
    batch = {
        **whole,
        "position_ids": torch.zeros(rows, tokens, dtype=torch.int64),
        "weights": torch.ones(rows, tokens),
    }
    if settings.attention == "sdpa":
        batch["attention_mask"] = torch.ones(rows, 1, tokens, tokens, dtype=torch.bool)
    return batch


def micro_batch_loss(model: Any, batch: dict[str, Any], settings: StepSettings, teacher: Any = None) -> Any:
    """Return the loss of a batch as the trainer computes it, under autocast where it trains so.

    Args:
        model: The model in training.
        batch: As `zero_batch` gives it.
        settings: What is trained and how.
        teacher: The frozen model that it learns from, where there is one.
    """
    import torch

    from components.finetuning.distill import Teacher
    from components.finetuning.loss import forward_loss

    # what they weigh takes no memory
    taught = Teacher(teacher, 0.5, 2.0) if teacher is not None else None
    with torch.autocast("cpu", dtype=getattr(torch, settings.dtype), enabled=settings.autocast):
        if "weights" in batch:
            return forward_loss(model, batch, 1.0, taught)
        return model(**batch, use_cache=False).loss
