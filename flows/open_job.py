"""The door of every command with a recipe: what can be checked is checked, and the job is made."""

from __future__ import annotations

from pathlib import Path

from components.errors import InputError
from components.evaluation.metrics import check_metric, check_option_names
from components.evaluation.suites import check_suites
from components.files import write_problem
from components.finetuning.reporting import check_reporting
from components.models.quantize import check_not_quantized, check_torchao
from components.models.sources import check_base_name
from components.recipe import ResolvedRecipe
from components.runtime import prepare_process
from flows.job import Job
from flows.version_base import check_version, version_name

__all__ = ["open_job"]


def open_job(resolved: ResolvedRecipe, home: Path) -> Job:
    """Find the base and the folders of a recipe, check what can be checked, and set this process up for computing.

    Args:
        resolved: The recipe.
        home: State folder; made when missing.

    Returns:
        The job.

    Raises:
        InputError: Rows that can't be used, an unknown base, metric or suite, a reporter that isn't installed, an
            unsafe base folder, a base without a chat template, or a state folder that can't be written.
    """
    recipe = resolved.recipe
    if recipe.data.tasks:
        raise InputError(
            f"the recipe has {len(recipe.data.tasks)} tasks in data.tasks",
            allowed="one task, in data.train, data.dev and data.test",
            next_step=f"tunewright multitask {resolved.path}, which trains and measures several",
        )
    job = Job(resolved, _repository(resolved.path), home)
    # from cheap to dear: frameworks, metric modules and the base take seconds, and most mistakes need none of them
    if not job.on_text:
        check_option_names(recipe.task.metric, recipe.task.metric_options)
    check_suites(recipe.evaluation.suites)
    check_reporting(recipe.finetune.report_to)
    if job.base_name == recipe.name:
        raise InputError(
            f"the recipe's name {recipe.name!r} is the base's own", next_step="give the tuned model a name of its own"
        )
    for named, role, key in (
        (recipe.base, "base", "`base` in the recipe, --base on the command line"),
        (recipe.finetune.teacher, "teacher", "`finetune.teacher` in the recipe"),
    ):
        if named is not None and version_name(named):
            check_version(home, named, role)
        elif named is not None:
            check_base_name(named, role, key)
    if recipe.finetune.quantization_aware:
        check_torchao()
    _check_writable(home)
    job.check_rows()
    prepare_process(recipe.memory.threads)
    if not job.on_text:
        rows = [row for split in ("dev", "test") if job.split_path(split).exists() for row in job.scored_rows(split)]
        check_metric(recipe.task.metric, recipe.task.metric_options, rows)
    _ = job.binding, job.teacher_fingerprint
    check_not_quantized(job.base.folder, f"the recipe's base {recipe.base}")
    return job


def _check_writable(home: Path) -> None:
    problem = write_problem(home)
    if problem is not None:
        raise InputError(
            f"cannot write the state folder {home} ({problem})",
            allowed="a folder that this user may write",
            next_step="choose another with --home or $TUNEWRIGHT_HOME",
        )


def _repository(recipe: Path) -> Path:
    for folder in recipe.resolve().parents:
        if (folder / "dvc.yaml").exists():
            return folder
    return recipe.resolve().parent
