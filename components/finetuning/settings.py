"""Everything that decides the weights of a run: the trainer's settings, and what the dev rows may decide."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from components.files import digest_of
from components.finetuning.methods import MethodSettings
from components.finetuning.mixing import Mixture
from components.models.kernels import Kernels
from components.models.rope import RopeScaling

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["DevSettings", "DevTask", "FinetuneSettings", "what_decides", "what_dev_decides"]


@dataclass(frozen=True)
class FinetuneSettings:
    """What decides the weights, all of it: the same settings, rows and base give the same weights.

    Attributes:
        method: A name in `methods.METHODS`.
        attachment: The method's own settings.
        dtype: Of frozen weights and of computation; what is trained is float32.
        optimizer: adamw, or on CUDA adamw_8bit or paged_adamw_8bit, as the plan chose.
        learning_rate: Peak of the schedule.
        schedule: "cosine", "linear" or "constant" decay after the warm-up.
        warmup_fraction: Part of the steps in which the rate rises.
        weight_decay: AdamW's.
        max_grad_norm: Gradients are clipped to this norm.
        epochs: Passes over the rows.
        rows_per_sequence: Rows behind one prefix.
        micro_batch_size: Packed sequences in one forward pass.
        gradient_accumulation_steps: Micro-batches behind one optimizer step.
        gradient_checkpointing: Recompute activations in the backward pass.
        max_tokens: Longest packed sequence.
        prompt_loss_weight: Weight of prompt tokens.
        seed: Of order and dropout.
        rope_scaling: How the base's positions are scaled, in training and wherever the weights are loaded.
        objective: "answers": what the assistant says in a chat; "text": every token of raw text.
        mixture: Tokens of each task by stage, for rows that name theirs in `metadata.task`; none, all rows alike, by
            `epochs`.
        teacher: Fingerprint of the model whose distributions are learned; None, none.
        distillation_weight: Part of the loss that is the distance from the teacher.
        temperature: Of teacher and student in that distance.
        kernels: What computes the steps; other kernels round otherwise.
    """

    method: str
    attachment: MethodSettings
    dtype: str = "float32"
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    warmup_fraction: float = 0.05
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    epochs: float = 3.0
    rows_per_sequence: int = 4
    micro_batch_size: int = 1
    gradient_accumulation_steps: int = 4
    gradient_checkpointing: bool = False
    max_tokens: int = 1024
    prompt_loss_weight: float = 0.0
    seed: int = 0
    rope_scaling: RopeScaling | None = None
    objective: str = "answers"
    mixture: Mixture = ()
    teacher: str | None = None
    distillation_weight: float = 0.0
    temperature: float = 1.0
    kernels: Kernels = Kernels()  # noqa: RUF009 - frozen


@dataclass(frozen=True)
class DevSettings:
    """How the dev rows are watched, and whether they have a say in the weights.

    Attributes:
        passes: Measurements in a run, evenly spread; the last one is after the last step.
        early_stopping: Measurements in a row without a better one, after which the run ends; 0: it never ends early.
        keep_best: Save the weights of the best measurement; else those of the last step.
    """

    passes: int = 4
    early_stopping: int = 0
    keep_best: bool = True

    @property
    def decides(self) -> bool:
        """Whether other dev rows may give other weights."""
        return self.keep_best or self.early_stopping > 0


def what_decides(settings: FinetuneSettings) -> str:
    """Return the settings that a resumed run must share: all, but how the same effective batch is cut and computed.

    Another number of processes cuts it otherwise, and with parts of the weights other activations fit.
    """
    values = asdict(settings)
    del values["gradient_checkpointing"]
    cut = values.pop("micro_batch_size") * values.pop("gradient_accumulation_steps")
    return json.dumps({**values, "sequences_per_step": cut}, sort_keys=True)


@dataclass(frozen=True)
class DevTask:
    """Dev rows that the model in training answers, and how its answers are scored.

    Attributes:
        rows: Rows with answers.
        metric: Name of a metric.
        options: Options of the metric.
        max_new_tokens: Most tokens of an answer.
    """

    rows: Sequence[Row]
    metric: str
    options: Mapping[str, Any]
    max_new_tokens: int


def what_dev_decides(dev: DevSettings, rows: Sequence[Row], task: DevTask | None = None) -> str | None:
    """Return what other weights may come from, as a text; None where dev rows are only watched, or aren't there.

    Args:
        dev: How they are watched.
        rows: The rows behind the dev loss.
        task: The rows that are answered. Options of its metric may be paths, and are left to the caller.
    """
    if not rows or not dev.decides:
        return None
    found = {**asdict(dev), "rows": _digest(rows)}
    if task is not None:
        found["task"] = [_digest(task.rows), task.metric, task.max_new_tokens]
    return json.dumps(found, sort_keys=True)


def _digest(rows: Sequence[Row]) -> str:
    return digest_of([row.to_dict() for row in rows])
