"""Finetune: from rows and a plan to saved, verified weights. Called by the flow; read from top to bottom."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import ConflictError, InputError
from components.finetuning import checkpoint, guards, saving, shards
from components.finetuning.best import ANSWERING_SECONDS, BestWeights, GiveUp, early_stop, measurements
from components.finetuning.dev import dev_loss, dev_score, dev_steps
from components.finetuning.distill import Teacher, check_teacher, load_teacher
from components.finetuning.lora import LoraSettings
from components.finetuning.methods import MethodSettings, find_method
from components.finetuning.out_of_memory import told_clearly
from components.finetuning.processes import Processes, current_processes
from components.finetuning.progress import Progress, ProgressWatch, step_losses
from components.finetuning.reporting import Reporting, continued_curves, reported
from components.finetuning.result import FinetuneResult, StoppedError
from components.finetuning.run_schedule import training_schedule
from components.finetuning.settings import DevSettings, DevTask, FinetuneSettings, what_decides, what_dev_decides
from components.models.fingerprint import fingerprint
from components.models.kernels import check_kernels, this_machine
from components.models.quantize import check_not_quantized

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["DevSettings", "DevTask", "FinetuneResult", "FinetuneSettings", "StoppedError", "finetune"]


def finetune(
    base_folder: Path,
    rows: Sequence[Row],
    dev_rows: Sequence[Row],
    settings: FinetuneSettings,
    *,
    run_folder: Path,
    identity: Mapping[str, str],
    dev: DevSettings = DevSettings(),  # noqa: B008 - frozen
    dev_task: DevTask | None = None,
    teacher_folder: Path | None = None,
    reporting: Reporting = Reporting(),  # noqa: B008 - frozen
    parallel: str = "ddp",
    checkpoint_steps: int = 20,
    keep_checkpoints: int = 2,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    give_up: GiveUp = lambda _: False,
) -> FinetuneResult:
    """Train, or go on where a killed run stopped.

    Args:
        base_folder: A checked base.
        rows: Training rows.
        dev_rows: Rows behind the dev loss; none, no dev loss.
        settings: Everything that decides the weights, but for what the dev rows decide.
        run_folder: Checkpoints and weights go here; one process at a time.
        identity: What else the run is made of than base, tokenizer, template, settings and what the dev rows decide,
            which are always held: a checkpoint of other ones is refused. Of the training rows only what stands here is
            known, so that a digest of them belongs here.
        dev: How the dev rows are watched: whether they end the run early, and whose weights are kept.
        dev_task: Dev rows that are answered and scored each time that the dev loss is measured; the score then counts
            before the loss.
        teacher_folder: Whole weights of the teacher that the settings name.
        reporting: Which of TensorBoard, MLflow and W&B are told too.
        parallel: How several processes share the work, where a launcher started some: "ddp" or "fsdp".
        checkpoint_steps: Steps between checkpoints.
        keep_checkpoints: Complete ones that stay, besides that of the best dev measurement.
        progress: Called after each step, as `ProgressWatch` does.
        say: Called with a line for the person.
        stop: Asked after each step whether to save a checkpoint and stop.
        give_up: Told each dev measurement but that of the last step, says whether to save a checkpoint and stop.

    Returns:
        The folder of what was trained and what the run measured.

    Raises:
        InputError: Rows or settings that can't teach anything, or a reporter that can't be told.
        ConflictError: The run folder is in use by another process, or holds checkpoints of another run.
        DivergedError: A loss or gradient that isn't finite.
        VerdictError: Not even one sequence at a time fits the memory at hand.
        StoppedError: `stop` or `give_up` said so before the last step.
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
    if dev_task is not None and not dev_rows:
        raise InputError(
            "dev rows to answer, and none for the dev loss", next_step="give rows for both, or for neither"
        )
    check_kernels(settings.kernels, this_machine())
    check_not_quantized(base_folder, "finetuning")
    named = None if teacher_folder is None else check_teacher(teacher_folder, base_folder)
    if named != settings.teacher:
        raise InputError(
            f"the teacher {str(named)[:12]} beside settings that name {str(settings.teacher)[:12]}",
            allowed="the teacher's folder and its fingerprint in the settings, or neither",
        )
    processes = current_processes(parallel)
    if processes.sharded:
        aware = getattr(settings.attachment, "quantization_aware", None)
        shards.check_shardable(settings.method, settings.optimizer, aware)
    processes.take_device()
    run_folder.mkdir(parents=True, exist_ok=True)
    try:
        # of processes that train together the first one holds the folder for all
        name = "run.lock" if processes.first else f"run.{processes.rank}.lock"
        lock = FileLock(run_folder / name, timeout=0).acquire()
    except Timeout as error:
        raise ConflictError(
            f"another process is training in {run_folder}", next_step="wait for it, or stop it"
        ) from error
    if not processes.first:
        reporting, progress, say = Reporting(), None, lambda _: None
    with lock, reported(reporting, run_folder):
        return _finetune(
            base_folder, rows, dev_rows, settings, run_folder, dict(identity), dev, dev_task, teacher_folder, reporting,
            checkpoint_steps, keep_checkpoints, progress, say, stop, give_up, processes,
        )  # fmt: skip


def _finetune(
    base_folder: Path,
    rows: Sequence[Row],
    dev_rows: Sequence[Row],
    settings: FinetuneSettings,
    run_folder: Path,
    identity: dict[str, str],
    dev: DevSettings,
    dev_task: DevTask | None,
    teacher_folder: Path | None,
    reporting: Reporting,
    checkpoint_steps: int,
    keep_checkpoints: int,
    progress: Progress | None,
    say: Callable[[str], None],
    stop: Callable[[], bool],
    give_up: GiveUp,
    processes: Processes,
) -> FinetuneResult:
    import torch

    from components.finetuning.build_trainer import build_trainer
    from components.finetuning.callbacks import WatchCallback
    from components.finetuning.energy_watch import EnergyWatch
    from components.finetuning.memory_watch import MemoryWatch
    from components.models.block_kernels import batch_layout, kernels_in_use
    from components.models.load import load_model, load_tokenizer

    tokenizer = load_tokenizer(base_folder)
    schedule, encoded = training_schedule(tokenizer, rows, settings)
    if processes.first:
        checkpoint.sweep(run_folder)
    steps = len(schedule.steps)
    # read from the files, whatever the caller says of them
    identity |= {**asdict(fingerprint(base_folder)), "settings": what_decides(settings)}
    from_dev = what_dev_decides(dev, dev_rows, dev_task)
    if from_dev is not None:
        identity |= {"dev": from_dev}
    found = checkpoint.latest(run_folder, identity, say)
    if found is not None:
        say(f"resuming from the checkpoint of step {found.step} of {steps}")

    method = find_method(settings.method, settings.attachment)
    # weights that are trained are kept in float32, whatever they are computed in
    dtype = "float32" if method.kind == "full" else settings.dtype
    energy = EnergyWatch(processes.count if torch.cuda.is_available() else 0)
    with MemoryWatch() as memory, energy:
        with told_clearly("while the base was loaded"):
            base = load_model(
                base_folder,
                dtype=dtype,
                quantization=method.quantization,
                rope_scaling=settings.rope_scaling,
                # a device need not hold all of what it will hold a part of
                device="cpu" if processes.sharded else None,
            )
        probe = schedule.steps[0][0][0]
        plain = saving.probed(base, probe) if saving.takes_weights(settings.attachment) else None
        unsaved_rows = None if method.kind == "full" else base.get_input_embeddings().weight.shape[0]
        model = method.attach(base, settings.attachment)
        untrained = saving.keep_untrained(model, settings.attachment, run_folder, write=processes.first)
        guards.check_before(model, tokenizer, encoded, schedule.positions, unsaved_rows)
        trainable, total = guards.trainable_counts(model)
        # before a checkpoint is loaded: what training changes is told from here
        start = saving.probed(model, probe)
        rounded = 0.0 if plain is None else saving.rounded_by_start(plain, start, dtype)
        watch = ProgressWatch(schedule, progress, memory.so_far)
        best = BestWeights(run_folder, dev, say)
        layout = batch_layout(model, settings.kernels)
        measure = dev_loss(model, tokenizer, dev_rows, settings, layout, processes)

        def taught_by(tokens: int, vocabulary: int) -> Teacher | None:
            if teacher_folder is None:
                return None
            with told_clearly("while the teacher was loaded"):
                return load_teacher(
                    teacher_folder,
                    dtype=settings.dtype,
                    weight=settings.distillation_weight,
                    temperature=settings.temperature,
                    longest_tokens=tokens,
                    vocabulary=vocabulary,
                )

        largest = max(sum(map(len, micro_batch)) for step in schedule.steps for micro_batch in step)
        answer = dev_score(model, tokenizer, dev_task, largest, processes)
        callback = WatchCallback(
            watch,
            dev_steps(steps, dev.passes) if measure is not None else (),
            dev,
            best,
            # a signal may reach one process alone, and the others would wait for its gradients
            lambda: processes.any(stop()),
            lambda measured: processes.any(give_up(measured)),
            say,
        )
        trainer = build_trainer(
            model,
            schedule,
            recomputes=method.recomputes,
            run_folder=run_folder,
            identity=identity,
            optimizer=settings.optimizer,
            learning_rate=settings.learning_rate,
            scheduler=settings.schedule,
            warmup_fraction=settings.warmup_fraction,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            gradient_checkpointing=settings.gradient_checkpointing,
            dtype=settings.dtype,
            gathered_dtype=shards.gathered_dtype(settings),
            checkpoint_steps=checkpoint_steps,
            keep_checkpoints=keep_checkpoints,
            seed=settings.seed,
            pad_id=tokenizer.pad_token_id,
            layout=layout,
            micro_batch_size=settings.micro_batch_size,
            processes=processes,
            say=say,
            report_to=reporting.to,
            watch=watch,
            best=best,
            teacher=taught_by(schedule.positions, max(token for row in encoded for token in row.input_ids) + 1),
            dev_loss=measure,
            dev_score=answer,
            callbacks=[callback],
        )

        def is_over(history: list[dict[str, Any]]) -> str | None:
            return early_stop(measurements(history), dev, steps)

        curves = continued_curves(
            trainer.callback_handler.callbacks, run_folder / "tensorboard", found.step if found else 0
        )
        in_use = kernels_in_use(model, settings.kernels)
        with told_clearly("outside the passes, such as in the optimizer's step"), curves, in_use:
            # the first process is asked for all, as after each measurement
            trainer.resume(
                found,
                lambda history: processes.any(
                    bool(is_over(history)) or any(give_up(one) for one in measurements(history))
                ),
            )
        done, history = trainer.state.global_step, trainer.state.log_history
        ended = is_over(history) or f"all {steps} steps were done"
        if done < steps and not is_over(history):
            raise StoppedError(done, steps, seconds=watch.seconds, peak_bytes=memory.so_far(), asked=callback.asked)
        seconds = watch.seconds
        losses = step_losses(history)
        skipped = sum(entry["gradient_norm"] is None for entry in losses)
        if skipped:
            say(f"  {skipped} of {len(losses)} steps overflowed in float16 and were skipped")
        kept = best.choose(history, done)
        say(f"  the weights of step {kept.step} of {steps} are kept, {kept.why}")
        # optimizer states and gradients are not needed again; a checkpoint's weights and the check take their place
        trainer.release_training_memory()
        if kept.checkpoint is not None:
            trainer.load_weights(kept.checkpoint)
        kind = saving.kind_of(method, settings.attachment)
        weights = run_folder / kind

        def check(trained: Any) -> float:
            return saving.check_saved(
                trained, method, base_folder, weights, probe, start, dtype, fresh=untrained is not None,
                rounded=rounded, rope_scaling=settings.rope_scaling, device="cpu" if processes.sharded else None,
            )  # fmt: skip

        def save(trained: Any) -> None:
            aware = getattr(settings.attachment, "quantization_aware", None)
            saving.save(trained, method, base_folder, weights, untrained, settings.rope_scaling, aware)

        change = 0.0
        if processes.sharded:
            state = shards.whole_state(model, keep=processes.first)
            said = trainer.measured(lambda: saving.probed(model, probe))
            trainer.release_model()
            del model, base, measure, answer
            if processes.first:
                rebuilt = saving.rebuild(base_folder, method, settings, state, probe, said)
                save(rebuilt)
                change = check(rebuilt)
            change = processes.first_value(change)
        else:
            if processes.first:
                save(model)
            processes.wait()
            change = check(model)
    return FinetuneResult(
        weights=weights,
        kind=kind,
        steps=done,
        planned_steps=steps,
        ended=ended,
        kept_step=kept.step,
        kept_reason=kept.why,
        rows=sum(map(len, schedule.lines[:done])),
        tokens=watch.tokens(done),
        seconds=seconds,
        tokens_per_second=watch.tokens(done) / seconds,
        peak_bytes=memory.peak_bytes,
        losses=losses,
        skipped_steps=skipped,
        dev=[
            {"step": one.step, "loss": one.loss} | ({} if one.score is None else {"score": one.score})
            for one in measurements(history)
        ],
        answering_seconds=sum(entry.get(ANSWERING_SECONDS, 0.0) for entry in history),
        resumed_from=found.step if found else None,
        trainable_parameters=trainable,
        total_parameters=total,
        largest_logit_change=change,
        deltas=_deltas(weights, settings.attachment),
        splits=trainer.effective_batch.splits,
        kernels=asdict(settings.kernels),
        energy=energy.to_dict(),
    )


def _deltas(weights: Path, attachment: MethodSettings) -> dict[str, Any] | None:
    """Measure what LoRA learned; a start that isn't zero is in its factors as well, and nothing was learned of that."""
    from components.finetuning.delta_rank import measure_deltas

    if not isinstance(attachment, LoraSettings) or attachment.start != "zero":
        return None
    found = measure_deltas(weights)
    return found.to_dict() if found is not None else None
