"""The main job as a Prefect flow: the chain of chain.py with its steps as tasks, progress and report as artifacts."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.context import get_run_context
from prefect.states import Completed, Failed, State

from components.evaluation.summary import render_markdown
from components.paths import home as default_home
from components.recipe import load_recipe
from flows.chain import exit_reason, run_chain
from flows.observer import Observer, TerminalObserver
from flows.open_job import open_job
from flows.tasks import TASKS

__all__ = ["finetune"]

ARTIFACT_INTERVAL_SECONDS = 5.0


@flow(name="finetune", persist_result=False, retries=0)
def finetune(
    recipe: str, profile: str | None = None, overrides: tuple[str, ...] = (), home: str | None = None
) -> State[Any]:
    """Run a recipe from its data to a served version.

    Args:
        recipe: Path of the recipe.
        profile: Profile laid over it.
        overrides: `section.key=value` texts.
        home: State folder.

    Returns:
        Completed or, when the decision, the plan or the gate said no, Failed; both carry the run document.
    """
    observer = PrefectObserver(TerminalObserver())
    job = open_job(load_recipe(Path(recipe), profile, overrides), Path(home) if home else default_home())
    run_id = str(get_run_context().flow_run.id)

    def call(function: Any, *arguments: Any) -> Any:
        return TASKS[function](*arguments)

    run = run_chain(job, observer, call, run_id)
    create_markdown_artifact(render_markdown(run), key=f"report-{_slug(job.recipe.name)}", description="run report")
    reason = exit_reason(run)
    if reason is None:
        return Completed(message=f"{run['version']} promoted", data=run)
    return Failed(message=reason, data=run)


class PrefectObserver:
    """Pass everything on to a person's observer, and to Prefect's log and progress artifacts.

    Args:
        person: Who watches on the terminal.
    """

    def __init__(self, person: Observer) -> None:
        self._person = person
        self._artifacts: dict[str, tuple[Any, float]] = {}

    def say(self, text: str) -> None:
        """Tell one line."""
        self._person.say(text)
        get_run_logger().info(text)

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Update the step's progress artifact every few seconds and when it is done."""
        self._person.progress(what, done, total, detail)
        percent = 100.0 * done / total if total else 100.0
        artifact, last = self._artifacts.get(what, (None, 0.0))
        now, described = time.monotonic(), f"{what} {done}/{total}  {detail}".rstrip()
        if artifact is None:
            artifact = create_progress_artifact(progress=percent, key=_slug(what), description=described)
        elif done >= total or now - last >= ARTIFACT_INTERVAL_SECONDS:
            update_progress_artifact(artifact, progress=percent, description=described)
        else:
            return
        self._artifacts[what] = (artifact, now)


def _slug(text: str) -> str:
    return "-".join("".join(c if c.isalnum() else " " for c in text.lower()).split())
