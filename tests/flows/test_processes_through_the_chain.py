"""A recipe's processes: started by the training step, stopped with it, and no part of what a training is known by."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from components.errors import InputError
from components.finetuning import launch
from components.paths import home
from components.recipe import load_recipe
from flows.job import Job
from flows.open_job import open_job
from flows.run_settings import processes, run_settings, shared_work
from flows.steps import training_key

Project = Callable[..., Path]
TWO = ("finetune.processes=2", "finetune.parallel=fsdp")


def job(project: Project, *overrides: str) -> Job:
    return open_job(load_recipe(project(), None, overrides), home())


def test_number_way_and_cut_are_in_the_key_of_a_training_only_where_they_round(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.steps.split_digest", lambda job, data, split: split)
    alone = {"method": "lora", "dtype": "float32", "optimizer": "adamw", "devices": 1}
    one = {**alone, "micro_batch_size": 2, "gradient_accumulation_steps": 1, "gradient_checkpointing": True}
    two = {**alone, "micro_batch_size": 1, "gradient_accumulation_steps": 1, "devices": 2}
    plain, shared = job(project), job(project, *TWO)
    assert training_key(plain, {}, one) == training_key(shared, {}, two)
    assert training_key(plain, {}, one) != training_key(plain, {}, {**one, "dtype": "bfloat16"})
    # whole weights in 16 bits are rounded before they are sent, which a single process doesn't do
    whole = {"method": "full", "dtype": "bfloat16"}
    assert training_key(plain, {}, {**one, **whole}) != training_key(shared, {}, {**two, **whole})
    assert training_key(plain, {}, {**one, "method": "full"}) == training_key(shared, {}, {**two, "method": "full"})
    # a step's sequences are the same, whoever takes them
    assert run_settings(shared, two).gradient_accumulation_steps == 2


def test_a_recipes_processes_are_what_its_plan_is_for(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shared_work(job(project)) == {}
    assert shared_work(job(project, *TWO)) == {"devices": 2, "sharding": "fsdp", "together": True}
    assert shared_work(job(project, "finetune.processes=2"))["sharding"] == "data-parallel"
    monkeypatch.setattr("flows.run_settings.process_count", lambda wanted: 3)
    with pytest.raises(InputError, match="3 GPUs can't share a step of 2 sequences") as refused:
        processes(job(project, "finetune.processes=auto"))
    assert refused.value.allowed == "1, 2"


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert launch.process_count("auto") == 2
    with pytest.raises(InputError, match=r"finetune\.processes 4 on a machine with 2 GPUs"):
        launch.process_count(4)


@pytest.mark.integration
def test_sigterm_reaches_all_processes_and_the_chain_goes_on_with_them(project: Project, tmp_path: Path) -> None:
    recipe = str(project(finetune={"epochs": 12}))  # a few steps are over before the signal comes
    command = [sys.executable, "-W", "ignore", "-c", "from flows.cli import main; main()"]
    settings = [part for override in TWO for part in ("--set", override)]
    log = tmp_path / "log"
    with (
        log.open("w") as written,
        subprocess.Popen(
            [*command, "finetune", recipe, "--json", *settings], stdout=subprocess.PIPE, stderr=written, text=True
        ) as child,
    ):
        deadline = time.monotonic() + 250
        while "finetune: step 1/" not in log.read_text() and child.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        trainers = [
            one for one in psutil.Process(child.pid).children() if "components.finetuning.launched" in one.cmdline()
        ]
        child.send_signal(signal.SIGTERM)
        out, _ = child.communicate(timeout=250)
    said = log.read_text()
    document = json.loads(out)
    assert child.returncode == 0, said
    assert len(trainers) == 2
    assert not any(one.is_running() for one in trainers)
    assert 0 < document["stopped_at_step"] < document["steps"]
    assert "2 processes on this machine" in said
    assert "Traceback" not in said

    again = subprocess.run(
        [*command, "run", recipe, "--no-prefect", "--json", *settings], capture_output=True, text=True, timeout=280
    )
    run = json.loads(again.stdout)
    assert again.returncode == 0, again.stderr
    assert run["training"]["resumed_from"] == document["stopped_at_step"]
    assert run["version"]
    assert (run["plan"]["devices"], run["plan"]["sharding"]) == (2, "fsdp")
    assert run["training"]["memory"]["measured_bytes"] > 10**8
    # one process finds the same training done
    alone = subprocess.run([*command, "finetune", recipe, "--json"], capture_output=True, text=True, timeout=280)
    assert alone.returncode == 0, alone.stderr
    assert json.loads(alone.stdout)["trained"] is False
