"""Several processes give the losses and the weights of one, and go on from each other's checkpoints."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.errors import InputError
from components.finetuning.finetune import StoppedError, finetune
from components.finetuning.full import FullSettings
from components.finetuning.lora import LoraSettings
from components.finetuning.processes import Processes, current_processes, share_of
from components.finetuning.prompt_tuning import SoftPromptSettings
from components.finetuning.schedule import Schedule
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings

ROOT = Path(__file__).parents[3]
METHODS = {
    "lora": {"attachment": LoraSettings(rank=4)},
    "full": {"method": "full", "attachment": FullSettings(), "learning_rate": 2e-3},
    "prompt_tuning": {"method": "prompt_tuning", "attachment": SoftPromptSettings(4), "learning_rate": 1e-1},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def train(base: Path, folder: Path, method: str, stop_at: int | None = None) -> dict[str, Any]:
    """Train with five sequences behind a step, so that they don't go round two processes; called in children too.

    Only the first process is asked to stop: a signal may reach one alone.
    """
    done = iter(range(1, 10**6))
    try:
        found = finetune(
            base, rows(10), rows(4),
            settings(**METHODS[method], rows_per_sequence=1, micro_batch_size=1, gradient_accumulation_steps=5),
            run_folder=folder, identity={"data": "d"}, checkpoint_steps=3,
            stop=lambda: next(done) == stop_at and os.environ.get("RANK", "0") == "0",
        )  # fmt: skip
    except StoppedError as stopped:
        return {"stopped": stopped.step}
    return {"losses": [entry["loss"] for entry in found.losses], "dev": found.dev, "resumed": found.resumed_from}


def in_processes(count: int, base: Path, folder: Path, method: str, stop_at: int | None = None) -> list[dict[str, Any]]:
    """Run `train` in some processes over gloo on loopback; return what each found."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = (
        "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]);"
        "from tests.components.finetuning.test_processes import train;"
        "print(json.dumps(train(Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4], json.loads(sys.argv[5]))))"
    )
    arguments = [str(ROOT), str(base), str(folder), method, json.dumps(stop_at)]
    children = []
    for rank in range(count):
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
        environment = {name: str(value) for name, value in places.items()}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-W", "ignore", "-c", script, *arguments]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        children.append(subprocess.Popen(command, env={**os.environ, **environment}, text=True, **pipes))
    found = []
    try:
        for child in children:
            out, err = child.communicate(timeout=200)
            assert child.returncode == 0, err
            found.append(json.loads(out.splitlines()[-1]))
    finally:
        for child in children:
            child.kill()
            child.wait()
    return found


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = [*folder.glob("adapter/*.safetensors"), *folder.glob("full/*.safetensors")]
    return load_file(path)


def test_no_sequence_is_lost_and_none_counts_twice(base: Path) -> None:
    from components.data.packing import pack_branches

    sequences = [pack_branches([1, 2], [([3 + n], [1.0])]) for n in range(5)]
    schedule = Schedule([[sequences[:2], sequences[2:4], sequences[4:]]], 5, 15, [[1]])
    shares = [share_of(schedule, Processes(rank, 2), 2) for rank in range(2)]
    assert [[len(micro_batch) for micro_batch in share[0]] for share in shares] == [[2, 1], [2, 1]]
    seen = [s for share in shares for micro_batch in share[0] for s in micro_batch if sum(s.weights)]
    assert sorted(s.input_ids[-1] for s in seen) == [3, 4, 5, 6, 7]
    assert share_of(schedule, Processes(), 2) is schedule.steps


@pytest.mark.parametrize("values", [("2", "2"), ("-1", "2"), ("one", "2"), ("0", "0")])
def test_a_launchers_variables_must_fit_each_other(monkeypatch: pytest.MonkeyPatch, values: tuple[str, str]) -> None:
    monkeypatch.setenv("RANK", values[0])
    monkeypatch.setenv("WORLD_SIZE", values[1])
    with pytest.raises(InputError, match="of WORLD_SIZE"):
        current_processes()


@pytest.mark.integration
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_give_the_losses_and_weights_of_one(base: Path, tmp_path: Path, method: str) -> None:
    alone = train(base, tmp_path / "alone", method)
    one, other = in_processes(2, base, tmp_path / "two", method)
    assert one["losses"] == other["losses"]
    for left, right in zip(alone["losses"], one["losses"], strict=True):
        assert abs(left - right) <= 1e-6 * left
    expected, found = weights(tmp_path / "alone"), weights(tmp_path / "two")
    for name, tensor in expected.items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5), name


@pytest.mark.integration
def test_a_checkpoint_of_two_processes_is_resumed_by_one_and_the_other_way_round(base: Path, tmp_path: Path) -> None:
    alone = train(base, tmp_path / "alone", "lora")
    assert in_processes(2, base, tmp_path / "fewer", "lora", stop_at=4) == [{"stopped": 4}] * 2
    fewer = train(base, tmp_path / "fewer", "lora")
    assert train(base, tmp_path / "more", "lora", stop_at=4) == {"stopped": 4}
    more, _ = in_processes(2, base, tmp_path / "more", "lora")
    for resumed in (fewer, more):
        assert resumed["resumed"] == 4
        for left, right in zip(alone["losses"], resumed["losses"], strict=True):
            assert abs(left - right) <= 1e-6 * left
