"""Fit a head to features: AdamW over rows in a seeded order, the epoch with the smallest dev loss kept."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import TunewrightError
from components.finetuning.learning_rate import rate_schedule

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Fit", "FitSettings", "fit"]


@dataclass(frozen=True)
class FitSettings:
    """How a head is fitted.

    Attributes:
        classes: Number of classes; 0 for regression.
        learning_rate: Peak of the schedule.
        schedule: Name of the schedule, as transformers knows it.
        warmup_fraction: Part of the steps in which the rate rises.
        weight_decay: AdamW's.
        max_grad_norm: Gradients are clipped to this norm.
        epochs: Passes over the rows, at most; a part of one counts as one.
        batch_rows: Rows behind a step.
        patience: Epochs without a smaller dev loss after which it ends; 0: never.
        class_weights: Weigh classes by n / (classes x rows of the class) (King & Zeng 2001).
        seed: Of the order.
    """

    classes: int
    learning_rate: float
    schedule: str
    warmup_fraction: float
    weight_decay: float
    max_grad_norm: float
    epochs: float
    batch_rows: int
    patience: int
    class_weights: bool
    seed: int


@dataclass(frozen=True)
class Fit:
    """What fitting came to.

    Attributes:
        steps: Optimizer steps that were done.
        planned_steps: Those of all passes.
        epochs: Passes made.
        best_epoch: The pass whose weights are kept.
        losses: For each pass the step at its end, its mean loss, learning rate, last gradient norm and seconds so far.
        dev: For each pass the step at its end and the dev loss; empty without dev rows.
        seconds: Time of all passes, dev losses included.
    """

    steps: int
    planned_steps: int
    epochs: int
    best_epoch: int
    losses: list[dict[str, Any]]
    dev: list[dict[str, float]]
    seconds: float

    @property
    def kept_step(self) -> int:
        """The step at the end of the pass whose weights are kept."""
        return self.steps // self.epochs * self.best_epoch

    @property
    def ended(self) -> str:
        """Why fitting ended, in words."""
        if self.steps == self.planned_steps:
            return f"all {self.steps} steps were done"
        return f"{self.epochs - self.best_epoch} epochs in a row brought no smaller dev loss"


def fit(
    network: Any,
    train: tuple[Tensor, Tensor],
    dev: tuple[Tensor, Tensor] | None,
    settings: FitSettings,
    progress: Callable[[dict[str, float]], None] | None = None,
) -> Fit:
    """Train a network in place; equal input gives equal bits on the CPU.

    Args:
        network: From standardised features [B, H] to outputs [B, K].
        train: Standardised features [n, H] float32, and class numbers or standardised numbers [n] float32.
        dev: The same of dev rows; None: the last epoch is kept.
        settings: How.
        progress: Called after each epoch with step, steps, loss and seconds_left.

    Returns:
        What was done.

    Raises:
        TunewrightError: A loss that isn't finite.
    """
    import torch

    features, targets = train
    rows = features.shape[0]
    per_epoch = math.ceil(rows / settings.batch_rows)
    epochs = max(1, math.ceil(settings.epochs))
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    total = epochs * per_epoch
    warmup_steps = round(settings.warmup_fraction * total)
    scheduler = rate_schedule(settings.schedule, optimizer, warmup_steps=warmup_steps, steps=total)
    loss_of = _loss(settings, targets)
    generator = torch.Generator().manual_seed(settings.seed)
    started = time.perf_counter()
    losses: list[dict[str, Any]] = []
    measured: list[dict[str, float]] = []
    best_loss, best_epoch, best = math.inf, 0, copy.deepcopy(network.state_dict())
    step = epoch = 0
    for epoch in range(1, epochs + 1):
        total_loss, norm, rate = 0.0, 0.0, 0.0
        network.train()
        order = torch.randperm(rows, generator=generator)
        for start in range(0, rows, settings.batch_rows):
            batch = order[start : start + settings.batch_rows]
            loss = loss_of(network(features[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = float(torch.nn.utils.clip_grad_norm_(network.parameters(), settings.max_grad_norm))
            rate = scheduler.get_last_lr()[0]
            optimizer.step()
            scheduler.step()
            step += 1
            total_loss += float(loss.detach()) * len(batch)
        if not math.isfinite(total_loss):
            raise TunewrightError(
                f"the head's loss is not finite after epoch {epoch}", next_step="lower finetune.learning_rate"
            )
        seconds = time.perf_counter() - started
        losses.append(
            {"step": step, "loss": total_loss / rows, "learning_rate": rate, "gradient_norm": norm, "seconds": seconds}
        )
        if progress:
            left = seconds / epoch * (epochs - epoch)
            progress({"step": step, "steps": total, "loss": total_loss / rows, "seconds_left": left})
        if dev is None:
            best_epoch = epoch
            continue
        network.eval()
        with torch.no_grad():
            dev_loss = float(loss_of(network(dev[0]), dev[1]))
        measured.append({"step": step, "loss": dev_loss})
        if dev_loss < best_loss:
            best_loss, best_epoch, best = dev_loss, epoch, copy.deepcopy(network.state_dict())
        elif settings.patience and epoch - best_epoch >= settings.patience:
            break
    if dev is not None:
        network.load_state_dict(best)
    network.eval()
    return Fit(step, total, epoch, best_epoch, losses, measured, time.perf_counter() - started)


def _loss(settings: FitSettings, targets: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
    import torch

    if not settings.classes:
        return lambda outputs, wanted: torch.nn.functional.mse_loss(outputs[:, 0], wanted)
    weights = None
    if settings.class_weights:
        counts = torch.bincount(targets.long(), minlength=settings.classes)
        weights = len(targets) / (settings.classes * counts)
    return lambda outputs, wanted: torch.nn.functional.cross_entropy(outputs, wanted.long(), weight=weights)
