"""TensorBoard, MLflow and W&B beside a run: what they need, opened before time is spent and closed however it ends.

What is shown there is logged by transformers' own callbacks (`TrainingArguments.report_to`), which go on with the runs
that are opened here. Called by finetune.py.
"""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import InputError

__all__ = ["REPORTERS", "Reporting", "check_reporting", "continued_curves", "reported"]

# reporter -> the module that it needs
REPORTERS = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
MLFLOW_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
# whatever stands before the last @: a database's password may have any character in it
PASSWORD = re.compile(r"://\S+@")


@dataclass(frozen=True)
class Reporting:
    """Who is told of a run besides the person at the terminal; nothing of it changes the weights.

    Attributes:
        to: Some of `REPORTERS`.
        project: MLflow's experiment and W&B's project, where MLFLOW_EXPERIMENT_NAME and WANDB_PROJECT name no other.
        run: Name of the run in it.
    """

    to: tuple[str, ...] = ()
    project: str = "tunewright"
    run: str = "finetune"


def check_reporting(names: Sequence[str]) -> None:
    """Refuse reporters that can't be told.

    Args:
        names: Some of `REPORTERS`.

    Raises:
        InputError: One that isn't known, or whose package isn't installed.
    """
    for name in names:
        if name not in REPORTERS:
            raise InputError(f"no reporter {name!r}", allowed=", ".join(REPORTERS), next_step="name some of these")
        if importlib.util.find_spec(REPORTERS[name]) is None:
            there = [other for other, module in REPORTERS.items() if importlib.util.find_spec(module) is not None]
            raise InputError(
                f"finetune.report_to has {name}, which is not installed",
                allowed=", ".join(there) or "an empty list: none of them is installed",
                next_step=f"install it with `pip install --constraint constraints.txt --editable '.[{name}]'`, "
                "or take it out of finetune.report_to",
            )


@contextmanager
def reported(reporting: Reporting, run_folder: Path) -> Iterator[None]:
    """Open a run with MLflow and W&B while the block runs, so that a server that isn't there is told at once.

    Args:
        reporting: Who is told.
        run_folder: W&B's files go here, MLflow's beside it where no server is named.

    Raises:
        InputError: A reporter that isn't installed, can't be reached, or wants a login.
    """
    check_reporting(reporting.to)
    with ExitStack() as open_runs:
        if "mlflow" in reporting.to:
            open_runs.enter_context(_mlflow_run(reporting, run_folder.parent))
        if "wandb" in reporting.to:
            open_runs.enter_context(_wandb_run(reporting, run_folder))
        yield


@contextmanager
def continued_curves(callbacks: Sequence[Any], folder: Path, step: int) -> Iterator[None]:
    """Have TensorBoard's callback write below the run's folder, in the place of what a killed part wrote behind a step.

    Args:
        callbacks: The trainer's.
        folder: Where the event files go.
        step: The step that the run goes on from, 0 at its start.
    """
    from transformers.integrations import TensorBoardCallback

    writers = []
    for callback in callbacks:
        if isinstance(callback, TensorBoardCallback):
            from torch.utils.tensorboard import SummaryWriter

            callback.tb_writer = SummaryWriter(log_dir=str(folder), purge_step=step + 1 if step else None)
            writers.append(callback.tb_writer)
    try:
        yield
    finally:
        for writer in writers:
            writer.close()


@contextmanager
def _mlflow_run(reporting: Reporting, folder: Path) -> Iterator[None]:
    import mlflow

    own_store, project = not mlflow.is_tracking_uri_set(), os.environ.get("MLFLOW_EXPERIMENT_NAME", reporting.project)

    def end(failed: bool) -> None:
        mlflow.end_run("FAILED" if failed else "FINISHED")
        if own_store:
            mlflow.set_tracking_uri(None)

    with _ended(end):
        with (
            _few_retries(),
            _told("MLflow", mlflow.exceptions.MlflowException, "check MLFLOW_TRACKING_URI, or leave it unset"),
        ):
            if own_store:
                mlflow.set_tracking_uri(f"sqlite:///{folder.resolve() / 'mlflow.db'}")
                if mlflow.get_experiment_by_name(project) is None:
                    mlflow.create_experiment(project, artifact_location=(folder / "mlflow").resolve().as_uri())
            mlflow.set_experiment(project)
            # transformers' callback takes up the run that this names by itself
            if "MLFLOW_RUN_ID" not in os.environ:
                mlflow.start_run(run_name=reporting.run)
        yield


@contextmanager
def _few_retries() -> Iterator[None]:
    """Have MLflow try an address once more, where nobody says otherwise: by itself it goes on for minutes."""
    if MLFLOW_RETRIES in os.environ:
        yield
        return
    os.environ[MLFLOW_RETRIES] = "1"
    try:
        yield
    finally:
        del os.environ[MLFLOW_RETRIES]


@contextmanager
def _wandb_run(reporting: Reporting, folder: Path) -> Iterator[None]:
    import wandb

    project = os.environ.get("WANDB_PROJECT", reporting.project)
    with _told("W&B", wandb.errors.Error, "log in with `wandb login`, or set WANDB_MODE=offline"):
        wandb.init(project=project, name=reporting.run, dir=folder, settings={"console": "off"})
    with _ended(lambda failed: wandb.finish(exit_code=int(failed))):
        yield


@contextmanager
def _ended(end: Callable[[bool], object]) -> Iterator[None]:
    """Call `end` with whether the block failed."""
    failed = True
    try:
        yield
        failed = False
    finally:
        end(failed)


@contextmanager
def _told(name: str, error: type[Exception], next_step: str) -> Iterator[None]:
    """Turn a reporter's own error into one of ours."""
    try:
        yield
    except error as problem:
        # a server's URI may hold a password, and MLflow's messages hold the URI
        said = PASSWORD.sub("://…@", str(problem))
        raise InputError(f"{name} can't be told of the run: {said}", next_step=next_step) from None
