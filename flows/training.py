"""The training behind the step `finetune`: weights by the trainer, a head by its own, with what the job gives them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.finetuning import launch
from components.finetuning.best import GiveUp
from components.finetuning.methods import METHODS
from flows.job import Job
from flows.observer import Observer, step_detail
from flows.run_settings import dev_settings, dev_task, processes

if TYPE_CHECKING:
    from components.data.rows import Row
    from components.finetuning.finetune import FinetuneResult, FinetuneSettings

__all__ = ["train", "watched_rows"]

# A score of fewer dev answers than this moves by whole steps of chance.
FEW_ANSWERS = 30


def train(
    job: Job,
    dev_rows: Sequence[Row],
    settings: FinetuneSettings,
    folder: Path,
    identity: dict[str, str],
    stop: Callable[[], bool],
    give_up: GiveUp,
    observer: Observer,
) -> FinetuneResult:
    """Train a job's rows.

    Args:
        job: The recipe on this machine.
        dev_rows: Rows behind the dev loss.
        settings: Everything that decides what is trained.
        folder: Checkpoints and weights go here; its name is that of the run.
        identity: Digests of what the run is made of.
        stop: Asked whether to stop.
        give_up: Told each dev measurement of weights in training, says whether to stop; a head trains in seconds.
        observer: Who watches.

    Raises:
        StoppedError: It stopped; what was done is kept.
    """
    if METHODS[settings.method].kind == "head":
        return _train_head(job, dev_rows, settings, folder, identity, stop, observer)
    return _train_weights(job, dev_rows, settings, folder, identity, stop, give_up, observer)


def watched_rows(job: Job, method: str) -> Sequence[Row]:
    """Return the dev rows behind the dev loss: a sample; for a head all, whose features cost one pass."""
    return job.dev_rows if method in METHODS and METHODS[method].kind == "head" else job.dev_loss_rows


def _train_weights(
    job: Job,
    dev_rows: Sequence[Row],
    settings: FinetuneSettings,
    folder: Path,
    identity: dict[str, str],
    stop: Callable[[], bool],
    give_up: GiveUp,
    observer: Observer,
) -> FinetuneResult:
    from components.finetuning.reporting import Reporting

    asked = len(job.dev_metric_rows)
    if 0 < asked < FEW_ANSWERS and dev_settings(job).decides:
        observer.say(
            f"  warning: the scores of {asked} dev answers are coarse, and choose the weights: raise "
            f"finetune.dev_metric_rows to {FEW_ANSWERS} or more, or leave the choice to the dev loss with 0"
        )

    if settings.kernels.compile:
        observer.say("  the first step compiles the blocks, which takes from half a minute to minutes")

    def tell(log: Any) -> None:
        observer.progress("finetune: step", int(log["step"]), int(log["steps"]), step_detail(log))

    return launch.train(
        processes(job),
        threads=job.recipe.memory.threads,
        parallel=job.recipe.finetune.parallel,
        base_folder=job.base.folder,
        rows=job.train_rows,
        dev_rows=dev_rows,
        settings=settings,
        run_folder=folder,
        identity=identity,
        dev=dev_settings(job),
        dev_task=dev_task(job),
        teacher_folder=job.teacher.folder if job.teacher else None,
        reporting=Reporting(job.recipe.finetune.report_to, job.recipe.name, folder.name[:12]),
        checkpoint_steps=job.recipe.finetune.checkpoint_steps,
        keep_checkpoints=job.recipe.finetune.keep_checkpoints,
        progress=tell,
        say=observer.say,
        stop=stop,
        give_up=give_up,
    )


def _train_head(
    job: Job,
    dev_rows: Sequence[Row],
    settings: FinetuneSettings,
    folder: Path,
    identity: dict[str, str],
    stop: Callable[[], bool],
    observer: Observer,
) -> FinetuneResult:
    from components.finetuning.head_training import train_head

    def tell(log: Any) -> None:
        observer.progress("finetune: step", int(log["step"]), int(log["steps"]), f"loss {log['loss']:.3f}")

    return train_head(
        job.base.folder,
        job.train_rows,
        dev_rows,
        settings,
        run_folder=folder,
        identity=identity,
        cache_folder=job.home / "features",
        progress=tell,
        features_progress=lambda done, count: observer.progress("finetune: features", done, count),
        say=observer.say,
        stop=stop,
    )
