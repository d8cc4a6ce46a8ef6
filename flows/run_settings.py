"""Everything that decides the weights of a run, from recipe, tactics and plan. Read by the steps that train or plan."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from components.errors import InputError
from components.finetuning.bottleneck import BottleneckSettings
from components.finetuning.features import FeatureSettings
from components.finetuning.full import FullSettings
from components.finetuning.launch import process_count
from components.finetuning.lora import LoraSettings
from components.finetuning.methods import MethodSettings, settings_for
from components.finetuning.prompt_tuning import SoftPromptSettings
from components.finetuning.settings import DevSettings, DevTask, FinetuneSettings
from components.models.kernels import Kernels, Rows, Wishes
from components.models.rope import RopeScaling
from flows.job import Job

__all__ = [
    "check_kernel_wishes",
    "dev_settings",
    "dev_task",
    "kernel_wishes",
    "probe_settings",
    "processes",
    "rope_scaling",
    "rows_of_a_sequence",
    "run_settings",
    "sent_dtype",
    "shared_work",
]


def probe_settings(job: Job) -> FinetuneSettings:
    """Return LoRA's settings for a short try, whatever the recipe's method: its own learning rate, epochs and start.

    It learns without a teacher.
    """
    section = job.recipe.finetune
    settings = replace(run_settings(job, {"method": "lora"}), teacher=None, distillation_weight=0.0, temperature=1.0)
    if section.method in ("auto", "lora"):
        return settings
    tactics = job.tactics_for("lora", whatever=True)
    assert isinstance(settings.attachment, LoraSettings)
    attachment = replace(settings.attachment, start="zero")
    return replace(settings, attachment=attachment, learning_rate=tactics.learning_rate, epochs=tactics.epochs)


def run_settings(job: Job, plan: dict[str, Any]) -> FinetuneSettings:
    """Everything that decides the weights: the recipe's values, what the rules chose for 'auto', and the plan."""
    recipe, section = job.recipe, job.recipe.finetune
    method = plan.get("method", "lora")
    tactics = job.tactics_for(method)
    return FinetuneSettings(
        method=method,
        attachment=_method_settings(job, method),
        dtype=plan.get("dtype", "float32"),
        optimizer=plan.get("optimizer", "adamw"),
        learning_rate=tactics.learning_rate,
        schedule=section.schedule,
        warmup_fraction=section.warmup_fraction,
        weight_decay=section.weight_decay,
        max_grad_norm=section.max_grad_norm,
        epochs=tactics.epochs,
        rows_per_sequence=section.rows_per_sequence,
        micro_batch_size=plan.get("micro_batch_size", 1),
        # of all devices together: a step's sequences don't depend on who takes them
        gradient_accumulation_steps=plan.get("gradient_accumulation_steps", 1) * plan.get("devices", 1),
        gradient_checkpointing=plan.get("gradient_checkpointing", False),
        max_tokens=section.max_tokens,
        prompt_loss_weight=tactics.prompt_loss_weight,
        seed=recipe.seed,
        rope_scaling=rope_scaling(job),
        objective=section.objective,
        teacher=job.teacher_fingerprint,
        # without a teacher they decide nothing
        distillation_weight=section.distillation_weight if job.teacher else 0.0,
        temperature=section.temperature if job.teacher else 1.0,
        kernels=_kernels(plan),
    )


def kernel_wishes(job: Job) -> Wishes:
    """What the recipe asks of the kernels that compute a training step."""
    section = job.recipe.finetune
    return Wishes(section.attention, section.compile, section.liger)


def check_kernel_wishes(job: Job) -> None:
    """Refuse kernels that this machine hasn't, before anything is measured.

    Raises:
        InputError: With what would have to be there.
    """
    wishes = kernel_wishes(job)
    if wishes == Wishes():
        return
    from components.models.base_config import read_config
    from components.models.kernels import choose_kernels, this_machine

    section, dtype = job.recipe.finetune, job.recipe.memory.dtype
    choose_kernels(
        wishes,
        this_machine(),
        rows_of_a_sequence(job),
        method=section.method,
        # the plan measures which, and may come to float32, which it then refuses itself
        dtype="bfloat16" if dtype == "auto" else dtype,
        config=read_config(job.base.folder),
    )


def rows_of_a_sequence(job: Job) -> Rows:
    """What the rows of a packed sequence share."""
    section = job.recipe.finetune
    if section.objective == "text":
        return "documents"
    return "prefix" if section.rows_per_sequence > 1 else "alone"


def _kernels(plan: dict[str, Any]) -> Kernels:
    chosen = plan.get("kernels")
    return Kernels(chosen["attention"], chosen["compile"], chosen["liger"]) if chosen else Kernels()


def dev_settings(job: Job) -> DevSettings:
    """How the dev rows are watched, and whether they have a say in the weights."""
    section = job.recipe.finetune
    return DevSettings(section.dev_passes, section.early_stopping, section.keep_best)


def dev_task(job: Job) -> DevTask | None:
    """The dev rows that are answered and scored in training, if the recipe has some."""
    task = job.recipe.task
    if not job.dev_metric_rows:
        return None
    return DevTask(job.dev_metric_rows, task.metric, job.metric_options, task.max_new_tokens)


def processes(job: Job) -> int:
    """Return how many processes train the recipe on this machine.

    Raises:
        InputError: More than this machine has GPUs, where it has some; or a number of GPUs that can't share a step.
    """
    section = job.recipe.finetune
    # a head is trained in one
    count = process_count(section.processes) if section.method != "features" else 1
    sequences = section.effective_rows // section.rows_per_sequence
    if sequences % count:
        raise InputError(
            f"{count} GPUs can't share a step of {sequences} sequences (finetune.effective_rows "
            f"{section.effective_rows} / finetune.rows_per_sequence {section.rows_per_sequence})",
            allowed=", ".join(str(number) for number in range(1, count + 1) if sequences % number == 0),
            next_step="set finetune.processes to one of these, or change finetune.effective_rows",
        )
    return count


def shared_work(job: Job) -> dict[str, Any]:
    """Return how a recipe's processes share its work, as `make_plan` takes it; nothing where one does all of it."""
    count = processes(job)
    if count == 1:
        return {}
    way = {"ddp": "data-parallel", "fsdp": "fsdp"}[job.recipe.finetune.parallel]
    return {"devices": count, "sharding": way, "together": True}


def sent_dtype(job: Job, settings: FinetuneSettings) -> str | None:
    """Return what whole weights are rounded to before processes send them to each other; None: nothing is."""
    from components.finetuning.shards import gathered_dtype

    parted = job.recipe.finetune.parallel == "fsdp" and processes(job) > 1
    return gathered_dtype(settings) if parted else None


def rope_scaling(job: Job) -> RopeScaling | None:
    """Return how the recipe scales the base's positions."""
    section = job.recipe.finetune.rope_scaling
    return section.scaling if section is not None else None


def _method_settings(job: Job, method: str) -> MethodSettings:
    section, seed = job.recipe.finetune, job.recipe.seed
    return settings_for(
        method,
        LoraSettings(
            rank=job.tactics.rank,
            alpha=section.alpha,
            dropout=section.dropout,
            targets=job.tactics.targets,
            seed=seed,
            rslora=section.rslora,
            dora=section.dora,
            start=section.lora_start,
        ),
        BottleneckSettings(section.bottleneck_width, seed),
        SoftPromptSettings(section.virtual_tokens, seed),
        FullSettings(section.quantization_aware),
        FeatureSettings(
            task=section.head,
            pooling=section.head_pooling,
            layer=section.head_layer,
            width=section.head_width,
            class_weights=section.head_class_weights,
            patience=section.head_patience,
            batch_rows=section.effective_rows,
            seed=seed,
        ),
    )
