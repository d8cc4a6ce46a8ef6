"""`transformers.Trainer` with our loss, order and checkpoints. Imported inside functions only, since it needs torch.

The trainer keeps what it is good at (devices, accelerate, clipping, callbacks, loggers); what a run stands on is ours:
the loss is normalised over the effective batch, the order is the schedule's, a checkpoint is whole or not there, and a
loss or gradient that isn't finite stops the run with the step and the rows named.
"""

from __future__ import annotations

import gc
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, SequentialSampler
from transformers import Trainer
from transformers.trainer_callback import ExportableState, TrainerState
from transformers.trainer_utils import SchedulerType

from components.data.packing import Layout, PackedSequence
from components.errors import TunewrightError
from components.finetuning import checkpoint, guards, shards
from components.finetuning.best import ANSWERING_SECONDS, DEV_LOSS, DEV_SCORE, BestWeights
from components.finetuning.checkpoint import Checkpoint, load_tensors
from components.finetuning.distill import Teacher
from components.finetuning.learning_rate import rate_schedule
from components.finetuning.loss import forward_loss
from components.finetuning.out_of_memory import EffectiveBatch, Split, told_clearly
from components.finetuning.processes import (
    Processes,
    share_of,
    step_weights,
    with_averaged_gradients,
    work_as_forward,
)
from components.finetuning.progress import ProgressWatch
from components.finetuning.schedule import Schedule
from components.finetuning.training_state import (
    fields_of,
    pack_optimizer,
    random_document,
    random_tensors,
    restore_random,
    trainable_state,
    unpack_optimizer,
)
from components.runtime import release_memory

# A loss scaled by no more than this, and its gradient overflows all the same: nothing is left to try.
SMALLEST_SCALE = 1.0

__all__ = ["DivergedError", "ScheduledTrainer"]


class DivergedError(TunewrightError):
    """The loss or the gradient is not finite."""


class MicroBatches(Dataset[list[PackedSequence]]):
    """A process's micro-batches, one after the other."""

    def __init__(self, steps: Sequence[Sequence[list[PackedSequence]]]) -> None:
        self._micro_batches = [micro_batch for step in steps for micro_batch in step]

    def __len__(self) -> int:
        return len(self._micro_batches)

    def __getitem__(self, index: int) -> list[PackedSequence]:
        return self._micro_batches[index]


class ScheduledTrainer(Trainer):
    """Train by a schedule, resume from a whole checkpoint.

    Args:
        schedule: The run's order.
        identity: Digests that a checkpoint must share to be resumed.
        keep_checkpoints: Complete checkpoints that stay.
        split: Micro-batch and checkpointing as planned.
        pad_id: Token id for padding.
        layout: How batches say which token sees which.
        processes: This process among those that train together.
        watch: Keeps time and memory of each step.
        best: Which dev measurement's checkpoint stays.
        teacher: Who is learned from besides the labels; None, nobody.
        dev_loss: Measures the dev rows; None where there are none.
        dev_score: Has them answered and scores the answers; None where that isn't asked for.
        dtype: What the step computes in; with float16 the loss is scaled, so that small gradients don't vanish
            (Micikevicius et al. 2018, arXiv:1710.03740).
        autocast: Whether that is chosen product by product; weights that are gathered in the dtype need no choice.
        say: Called with a line for the person.
        arguments: What `transformers.Trainer` takes.
    """

    lr_scheduler: Any
    # what compute_loss returns is divided by the effective batch's sum of weights already
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        schedule: Schedule,
        identity: dict[str, str],
        keep_checkpoints: int,
        split: Split,
        pad_id: int,
        layout: Layout,
        processes: Processes,
        watch: ProgressWatch,
        best: BestWeights,
        teacher: Teacher | None,
        dev_loss: Callable[[], float] | None,
        dev_score: Callable[[], float] | None,
        dtype: torch.dtype,
        autocast: bool,
        say: Callable[[str], None],
        **arguments: Any,
    ) -> None:
        self.schedule = schedule
        self.identity = identity
        self.keep_checkpoints = keep_checkpoints
        self.processes = processes
        self.watch = watch
        self.best = best
        self.loss = partial(forward_loss, teacher=teacher)
        self.dev_loss, self.dev_score = dev_loss, dev_score
        self.control: Any
        self.step_weights = step_weights(schedule)
        own_steps = share_of(schedule, processes, split.micro_batch_size)
        self.effective_batch = EffectiveBatch(own_steps, split, pad_id, layout, self._checkpoint_activations, say)
        self.resumed: Checkpoint | None = None
        self.gradients_checked = False
        self.dtype = dtype
        self.autocast = autocast
        super().__init__(train_dataset=MicroBatches(own_steps), **arguments)
        if dtype is torch.float16:
            # accelerate has a scaler for accelerators only; the optimizer that it prepares takes this one
            self.accelerator.scaler = torch.amp.GradScaler(self.args.device.type)

    def get_train_dataloader(self) -> Any:
        """Read this process's own micro-batches; accelerate would deal them out once more."""
        if self.processes.count == 1:
            return super().get_train_dataloader()
        return torch.utils.data.DataLoader(self.train_dataset, batch_size=1, collate_fn=self.data_collator)

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if self.lr_scheduler is None:
            self.lr_scheduler = rate_schedule(
                SchedulerType(self.args.lr_scheduler_type).value,
                optimizer or self.optimizer,
                warmup_steps=self.args.get_warmup_steps(num_training_steps),
                steps=num_training_steps,
            )
            self._created_lr_scheduler = True
        return self.lr_scheduler

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        # accelerate would copy more than training takes, and refuses what is parted already
        if self.processes.count == 1 or model is not self.model:
            return super()._wrap_model(model, training, dataloader)
        return model if self.processes.sharded else with_averaged_gradients(model)

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        # the schedule has the order; it must not be shuffled again
        return SequentialSampler(train_dataset if train_dataset is not None else self.train_dataset)

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Tensor]:
        """Take an effective batch, and the sum of its loss weights in the place of its number of items."""
        batches = [batch for _, batch in zip(range(num_batches), epoch_iterator, strict=False)]
        total = self.step_weights[self.state.global_step]
        self.effective_batch.begin()
        return batches, torch.tensor(total, device=device)

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Forward and backward pass of a micro-batch, in smaller parts where memory ran out."""
        whole = super().training_step
        if self.processes.count > 1:
            # the others wait for this process's gradients: a part that is begun again would leave them waiting
            with told_clearly(f"in step {self.state.global_step + 1}, with {self.processes.count} processes"):
                return whole(model, inputs, num_items_in_batch)
        return self.effective_batch.run(
            self.state.global_step, inputs, lambda part: whole(model, part, num_items_in_batch), model.zero_grad
        )

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Keep time and memory with a step's loss: in the history, which goes into every checkpoint, and in reports."""
        if "loss" in logs:
            logs |= self.watch.step(self.state.global_step, logs)
        super().log(logs, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Measure the dev rows; the first process's figure is what all of them decide by."""
        assert self.dev_loss is not None
        metrics = {DEV_LOSS: self.processes.first_value(self.measured(self.dev_loss))}
        if self.dev_score is not None:
            started = time.monotonic()
            metrics[DEV_SCORE] = self.processes.first_value(self.measured(self.dev_score))
            metrics[ANSWERING_SECONDS] = time.monotonic() - started
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def measured(self, work: Callable[[], Any]) -> Any:
        """Do some work without gradients that uses the model's parts, which may lie in several processes."""
        if not self.processes.sharded:
            return work()
        with work_as_forward(self.model, self.processes):
            return shards.with_outer_weights(self.model, work)

    def release_training_memory(self) -> None:
        """Let go of gradients, optimizer states and teacher; nothing can be trained any more."""
        self.loss = partial(forward_loss, teacher=None)
        self.model.zero_grad(set_to_none=True)
        nothing: Any = None
        for holder in (self, self.callback_handler):
            holder.optimizer = holder.lr_scheduler = nothing
        # DistributedDataParallel keeps the gradients' memory
        self.model_wrapped = self.model
        self.accelerator.free_memory()
        gc.collect()

    def release_model(self) -> None:
        """Let go of the model too; what was trained was gathered before."""
        nothing: Any = None
        self.dev_loss = self.dev_score = None
        self.model = self.model_wrapped = self.callback_handler.model = nothing
        release_memory()

    def _checkpoint_activations(self) -> None:
        self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | None = None,
    ) -> Any:
        """Weighted loss of a micro-batch, as its share of the effective batch's."""
        normaliser = float(inputs["weights"].sum() if num_items_in_batch is None else num_items_in_batch)
        # accelerate puts autocast round the model's forward, which the loss goes past
        with torch.autocast(self.args.device.type, dtype=self.dtype, enabled=self.autocast):
            if self.processes.count == 1:
                loss = self.loss(model, inputs, normaliser)
            else:
                # gradients are averaged over the processes, and their sum is wanted
                loss = model(self.loss, inputs, normaliser) * self.processes.count
        if not math.isfinite(float(loss.detach())):
            raise self._diverged("loss")
        return loss

    def _clip_grad_norm(self, model: Any) -> Any:
        scaler = self.accelerator.scaler
        if scaler is not None:
            scaler.unscale_(self.optimizer.optimizer)
        # over all parts, where gradients are parted
        return shards.whole(super()._clip_grad_norm(model))

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        if not self.gradients_checked:
            guards.check_gradients(model)
            self.gradients_checked = True
        norm = shards.whole(super()._get_grad_norm(model, grad_norm))
        if not math.isfinite(float(norm)) and not self._overflowed():
            raise self._diverged("gradient norm")
        return norm

    def _overflowed(self) -> bool:
        """Tell whether a smaller loss scale may mend a gradient that isn't finite: the scaler then skips the step."""
        scaler = self.accelerator.scaler
        return scaler is not None and scaler.get_scale() > SMALLEST_SCALE

    def _diverged(self, what: str) -> DivergedError:
        step = self.state.global_step
        lines = sorted(set(self.schedule.lines[min(step, len(self.schedule.steps) - 1)]))
        named = ", ".join(map(str, lines))
        return DivergedError(
            f"the {what} of step {step + 1} is not finite; its training rows are on the lines {named}",
            next_step="lower finetune.learning_rate, or look at these rows: "
            f"`tunewright data show FILE --line {lines[0]}`",
        )

    # --- checkpoints: ours, in the places where the trainer writes and reads its own

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        states, optimizer_document = pack_optimizer(self.optimizer.state_dict())
        tensors = {"weights": trainable_state(self.model), "optimizer": states}
        if self.processes.first:
            self._write_checkpoint(tensors, optimizer_document)
        else:
            shards.take_part(tensors)
        self.processes.wait()

    def _write_checkpoint(self, tensors: dict[str, dict[str, Tensor]], optimizer_document: dict[str, Any]) -> None:
        self.state.stateful_callbacks.update(
            {
                type(holder).__name__: holder.state()
                for holder in [*self.callback_handler.callbacks, self.control]
                if isinstance(holder, ExportableState)
            }
        )
        scheduler = {k: v for k, v in self.lr_scheduler.state_dict().items() if k != "lr_lambdas"}
        checkpoint.save(
            Path(self.args.output_dir),
            self.state.global_step,
            tensors={**tensors, "random": random_tensors()},
            documents={
                "optimizer": optimizer_document,
                "scheduler": scheduler,
                "random": random_document(),
                "trainer_state": fields_of(self.state),
                "splits": self.effective_batch.splits,
                "scaler": self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else None,
            },
            identity=self.identity,
            keep=self.keep_checkpoints,
            best=self.best.step(self.state.log_history),
            whole=shards.whole,
        )

    def resume(self, found: Checkpoint | None, is_over: Callable[[list[dict[str, Any]]], object]) -> None:
        """Train from a checkpoint, or from the start.

        Args:
            found: The checkpoint.
            is_over: Told the history, says whether the run had come to its end before its last step.
        """
        self.resumed = found
        if found is not None:
            self.effective_batch.restore(json.loads((found.folder / "splits.json").read_text()))
            state = TrainerState.load_from_json(str(found.folder / "trainer_state.json"))
            if is_over(state.log_history):
                self.state = state
                self.watch.begin(state.global_step, state.log_history)
                self._load_from_checkpoint(str(found.folder))
                return
        if not self.processes.first:
            self._draw_apart(0)
        with work_as_forward(self.model, self.processes):
            self.train(resume_from_checkpoint=str(found.folder) if found else None)

    def _draw_apart(self, step: int) -> None:
        """Let this process draw other masks than the first one: from a seed of the step and its own number."""
        torch.manual_seed(self.args.seed + 1_000_003 * self.processes.rank + step)

    def load_weights(self, found: Checkpoint) -> None:
        """Put a checkpoint's weights into the model, in the place of those that it has."""
        parameters = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in load_tensors(found, "weights").items():
                shards.copy_part(parameters[name], value)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        assert self.resumed is not None
        self.load_weights(self.resumed)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.resumed is None:
            return
        folder = self.resumed.folder
        document = json.loads((folder / "optimizer.json").read_text())
        state = unpack_optimizer(load_tensors(self.resumed, "optimizer"), document)
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        for index, entry in state["state"].items():
            state["state"][index] = {key: shards.part_of(value, parameters[index]) for key, value in entry.items()}
        self.optimizer.load_state_dict(state)
        self.lr_scheduler.load_state_dict(
            {**self.lr_scheduler.state_dict(), **json.loads((folder / "scheduler.json").read_text())}
        )

    def _load_scaler(self, checkpoint: str | None) -> None:
        scaler = self.accelerator.scaler
        if checkpoint is not None and self.resumed is not None and scaler is not None:
            scaler.load_state_dict(json.loads((self.resumed.folder / "scaler.json").read_text()))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is None or self.resumed is None:
            return
        if not self.processes.first:
            # what is kept is the first process's state
            self._draw_apart(self.resumed.step)
            return
        document = json.loads((self.resumed.folder / "random.json").read_text())
        restore_random(document, load_tensors(self.resumed, "random"))
