"""Simulate one real training step under fake tensors: its peak, what the peak is made of, where and when it is.

The real model class, LoRA attachment, loss, optimizer, checkpointing and attention run; only the data is missing. Takes
no weights and no accelerator. The plan calls it for each shape that it considers.
"""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.memory import fake_model
from components.memory.process import Allocations
from components.memory.storages import Peak, StorageLog, tracking

__all__ = ["METHODS", "OPTIMIZERS", "Simulation", "StepModel", "StepSettings", "StepShape", "simulate"]

METHODS = ("full", "lora", "qlora")
DTYPES = ("float32", "bfloat16", "float16")
OPTIMIZERS = ("adamw", "momentum", "sgd")


@dataclass(frozen=True)
class StepSettings:
    """What is trained and how.

    Attributes:
        method: One of `METHODS`; qlora is LoRA on linear layers in 4 bits (NF4 with double quantization).
        rank: LoRA rank.
        targets: LoRA targets, as in the recipe.
        dtype: float32, bfloat16 or float16: dtype of the frozen weights, and of autocast. What is trained is float32.
        optimizer: One of `OPTIMIZERS`.
    """

    method: str = "lora"
    rank: int = 16
    targets: str = "all-linear"
    dtype: str = "float32"
    optimizer: str = "adamw"


@dataclass(frozen=True)
class StepShape:
    """The shape of one micro-batch.

    Attributes:
        micro_batch_size: Sequences, B.
        sequence_tokens: Tokens of each, T.
        gradient_checkpointing: Keep only the input of each block and compute the rest again in the backward pass.
        accumulating: Gradients of an earlier micro-batch are there already.
    """

    micro_batch_size: int
    sequence_tokens: int
    gradient_checkpointing: bool = False
    accumulating: bool = False


@dataclass(frozen=True)
class Simulation:
    """What one step takes.

    Attributes:
        peak: The greatest moment of forward, backward and optimizer step, in tensors.
        flops: Floating-point operations of forward and backward.
        parameters: All parameters.
        trainable_parameters: Those that are trained.
        seconds: How long the simulation took.
    """

    peak: Peak
    flops: int
    parameters: int
    trainable_parameters: int
    seconds: float


def simulate(config: Any, settings: StepSettings, shape: StepShape) -> Simulation:
    """Simulate one training step.

    Args:
        config: A transformers config, or the folder that holds one.
        settings: Method, rank, targets, dtype and optimizer.
        shape: The micro-batch.

    Returns:
        Peak, breakdown and floating-point operations.

    Raises:
        InputError: Unknown method, optimizer or dtype, or an architecture without a causal language model.
    """
    return StepModel(config, settings).run(shape)


class StepModel:
    """A model without data, built once, whose training step can be run in many shapes.

    Args:
        config: A transformers config, or the folder that holds one.
        settings: Method, rank, targets, dtype and optimizer.
    """

    def __init__(self, config: Any, settings: StepSettings) -> None:
        from torch._subclasses.fake_tensor import FakeTensorMode

        _check(settings)
        self.settings = settings
        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self._log = StorageLog()
        with _silently():
            model = fake_model.build(
                fake_model.read_config(config) if isinstance(config, Path) else config,
                method=settings.method,
                rank=settings.rank,
                targets=settings.targets,
                dtype=settings.dtype,
            )
            with self._fake, tracking(self._log):
                fake_model.materialise(model)
        for tensors in (model.parameters(), model.buffers(), fake_model.four_bit_tensors(model)):
            self._log.add(tensors, "weights")
        _name_modules(model, self._log)
        self._model = model
        self._checkpointing = False
        self._trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._optimizer = _optimizer(self._trainable, settings.optimizer)
        with self._fake, tracking(self._log), _silently():
            self._step_peak = self._step()
        self.parameters = fake_model.parameter_count(model)
        self.trainable_parameters = sum(parameter.numel() for parameter in self._trainable)

    def run(self, shape: StepShape) -> Simulation:
        """Run forward, backward and optimizer step once, in the steady state: the optimizer's states exist.

        Args:
            shape: The micro-batch.

        Returns:
            Peak, breakdown and floating-point operations.
        """
        started = time.perf_counter()
        log = self._log
        log.restart()
        with self._fake, tracking(log), _silently():
            self._set_checkpointing(shape.gradient_checkpointing)
            batch = _batch(shape)
            log.add(batch.values(), "other")
            if shape.accumulating:
                self._gradients_of_zeros()
            log.phase = "forward"
            loss = self._loss(batch)
            log.phase = "backward"
            loss.backward()
            log.add(self._gradients(), "gradients")
            peak = log.peak(("forward", "backward"))
            self._optimizer.zero_grad(set_to_none=True)
        if self._step_peak.peak_bytes > peak.peak_bytes:
            peak, other = self._step_peak, peak
        else:
            other = self._step_peak
        peak = replace(peak, phase_peaks={**other.phase_peaks, **peak.phase_peaks})
        seconds = time.perf_counter() - started
        return Simulation(peak, log.flops, self.parameters, self.trainable_parameters, seconds)

    def _step(self) -> Peak:
        """Run the optimizer twice, and return the peak of the second time, when its states exist."""
        self._gradients_of_zeros()
        self._optimizer.step()
        self._log.add(_state_tensors(self._optimizer), "optimizer")
        self._log.phase = "step"
        self._optimizer.step()
        peak = self._log.peak(("step",))
        self._optimizer.zero_grad(set_to_none=True)
        return peak

    def allocations(self, file_dtype: Any) -> Allocations:
        """Return what the last step asked of the allocator.

        Args:
            file_dtype: dtype of the weights on disk; weights of that dtype are read from the file's pages.

        Returns:
            The blocks that stay, and those that come and go.
        """
        mapped = self._log.serials(self._mapped(file_dtype))
        before, after = self._log.changes()
        return Allocations([size for serial, size in before if serial not in mapped], after)

    def mapped_bytes(self, file_dtype: Any) -> int:
        """Return the bytes of weights that are read from the file's pages."""
        unique = {
            tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in self._mapped(file_dtype)
        }
        return sum(unique.values())

    def _mapped(self, file_dtype: Any) -> list[Any]:
        trained = self.settings.method == "full"
        return [
            parameter
            for parameter in self._model.parameters()
            if parameter.dtype == file_dtype and parameter.requires_grad == trained
        ]

    def _loss(self, batch: dict[str, Any]) -> Any:
        import torch

        from components.finetuning.loss import forward_loss

        dtype = getattr(torch, self.settings.dtype)
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not torch.float32):
            return forward_loss(self._model, batch, 1.0)

    def _gradients(self) -> Iterator[Any]:
        return (parameter.grad for parameter in self._trainable if parameter.grad is not None)

    def _gradients_of_zeros(self) -> None:
        import torch

        for parameter in self._trainable:
            parameter.grad = torch.zeros_like(parameter)
        self._log.add(self._gradients(), "gradients")

    def _set_checkpointing(self, on: bool) -> None:
        if on == self._checkpointing:
            return
        self._checkpointing = on
        if on:
            self._model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            return
        self._model.gradient_checkpointing_disable()
        # switching on made the embeddings' output require a gradient, which switching off leaves as it is
        inner = self._model if self.settings.method == "full" else self._model.get_base_model()
        inner.disable_input_require_grads()


def _optimizer(parameters: list[Any], name: str) -> Any:
    import torch

    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=1e-3)
    return torch.optim.SGD(parameters, lr=1e-3, momentum=0.9 if name == "momentum" else 0.0)


def _check(settings: StepSettings) -> None:
    for what, value, allowed in (
        ("method", settings.method, METHODS),
        ("optimizer", settings.optimizer, OPTIMIZERS),
        ("dtype", settings.dtype, DTYPES),
    ):
        if value not in allowed:
            raise InputError(f"unknown {what} {value!r}", allowed=", ".join(allowed))
    if settings.rank < 1:
        raise InputError(f"LoRA rank {settings.rank}", allowed="1 or more")


def _batch(shape: StepShape) -> dict[str, Any]:
    """Tensors as `collate` gives them; every place carries a label, which is the most that a batch can hold."""
    import torch

    if shape.micro_batch_size < 1 or shape.sequence_tokens < 2:
        raise InputError(
            f"a micro-batch of {shape.micro_batch_size} sequences of {shape.sequence_tokens} tokens",
            allowed="at least one sequence of at least two tokens",
        )
    rows, tokens = shape.micro_batch_size, shape.sequence_tokens
    whole = {name: torch.zeros(rows, tokens, dtype=torch.int64) for name in ("input_ids", "position_ids", "labels")}
    return {
        **whole,
        "weights": torch.ones(rows, tokens),
        "attention_mask": torch.ones(rows, 1, tokens, tokens, dtype=torch.bool),
    }


def _state_tensors(optimizer: Any) -> Iterator[Any]:
    import torch

    for state in optimizer.state.values():
        yield from (value for value in state.values() if isinstance(value, torch.Tensor))


def _name_modules(model: Any, log: StorageLog) -> None:
    """Let the log know which part of the decoder is at work, forward and backward."""
    import torch

    named = {module: name for name, module in model.named_modules()}
    blocks = [module for module in named if isinstance(module, torch.nn.ModuleList)]
    watched = [part for block in blocks for layer in block for part in layer.children()]
    watched += [model.get_input_embeddings()]
    for module in watched:
        name = named[module].removeprefix("base_model.model.")
        module.register_forward_pre_hook(_entering(log, name))
        module.register_forward_hook(_leaving(log, name))


def _entering(log: StorageLog, name: str) -> Any:
    def hook(*_: Any) -> None:
        log.module = name

    return hook


def _leaving(log: StorageLog, name: str) -> Any:
    def hook(_module: Any, _arguments: Any, output: Any) -> None:
        log.module = ""
        first = output[0] if isinstance(output, tuple) else output
        if first.requires_grad:
            # runs when the gradient of the output is there: the module's backward pass is next
            first.register_hook(_entering(log, name))

    return hook


@contextlib.contextmanager
def _silently() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
