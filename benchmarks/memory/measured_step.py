"""A real training step on real tensors, with its live storages followed: what a simulation is held against.

Everything is loaded, quantized and trained as in a run; only the batch is random. The tests use it on tiny models, the
benchmark on larger ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from components.memory.settings import StepSettings, StepShape
from components.memory.storages import Peak, StorageLog, tracking

__all__ = ["RealStep"]


class RealStep:
    """A model that is trained for real.

    Args:
        folder: A base.
        settings: What is trained and how; one device, nothing offloaded.
        shape: The micro-batch.
    """

    def __init__(self, folder: Path, settings: StepSettings, shape: StepShape) -> None:
        import torch

        from components.memory.optimizers import build_optimizer

        torch.manual_seed(0)
        self._settings, self._shape = settings, shape
        self._model = _prepared(folder, settings)
        self._model.train()
        if shape.gradient_checkpointing:
            self._model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        self._trained = [parameter for parameter in self._model.parameters() if parameter.requires_grad]
        self._optimizer = build_optimizer(self._trained, settings.optimizer, "cpu")
        self._on_gradient: Callable[[Any], None] = lambda _: None
        if settings.step_in_backward:
            for parameter in self._trained:
                parameter.register_post_accumulate_grad_hook(self._step_of)
        self._batch = _batch(self._model, settings, shape)

    def run(self, steps: int) -> None:
        """Train for some steps, so that the optimizer's states exist and the allocator has settled."""
        for _ in range(steps):
            for _ in range(1 + self._shape.accumulating):
                self._loss().backward()
            if not self._settings.step_in_backward:
                self._optimizer.step()
            self._optimizer.zero_grad(set_to_none=True)

    def measure(self) -> Peak:
        """Follow one step; needs the optimizer's states, so run one before."""
        from components.memory.optimizers import state_tensors
        from components.memory.quantized_layers import scale_tensors

        if self._shape.accumulating:
            self._loss().backward()
        log = StorageLog()
        for tensors in (self._model.parameters(), self._model.buffers(), scale_tensors(self._model)):
            log.add(tensors, "weights")
        log.add(state_tensors(self._optimizer), "optimizer")
        log.add(self._gradients(), "gradients")
        log.add(self._batch.values(), "other")
        self._on_gradient = lambda parameter: log.add((parameter.grad,), "gradients")
        with tracking(log):
            self._forward_and_backward(log)
            if not self._settings.step_in_backward:
                log.phase = "step"
                self._optimizer.step()
        return log.peak(("forward", "backward", "step"))

    def _forward_and_backward(self, log: StorageLog) -> None:
        # a function of its own, so that the graph is gone before the step, as in the trainer
        log.phase = "forward"
        loss = self._loss()
        log.phase = "backward"
        loss.backward()
        log.add(self._gradients(), "gradients")

    def _loss(self) -> Any:
        import torch

        from components.finetuning.loss import forward_loss

        dtype, autocast = getattr(torch, self._settings.dtype), self._settings.autocast
        with torch.autocast("cpu", dtype=dtype, enabled=autocast):
            if "weights" in self._batch:
                return forward_loss(self._model, self._batch, 1.0)
            return self._model(**self._batch, use_cache=False).loss

    def _step_of(self, parameter: Any) -> None:
        self._on_gradient(parameter)
        self._optimizer.step()
        parameter.grad = None

    def _gradients(self) -> list[Any]:
        return [parameter.grad for parameter in self._trained if parameter.grad is not None]


def _prepared(folder: Path, settings: StepSettings) -> Any:
    from components.finetuning.methods import METHODS
    from components.finetuning.prompt_tuning import SoftPromptSettings
    from components.memory.fake_model import prepared
    from components.models.packed_attention import use_attention

    model = _loaded(folder, settings)
    if settings.objective == "weighted" and METHODS[settings.method].settings is not SoftPromptSettings:
        use_attention(model, settings.attention, "cpu")
    model = prepared(model, settings)
    if settings.trained_dtype == "bfloat16":
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.data = parameter.data.bfloat16()
    return model


def _loaded(folder: Path, settings: StepSettings) -> Any:
    import torch

    from components.models.load import load_model

    mixed_full = settings.method == "full" and settings.trained_dtype == "float32"
    dtype = "float32" if mixed_full else settings.dtype
    if settings.frozen_quantization != "int8":
        return load_model(folder, dtype=dtype, quantization=settings.frozen_quantization)
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    return AutoModelForCausalLM.from_pretrained(
        str(folder),
        dtype=getattr(torch, dtype),
        quantization_config=BitsAndBytesConfig(load_in_8bit=True),
        device_map={"": "cpu"},
        attn_implementation="sdpa",
        local_files_only=True,
    )


def _batch(model: Any, settings: StepSettings, shape: StepShape) -> dict[str, Any]:
    import torch

    rows, tokens = shape.micro_batch_size, shape.sequence_tokens
    vocabulary = model.get_input_embeddings().weight.shape[0]
    ids, labels = (torch.randint(0, vocabulary, (rows, tokens)) for _ in range(2))
    if settings.objective == "logits":
        return {"input_ids": ids, "labels": labels}
    return {
        "input_ids": ids,
        "position_ids": torch.arange(tokens).expand(rows, tokens).contiguous(),
        "labels": labels,
        "weights": torch.ones(rows, tokens),
        "attention_mask": torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(rows, 1, tokens, tokens).clone(),
    }
