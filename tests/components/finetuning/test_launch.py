"""Processes are started, listened to, stopped and ended together; none outlives a run that failed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from components.errors import InputError, TunewrightError
from components.finetuning.best import Measurement
from components.finetuning.finetune import finetune
from components.finetuning.launch import process_count, train
from components.finetuning.lora import LoraSettings
from components.finetuning.result import StoppedError
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings

ROOT = Path(__file__).parents[3]

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def nobody_is_left() -> Any:
    before = set(psutil.Process().children(recursive=True))
    yield
    left = [child for child in psutil.Process().children(recursive=True) if child not in before]
    assert [child.cmdline() for child in left] == []


def arguments(base: Path, folder: Path, **changes: object) -> dict[str, Any]:
    plain: dict[str, object] = {"attachment": LoraSettings(rank=4), "rows_per_sequence": 1, "epochs": 1.0}
    return {
        "base_folder": base,
        "rows": rows(8),
        "dev_rows": rows(2),
        "settings": settings(**{**plain, **changes}),
        "run_folder": folder,
        "identity": {"data": "d"},
        "checkpoint_steps": 1,
    }


def training_processes() -> list[psutil.Process]:
    children = psutil.Process().children()
    return sorted(
        (child for child in children if "components.finetuning.launched" in child.cmdline()), key=lambda one: one.pid
    )


def at_step(step: int, what: Callable[[], object]) -> Callable[[Mapping[str, float]], None]:
    return lambda log: what() if log["step"] == step else None


def test_two_started_processes_give_what_one_gives_and_tell_of_it(base: Path, tmp_path: Path) -> None:
    alone = finetune(**arguments(base, tmp_path / "alone"))
    steps: list[float] = []
    said: list[str] = []
    measured: list[Measurement] = []
    two = train(
        2,
        **arguments(base, tmp_path / "two"),
        parallel="fsdp",
        progress=lambda log: steps.append(log["step"]),
        say=said.append,
        give_up=lambda found: bool(measured.append(found)),
    )
    assert [entry["loss"] for entry in two.losses] == pytest.approx([e["loss"] for e in alone.losses], rel=1e-6)
    assert steps == [1, 2, 3, 4]
    assert [found.step for found in measured] == [1, 2, 3]
    assert any("dev loss" in line for line in said)
    assert (two.weights, two.steps) == (tmp_path / "two" / "adapter", 4)
    assert two.peak_bytes > 10**8


def test_one_process_is_this_one(base: Path, tmp_path: Path) -> None:
    train(1, **arguments(base, tmp_path))
    assert not list(tmp_path.glob("process-*.log"))


def test_asked_to_stop_they_save_and_go_on_with_another_number_and_way(base: Path, tmp_path: Path) -> None:
    asked: list[bool] = []
    with pytest.raises(StoppedError) as stopped:
        train(
            2, **arguments(base, tmp_path), parallel="fsdp", progress=at_step(1, lambda: asked.append(True)),
            stop=lambda: bool(asked),
        )  # fmt: skip
    assert 1 <= stopped.value.step < 4
    alone = finetune(**arguments(base, tmp_path))
    assert alone.resumed_from == stopped.value.step


def test_a_pruner_in_the_launcher_ends_the_run(base: Path, tmp_path: Path) -> None:
    with pytest.raises(StoppedError) as stopped:
        train(2, **arguments(base, tmp_path), give_up=lambda found: found.step == 2)
    assert (stopped.value.step, stopped.value.asked) == (2, False)


def test_what_a_process_refuses_is_raised_as_it_would_be_here(base: Path, tmp_path: Path) -> None:
    wrong = arguments(base, tmp_path, attachment=LoraSettings(targets="no_such_layer"))
    with pytest.raises(InputError, match="match no module") as refused:
        train(2, **wrong)
    assert refused.value.next_step == "set finetune.targets in the recipe"


def test_a_process_that_is_killed_is_named_and_takes_the_others_with_it(base: Path, tmp_path: Path) -> None:
    def kill() -> None:
        training_processes()[1].kill()

    with pytest.raises(TunewrightError, match="process 2 of the 2 that train was ended by SIGKILL") as failed:
        train(2, **arguments(base, tmp_path), progress=at_step(1, kill))
    assert str(tmp_path / "process-1.log") in str(failed.value)


def test_a_failure_inside_is_told_in_a_line_and_its_traceback_kept(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TunewrightError, match="failed: TypeError") as failed:
        train(2, **arguments(base, tmp_path), no_such_argument=1)
    assert "Traceback" not in str(failed.value)
    assert "Traceback" in (tmp_path / "process-0.log").read_text()


def press() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_ctrl_c_saves_first(base: Path, tmp_path: Path) -> None:
    said: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        train(2, **arguments(base, tmp_path, epochs=20.0), progress=at_step(1, press), say=said.append)
    assert any("Ctrl-C once more" in line for line in said)
    assert list(tmp_path.glob("checkpoint-*"))


def test_a_second_ctrl_c_ends_at_once(base: Path, tmp_path: Path) -> None:
    def press_again(text: str) -> None:
        if "once more" in text:
            press()

    with pytest.raises(KeyboardInterrupt):
        train(
            2, **{**arguments(base, tmp_path, epochs=200.0), "checkpoint_steps": 1000},
            progress=at_step(1, press), say=press_again,
        )  # fmt: skip
    assert not list(tmp_path.glob("checkpoint-*"))


def test_ctrl_c_over_a_pruners_question_saves_too(base: Path, tmp_path: Path) -> None:
    pressed: list[int] = []

    def asked(found: Measurement) -> bool:
        if not pressed:
            pressed.append(found.step)
            press()
        return False

    with pytest.raises(KeyboardInterrupt):
        train(2, **arguments(base, tmp_path, epochs=20.0), give_up=asked)
    assert list(tmp_path.glob("checkpoint-*"))


def train_long(base: Path, folder: Path) -> None:
    """Train until somebody ends it; called in a process of its own."""
    train(2, **arguments(base, folder, epochs=200.0), progress=at_step(1, (folder / "begun").touch))


def test_processes_whose_launcher_is_killed_end_themselves(base: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from tests.components.finetuning.test_launch import train_long;"
        "train_long(Path(sys.argv[2]), Path(sys.argv[3]))"
    )
    command = [sys.executable, "-W", "ignore", "-c", script, str(ROOT), str(base), str(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as launcher:
        try:
            deadline = time.monotonic() + 200
            while not (tmp_path / "begun").exists():
                assert launcher.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.2)
            children = psutil.Process(launcher.pid).children()
        finally:
            launcher.kill()
    assert len(children) == 2
    assert psutil.wait_procs(children, timeout=30)[1] == []


def test_the_number_of_processes_is_one_on_a_processor_unless_it_is_asked_for() -> None:
    import torch

    if not torch.cuda.is_available():
        assert (process_count("auto"), process_count(3)) == (1, 3)


def test_the_store_that_they_meet_at_listens_on_loopback_alone(base: Path, tmp_path: Path) -> None:
    seen: set[str] = set()

    def look() -> None:
        listening = [one for one in psutil.Process().net_connections() if one.status == psutil.CONN_LISTEN]
        seen.update(one.laddr.ip for one in listening)

    train(2, **arguments(base, tmp_path, epochs=0.5), progress=at_step(1, look))
    assert seen == {"127.0.0.1"}
