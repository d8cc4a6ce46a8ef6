"""Finetune: from rows and a plan to saved, verified weights. Called by the flow; read from top to bottom."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.chat import encode
from components.errors import ConflictError, InputError, TunewrightError
from components.finetuning import checkpoint, guards, saving
from components.finetuning.lora import LoraSettings
from components.finetuning.methods import MethodSettings, find_method
from components.finetuning.out_of_memory import told_clearly
from components.finetuning.processes import Processes, current_processes
from components.finetuning.progress import Progress, ProgressWatch
from components.finetuning.schedule import Schedule, build_schedule
from components.memory.workload import Workload

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["FinetuneResult", "FinetuneSettings", "StoppedError", "finetune", "run_workload"]


class StoppedError(TunewrightError):
    """Training was asked to stop, and has saved where it is.

    Attributes:
        step: Optimizer steps done.
        steps: Optimizer steps of the whole run.
    """

    # a chain that is cut off here is not done; that of a process which SIGTERM ends
    exit_status = 128 + signal.SIGTERM

    def __init__(self, step: int, steps: int) -> None:
        super().__init__(
            f"stopped after step {step} of {steps}; a checkpoint of it is saved",
            next_step="run the same command again; it goes on where it stopped",
        )
        self.step, self.steps = step, steps


# How often the dev loss is measured in a run.
DEV_PASSES = 4


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


@dataclass(frozen=True)
class FinetuneResult:
    """What a run left behind.

    Attributes:
        weights: Folder of what was trained: an adapter or a head with the digests of its base, or a whole model.
        kind: "adapter", "full" or "head".
        steps: Optimizer steps of the whole run.
        rows: Rows seen, repeats counted.
        tokens: Tokens that went through the model.
        seconds: Time spent training, over all its parts when the run was resumed.
        tokens_per_second: Tokens over seconds.
        peak_bytes: Largest resident memory of this process while training.
        losses: For each step its loss, learning rate, gradient norm, tokens/s and seconds so far; the norm is None
            where a step in float16 overflowed and was skipped.
        skipped_steps: How many those are.
        dev: For some steps the dev loss.
        resumed_from: Step of the checkpoint that the run went on from, or None.
        trainable_parameters: Parameters that were trained.
        total_parameters: Parameters of base and adapter.
        largest_logit_change: What training changes on a probe, at most.
        deltas: What LoRA learned matrix by matrix, and a hint for the next rank; None for other methods.
        splits: For each time that memory ran out the step, and the micro-batch, accumulation and checkpointing from
            there on; empty when the plan held.
        head: What a head is, its epochs and seconds, and how many rows' features were computed; None for other kinds.
    """

    weights: Path
    kind: str
    steps: int
    rows: int
    tokens: int
    seconds: float
    tokens_per_second: float
    peak_bytes: int
    losses: list[dict[str, Any]]
    skipped_steps: int
    dev: list[dict[str, float]]
    resumed_from: int | None
    trainable_parameters: int
    total_parameters: int
    largest_logit_change: float
    deltas: dict[str, Any] | None
    splits: list[dict[str, Any]]
    head: dict[str, Any] | None = None


def run_workload(tokenizer: Any, rows: Sequence[Row], dev_rows: Sequence[Row], settings: FinetuneSettings) -> Workload:
    """Return the sequences that a run will put through the model, for the memory plan and its time.

    Args:
        tokenizer: The base's.
        rows: Training rows.
        dev_rows: Rows behind the dev loss.
        settings: The run's; what the plan will choose (micro-batch, accumulation, checkpointing, dtype) isn't read.

    Returns:
        Length and labelled tokens of each sequence, in the order of training.
    """
    single = replace(settings, micro_batch_size=1, gradient_accumulation_steps=1)
    schedule = _schedule(tokenizer, rows, single)[0]
    sequences = [sequence for step in schedule.steps for batch in step for sequence in batch]
    dev = _dev_schedule(tokenizer, dev_rows, settings) if dev_rows else None
    return Workload(
        lengths=tuple(len(sequence) for sequence in sequences),
        labelled=tuple(sum(weight > 0 for weight in sequence.weights) for sequence in sequences),
        dev_lengths=tuple(len(s) for step in dev.steps for batch in step for s in batch) if dev else (),
        dev_passes=DEV_PASSES if dev else 0,
    )


def finetune(
    base_folder: Path,
    rows: Sequence[Row],
    dev_rows: Sequence[Row],
    settings: FinetuneSettings,
    *,
    run_folder: Path,
    identity: Mapping[str, str],
    checkpoint_steps: int = 20,
    keep_checkpoints: int = 2,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> FinetuneResult:
    """Train, or go on where a killed run stopped.

    Args:
        base_folder: A checked base.
        rows: Training rows.
        dev_rows: Rows behind the dev loss; none, no dev loss.
        settings: Everything that decides the weights.
        run_folder: Checkpoints and weights go here; one process at a time.
        identity: Digests of what the run is made of; a checkpoint of another run is refused.
        checkpoint_steps: Steps between checkpoints.
        keep_checkpoints: Complete ones that stay.
        progress: Called after each step with step, steps, loss, tokens_per_second, seconds_left.
        say: Called with a line for the person.
        stop: Asked after each step whether to save a checkpoint and stop.

    Returns:
        The folder of what was trained and what the run measured.

    Raises:
        InputError: Rows or settings that can't teach anything.
        ConflictError: The run folder is in use by another process, or holds checkpoints of another run.
        DivergedError: A loss or gradient that isn't finite.
        VerdictError: Not even one sequence at a time fits the memory at hand.
        StoppedError: `stop` said so before the last step.
    """
    from filelock import FileLock, Timeout

    method = find_method(settings.method, settings.attachment)
    if method.kind == "head":
        raise InputError(
            f"{method.name} in the trainer of weights",
            allowed="a method that trains weights of the base or beside them",
            next_step="call components.finetuning.head_training.train_head",
        )
    if settings.gradient_checkpointing and not method.recomputes:
        raise InputError(
            f"{method.name} with gradient checkpointing", allowed=f"{method.name} without it", next_step="plan again"
        )
    processes = current_processes()
    run_folder.mkdir(parents=True, exist_ok=True)
    try:
        # of processes that train together the first one holds the folder for all
        name = "run.lock" if processes.first else f"run.{processes.rank}.lock"
        lock = FileLock(run_folder / name, timeout=0).acquire()
    except Timeout as error:
        raise ConflictError(
            f"another process is training in {run_folder}", next_step="wait for it, or stop it"
        ) from error
    with lock:
        return _finetune(
            base_folder, rows, dev_rows, settings, run_folder, dict(identity), checkpoint_steps, keep_checkpoints,
            progress if processes.first else None, say if processes.first else lambda _: None, stop, processes,
        )  # fmt: skip


def _finetune(
    base_folder: Path,
    rows: Sequence[Row],
    dev_rows: Sequence[Row],
    settings: FinetuneSettings,
    run_folder: Path,
    identity: dict[str, str],
    checkpoint_steps: int,
    keep_checkpoints: int,
    progress: Progress | None,
    say: Callable[[str], None],
    stop: Callable[[], bool],
    processes: Processes,
) -> FinetuneResult:
    from components.finetuning.memory_watch import MemoryWatch
    from components.finetuning.trainer import ProgressCallback, build_trainer
    from components.models.load import load_model, load_tokenizer

    tokenizer = load_tokenizer(base_folder)
    schedule, encoded = _schedule(tokenizer, rows, settings)
    if processes.first:
        checkpoint.sweep(run_folder)
    identity = {**identity, "settings": _what_decides(settings)}
    found = checkpoint.latest(run_folder, identity, say)
    if found is not None:
        say(f"resuming from the checkpoint of step {found.step} of {len(schedule.steps)}")

    method = find_method(settings.method, settings.attachment)
    # weights that are trained are kept in float32, whatever they are computed in
    dtype = "float32" if method.kind == "full" else settings.dtype
    with MemoryWatch() as memory:
        with told_clearly("while the base was loaded"):
            base = load_model(base_folder, dtype=dtype, quantization=method.quantization)
        model = method.attach(base, settings.attachment)
        untrained = saving.keep_untrained(model, settings.attachment, run_folder)
        longest = max(place for step in schedule.steps for b in step for s in b for place in s.position_ids) + 1
        guards.check_before(model, tokenizer, encoded, longest)
        trainable, total = guards.trainable_counts(model)
        probe = schedule.steps[0][0][0]
        # before a checkpoint is loaded: what training changes is told from here
        start = saving.probed(model, probe)
        watch = ProgressWatch(schedule, progress)
        trainer = build_trainer(
            model,
            schedule,
            recomputes=method.recomputes,
            run_folder=run_folder,
            identity=identity,
            optimizer=settings.optimizer,
            learning_rate=settings.learning_rate,
            scheduler={"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
            warmup_fraction=settings.warmup_fraction,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            gradient_checkpointing=settings.gradient_checkpointing,
            dtype=settings.dtype,
            checkpoint_steps=checkpoint_steps,
            keep_checkpoints=keep_checkpoints,
            seed=settings.seed,
            pad_id=tokenizer.pad_token_id,
            micro_batch_size=settings.micro_batch_size,
            processes=processes,
            say=say,
            callbacks=[
                ProgressCallback(
                    watch,
                    _dev_steps(len(schedule.steps)),
                    _dev_loss(model, tokenizer, dev_rows, settings),
                    # a signal may reach one process alone, and the others would wait for its gradients
                    lambda: processes.any(stop()),
                    say,
                )
            ],
        )
        with told_clearly("outside the passes, such as in the optimizer's step"):
            trainer.resume(found)
        if trainer.state.global_step < len(schedule.steps):
            raise StoppedError(trainer.state.global_step, len(schedule.steps))
        seconds = watch.seconds
        history = trainer.state.log_history
        losses = watch.losses(history)
        skipped = sum(entry["gradient_norm"] is None for entry in losses)
        if skipped:
            say(f"  {skipped} of {len(losses)} steps overflowed in float16 and were skipped")
        # optimizer states and gradients are not needed again; the check below takes their place
        trainer.release_training_memory()
        weights = run_folder / method.kind
        if processes.first:
            saving.save(model, method, base_folder, weights, untrained)
        processes.wait()
        change = saving.check_saved(
            model, method, base_folder, weights, probe, start, dtype, fresh=untrained is not None
        )
    return FinetuneResult(
        weights=weights,
        kind=method.kind,
        steps=len(schedule.steps),
        rows=schedule.rows,
        tokens=schedule.tokens,
        seconds=seconds,
        tokens_per_second=schedule.tokens / seconds,
        peak_bytes=memory.peak_bytes,
        losses=losses,
        skipped_steps=skipped,
        dev=[{"step": entry["step"], "loss": entry["dev_loss"]} for entry in history if "dev_loss" in entry],
        resumed_from=found.step if found else None,
        trainable_parameters=trainable,
        total_parameters=total,
        largest_logit_change=change,
        deltas=_deltas(weights, settings.attachment),
        splits=trainer.effective_batch.splits,
    )


def _what_decides(settings: FinetuneSettings) -> str:
    """Return the settings that a resumed run must share: all, but how the same effective batch is cut."""
    values = asdict(settings)
    cut = values.pop("micro_batch_size") * values.pop("gradient_accumulation_steps")
    return json.dumps({**values, "sequences_per_step": cut}, sort_keys=True)


def _deltas(weights: Path, attachment: MethodSettings) -> dict[str, Any] | None:
    """Measure what LoRA learned; a start that isn't zero is in its factors as well, and nothing was learned of that."""
    from components.finetuning.delta_rank import measure_deltas

    if not isinstance(attachment, LoraSettings) or attachment.start != "zero":
        return None
    found = measure_deltas(weights)
    return found.to_dict() if found is not None else None


def _schedule(tokenizer: Any, rows: Sequence[Row], settings: FinetuneSettings) -> tuple[Schedule, list[Any]]:
    encoded = [encode(tokenizer, row.messages, prompt_loss_weight=settings.prompt_loss_weight) for row in rows]
    schedule = build_schedule(
        encoded,
        [_shared_text(row) for row in rows],
        [row.line for row in rows],
        epochs=settings.epochs,
        rows_per_sequence=settings.rows_per_sequence,
        micro_batch_size=settings.micro_batch_size,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
    )
    return schedule, encoded


def _shared_text(row: Row) -> str:
    """Rows with one system message share a prefix; a row without one stands alone with those like it."""
    first = row.messages[0]
    return first.content if first.role == "system" else ""


def _dev_steps(steps: int, times: int = DEV_PASSES) -> set[int]:
    return {round(steps * part / times) for part in range(1, times + 1)} - {0}


def _dev_schedule(tokenizer: Any, rows: Sequence[Row], settings: FinetuneSettings) -> Schedule:
    """Pack the dev rows one sequence at a time; only the answers' tokens carry weight."""
    return build_schedule(
        [encode(tokenizer, row.messages, prompt_loss_weight=0.0) for row in rows],
        [_shared_text(row) for row in rows],
        [row.line for row in rows],
        split="dev",
        epochs=1,
        rows_per_sequence=settings.rows_per_sequence,
        micro_batch_size=1,
        gradient_accumulation_steps=1,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
    )


def _dev_loss(
    model: Any, tokenizer: Any, rows: Sequence[Row], settings: FinetuneSettings
) -> Callable[[], float] | None:
    """Return a function that measures the loss of the answers' tokens on the dev rows."""
    if not rows:
        return None
    import torch

    from components.data.packing import collate
    from components.finetuning.loss import forward_loss

    packed = _dev_schedule(tokenizer, rows, settings)
    batches = [collate(batch, tokenizer.pad_token_id) for step in packed.steps for batch in step]
    total = sum(float(batch["weights"].sum()) for batch in batches)
    device = next(model.parameters()).device

    def measure() -> float:
        model.eval()
        with torch.no_grad():
            on_device = ({name: value.to(device) for name, value in batch.items()} for batch in batches)
            loss = sum(float(forward_loss(model, batch, total)) for batch in on_device)
        model.train()
        return loss

    return measure
