"""The trainer put together from plain values: transformers' arguments, ours, and its callbacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.packing import Layout
from components.finetuning.best import BestWeights
from components.finetuning.distill import Teacher
from components.finetuning.out_of_memory import Split
from components.finetuning.processes import Processes, share_of
from components.finetuning.progress import ProgressWatch
from components.finetuning.schedule import Schedule
from components.finetuning.shards import shard

if TYPE_CHECKING:
    from transformers import TrainerCallback

    from components.finetuning.trainer import ScheduledTrainer

__all__ = ["build_trainer"]

# The plan's names of optimizers, and transformers'. 8-bit and paged ones are bitsandbytes', on CUDA only.
OPTIMIZERS = {
    "adamw": "adamw_torch",
    "adamw_8bit": "adamw_bnb_8bit",
    "paged_adamw": "paged_adamw_32bit",
    "paged_adamw_8bit": "paged_adamw_8bit",
}


def build_trainer(
    model: Any,
    schedule: Schedule,
    *,
    run_folder: Path,
    identity: dict[str, str],
    optimizer: str,
    learning_rate: float,
    scheduler: str,
    warmup_fraction: float,
    weight_decay: float,
    max_grad_norm: float,
    gradient_checkpointing: bool,
    recomputes: bool,
    dtype: str,
    gathered_dtype: str | None,
    checkpoint_steps: int,
    keep_checkpoints: int,
    seed: int,
    pad_id: int,
    micro_batch_size: int,
    layout: Layout,
    processes: Processes,
    report_to: Sequence[str],
    watch: ProgressWatch,
    best: BestWeights,
    teacher: Teacher | None,
    dev_loss: Callable[[], float] | None,
    dev_score: Callable[[], float] | None,
    callbacks: list[TrainerCallback],
    say: Callable[[str], None],
) -> ScheduledTrainer:
    """Put the trainer together; every argument is a value of the recipe or of the plan.

    Where the processes are to have parts of the model, it is parted here.
    """
    import torch
    from transformers import TrainingArguments
    from transformers.trainer_callback import PrinterCallback

    from components.data.packing import collate
    from components.finetuning.trainer import ScheduledTrainer

    steps = len(schedule.steps)
    arguments = TrainingArguments(
        output_dir=str(run_folder),
        max_steps=steps,
        num_train_epochs=1,
        # a dataset item is a whole micro-batch
        per_device_train_batch_size=1,
        gradient_accumulation_steps=max(len(step) for step in share_of(schedule, processes, micro_batch_size)),
        activation_checkpointing=gradient_checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False} if gradient_checkpointing else None,
        learning_rate=learning_rate,
        lr_scheduler_type=scheduler,
        warmup_steps=max(1, round(steps * warmup_fraction)) if warmup_fraction else 0,
        weight_decay=weight_decay,
        max_grad_norm=max_grad_norm,
        optim=OPTIMIZERS[optimizer],
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_steps=checkpoint_steps,
        save_strategy="steps",
        seed=seed,
        report_to=list(report_to),
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        use_cpu=not torch.cuda.is_available(),
    )
    if processes.sharded:
        # the arguments have joined the processes by now
        model = shard(model, gathered_dtype, arguments.device)
    # Several devices in one process would split a micro-batch between them behind our back: the schedule is for one.
    arguments._n_gpu = min(1, arguments.n_gpu)
    trainer = ScheduledTrainer(
        schedule=schedule,
        identity=identity,
        keep_checkpoints=keep_checkpoints,
        split=Split(micro_batch_size, gradient_checkpointing, recomputes),
        pad_id=pad_id,
        layout=layout,
        processes=processes,
        watch=watch,
        best=best,
        teacher=teacher,
        dev_loss=dev_loss,
        dev_score=dev_score,
        dtype=getattr(torch, dtype),
        autocast=dtype != "float32" and not (processes.sharded and gathered_dtype is not None),
        say=say,
        model=model,
        args=arguments,
        data_collator=lambda items: collate(items[0], pad_id, layout),
        callbacks=callbacks,
    )
    # the trainer's own printer writes dicts to standard output, which belongs to `--json`
    trainer.remove_callback(PrinterCallback)
    return trainer
