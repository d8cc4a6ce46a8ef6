"""`tunewright registry mirror`: pushes the registry to MLflow. Parses, calls, prints."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any

import click

from flows.commands.option_types import WORDS
from flows.commands.output import emit, json_option, note
from flows.commands.registry_options import home_option, open_registry

__all__ = ["mirror_command"]


@click.command("mirror")
@click.option(
    "--to",
    "uri",
    required=True,
    envvar="MLFLOW_TRACKING_URI",
    help="MLflow's URI, of its server or its database; in $MLFLOW_TRACKING_URI a password is in no process list.",
)
@click.option("--once", "mode", flag_value="once", default="once", help="End when all is pushed.  [default]")
@click.option("--follow", "mode", flag_value="follow", help="Go on until stopped.")
@click.option("--from-start", is_flag=True, help="Push everything again, which changes nothing that is there.")
@click.option("--files", is_flag=True, help="Upload the versions' files, too; else MLflow is told where they are.")
@click.option("--experiment", type=WORDS, default="tunewright", show_default=True, help="Under which runs are written.")
@click.option("--artifacts", default=None, help="Where a new experiment's artifacts go.  [default: MLflow's choice]")
@home_option
@json_option
def mirror_command(
    uri: str,
    mode: str,
    from_start: bool,
    files: bool,
    experiment: str,
    artifacts: str | None,
    home: Path,
    as_json: bool,
) -> None:
    """Push versions, aliases, tags and scores to MLflow, in order, from where the last push stopped.

    MLflow only shows: it is never asked, and no registration or promotion waits for it. Exit status 3 if it failed; the
    next push goes on there. With --follow a line a round goes to standard error.
    """
    from registry.mirror import follow, mirror
    from registry.mlflow_target import MlflowTarget

    target = MlflowTarget(uri, experiment=experiment, files=files, artifacts=artifacts)
    with open_registry(home) as registry:
        target.check()  # what isn't installed, or no address, is said once, not tried again
        if mode == "once":
            done = mirror(registry, target, from_start=from_start)
        else:
            ended = threading.Event()
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: ended.set())
            if from_start:
                mirror(registry, target, from_start=True, most=0)
            done = follow(registry, target, on_round=lambda found: note(_render(found.to_dict())), wait=ended.wait)
    emit(done.to_dict(), as_json, _render)
    if done.error:
        sys.exit(3)


def _render(document: dict[str, Any]) -> str:
    pushed = f"{document['told']} rows pushed to {document['target']}, {document['position']} of {document['head']}"
    if not document["error"]:
        return pushed
    return f"{pushed}; failed: {document['error']}\n  next: push again when MLflow answers; it goes on at the same row"
