from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.recipe import load_recipe
from flows.chain import run_chain
from flows.observer import TerminalObserver
from flows.open_job import open_job
from flows.prefect_settings import use_embedded_server


class StoppedError(Exception):
    """Ends a run at its first step."""


def begin_run(recipe: Path, home: Path) -> None:
    def stop(*_: Any) -> Any:
        raise StoppedError

    with pytest.raises(StoppedError):
        run_chain(open_job(load_recipe(recipe), home), TerminalObserver(), stop)


def test_a_folder_that_a_run_makes_is_ignored_by_git(project: Callable[..., Path], tmp_path: Path) -> None:
    begin_run(project(), tmp_path / "a" / "state")
    assert (tmp_path / "a" / "state" / ".gitignore").read_text() == "*\n"


def test_a_folder_that_was_there_is_left_as_it_is(project: Callable[..., Path], tmp_path: Path) -> None:
    recipe = project()
    (tmp_path / ".gitignore").write_text("/data\n")
    begin_run(recipe, tmp_path)
    assert (tmp_path / ".gitignore").read_text() == "/data\n"
    (tmp_path / ".gitignore").unlink()
    begin_run(recipe, tmp_path)  # the project's own folder: all of it would be ignored
    assert not (tmp_path / ".gitignore").exists()


def test_a_folder_that_is_made_for_prefect_is_ignored_by_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        monkeypatch.delenv(name)
    before = dict(os.environ)
    try:
        use_embedded_server(tmp_path / "state")
    finally:
        os.environ.clear()
        os.environ.update(before)
    assert (tmp_path / "state" / ".gitignore").read_text() == "*\n"
