"""A model of fake tensors whose storages are followed: what every simulated pass runs, training or not."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.memory import fake_model
from components.memory.quantized_layers import parameter_count, scale_tensors
from components.memory.settings import StepSettings
from components.memory.storages import StorageLog, tracking
from components.models.base_config import read_config
from components.models.blocks import decoder_blocks

__all__ = ["TrackedModel", "one_sequence_a_row", "silently"]


class TrackedModel:
    """Build a model without data, and note its weights.

    Args:
        config: A transformers config, or the folder that holds one.
        settings: What the model is made of.
        training: Prepared for training; else frozen, in evaluation mode.

    Attributes:
        model: The model.
        teacher: The frozen model that it learns from; None where there is none.
        log: The history of its storages.
        parameters: Number of parameters.

    Raises:
        InputError: An architecture without a causal language model, or targets that match nothing.
    """

    def __init__(self, config: Path | Any, settings: StepSettings, *, training: bool = True) -> None:
        from torch._subclasses.fake_tensor import FakeTensorMode

        self._fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.log = StorageLog(settings.device)
        found = read_config(config) if isinstance(config, Path) else config
        with silently():
            self.model = fake_model.build(found, settings, training=training)
            self.teacher = fake_model.build_teacher(settings) if training else None
        with self.running():
            fake_model.materialise(self.model)
            if self.teacher is not None:
                fake_model.materialise(self.teacher)
        self.log.add(self.weights(), "weights")
        self.parameters = parameter_count(self.model)
        _name_modules(self.model, self.log)

    def weights(self) -> Iterator[Any]:
        """Yield parameters, buffers and the scales of quantized layers, and the teacher's."""
        taught = chain(self.teacher.parameters(), self.teacher.buffers()) if self.teacher is not None else ()
        return chain(self.model.parameters(), self.model.buffers(), scale_tensors(self.model), taught)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Run what stands inside on fake tensors and note their storages.

        Raises:
            InputError: The architecture does what can't be done without data, or not in this dtype.
        """
        try:
            with self._fake, tracking(self.log), silently(), one_sequence_a_row():
                yield
        except (RuntimeError, TypeError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"a pass of {type(_base_of(self.model)).__name__} can't be simulated: {reason}",
                allowed="decoders that take positions and a mask [B, 1, T, T]; experts only in bfloat16",
                next_step="try --dtype bfloat16, or another base",
            ) from error


def _name_modules(model: Any, log: StorageLog) -> None:
    """Let the log know which part of the decoder is at work, forward and backward."""
    inner = _base_of(model)  # names within the base, whatever wraps it
    named = {module: name for name, module in inner.named_modules()}
    watched = [part for block in decoder_blocks(inner) for part in block.children()]
    watched += [inner.get_input_embeddings()]
    for module in watched:
        module.register_forward_pre_hook(_entering(log, named[module]))
        module.register_forward_hook(_leaving(log, named[module]))


def _base_of(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


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
def one_sequence_a_row() -> Iterator[None]:
    """Answer for transformers what it can't read off fake positions: that rows without a mask aren't packed.

    It would lay out a mask otherwise, which a real step without a mask doesn't have.
    """
    from transformers import masking_utils

    name = "find_packed_sequence_indices"
    original = getattr(masking_utils, name)
    setattr(masking_utils, name, lambda *_: None)
    try:
        yield
    finally:
        setattr(masking_utils, name, original)


@contextlib.contextmanager
def silently() -> Iterator[None]:
    """Keep libraries' warnings to themselves: they are about steps that nobody runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
