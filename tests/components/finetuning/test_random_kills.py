"""Killed at any moment, and killed again while it resumes: the run ends with the bits of one that nobody touched."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from components.finetuning.finetune import finetune
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings

KILLS = 50
# between two looks for a save that begins
LOOK_SECONDS = 0.001


def train(base: Path, folder: Path) -> list[float]:
    """Train to the end, with a checkpoint after every step."""
    found = finetune(base, rows(), rows(4), settings(), run_folder=folder, identity={"data": "d"}, checkpoint_steps=1)
    return [entry["loss"] for entry in found.losses]


def kill_and_resume(base: Path, folder: Path, kills: int, seed: int) -> None:
    """Kill training `kills` times at random moments; print the moments by checkpoints, and whether each run ended well.

    Every second kill is drawn from the first half of a run, and then waits for the next save that begins: those at any
    moment are seldom within one, which takes a few milliseconds of a step.

    Called in a process of its own that has imported all it needs: each training is a fork of it.
    """
    expected = train(base, folder / "whole")
    started = time.monotonic()
    train(base, folder / "timed")
    longest = time.monotonic() - started
    draw = random.Random(seed)
    killed, finished, steps, broken = 0, 0, set(), 0
    while killed < kills:
        run_folder = folder / f"run-{finished}"
        child = os.fork()
        if child == 0:
            code = 0 if train(base, run_folder) == expected else 7
            os._exit(code)
        # a run that ends before it waits for a save was trained for nothing
        for_a_save = killed % 2 == 1
        time.sleep(draw.uniform(0, (0.5 if for_a_save else 1.1) * longest))
        done, status = os.waitpid(child, os.WNOHANG)
        while for_a_save and not done and not within_a_save(run_folder, child):
            time.sleep(LOOK_SECONDS)
            done, status = os.waitpid(child, os.WNOHANG)
        if not done:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            killed += 1
            steps |= {path.name for path in run_folder.glob("checkpoint-*")}
            broken += within_a_save(run_folder, child)
            continue
        assert os.waitstatus_to_exitcode(status) == 0, f"run {finished} gave other losses"
        compare(folder / "whole", run_folder)
        finished += 1
    while True:  # what was killed last is resumed to its end too
        run_folder = folder / f"run-{finished}"
        assert train(base, run_folder) == expected
        compare(folder / "whole", run_folder)
        break
    print(json.dumps({"killed": killed, "finished": finished, "steps": len(steps), "within a save": broken}))


def within_a_save(run_folder: Path, process: int) -> bool:
    """Tell whether a process has begun to write a checkpoint, and not placed it."""
    return any(run_folder.glob(f".checkpoint-*.{process}"))


def compare(whole: Path, resumed: Path) -> None:
    """Hold the bytes of two adapters against each other."""
    name = "adapter/adapter_model.safetensors"
    assert (whole / name).read_bytes() == (resumed / name).read_bytes()


@pytest.mark.integration
def test_a_run_that_is_killed_at_random_moments_ends_with_the_same_bits(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "tiny")
    script = (
        "from pathlib import Path; import sys; sys.path.insert(0, sys.argv[1]);"
        "from tests.components.finetuning.test_random_kills import kill_and_resume as kill;"
        "kill(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), 17)"
    )
    root = str(Path(__file__).parents[3])
    command = [sys.executable, "-W", "ignore", "-c", script, root, str(base), str(tmp_path / "runs"), str(KILLS)]
    # forks and OpenMP's threads don't go together
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=280, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert found.returncode == 0, found.stderr
    told = json.loads(found.stdout.splitlines()[-1])
    assert told["killed"] == KILLS
    assert told["steps"] >= 4
    # half of the kills were meant for saves; on busy cores a save may be over before its process is killed
    assert told["within a save"] >= KILLS // 10
