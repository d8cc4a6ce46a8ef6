"""A run teaches, resumes bit for bit, refuses what can't be resumed, and saves what it trained."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from components.data.rows import Message, Row
from components.errors import ConflictError, InputError, TunewrightError
from components.finetuning import checkpoint
from components.finetuning.finetune import FinetuneResult, FinetuneSettings, finetune
from components.finetuning.lora import LoraSettings
from components.models.load import load_model
from components.models.tiny import make_tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def rows(count: int = 12) -> list[Row]:
    return [
        Row(
            (
                Message("system", f"table{number % 3}(id, name)"),
                Message("user", f"How many rows in table {number}?"),
                Message("assistant", f"SELECT count(*) FROM table{number % 3}"),
            ),
            {"subset": "single-table"},
            number + 1,
        )
        for number in range(count)
    ]


def settings(**changes: object) -> FinetuneSettings:
    values: dict[str, object] = {
        "method": "lora", "lora": LoraSettings(rank=4, dropout=0.1), "learning_rate": 5e-3, "epochs": 4.0,
        "rows_per_sequence": 2, "gradient_accumulation_steps": 2,
    }  # fmt: skip
    return FinetuneSettings(**{**values, **changes})  # type: ignore[arg-type]


def run(base: Path, folder: Path, **changes: object) -> FinetuneResult:
    return finetune(
        base, rows(), rows(4), settings(**changes), run_folder=folder, identity={"data": "d"}, checkpoint_steps=2
    )


def test_loss_falls_and_the_adapter_is_bound_to_its_base(base: Path, tmp_path: Path) -> None:
    result = run(base, tmp_path)
    assert result.losses[-1]["loss"] < result.losses[0]["loss"] - 0.3
    assert [entry["step"] for entry in result.losses] == list(range(1, result.steps + 1))
    assert result.dev[-1]["loss"] < result.dev[0]["loss"]
    assert result.largest_logit_change > 0
    assert result.resumed_from is None
    other = make_tiny(tmp_path / "other", seed=1)
    with pytest.raises(TunewrightError, match="base"):
        load_model(other, adapter=result.adapter)


def test_the_same_run_twice_gives_the_same_bytes(base: Path, tmp_path: Path) -> None:
    one, two = run(base, tmp_path / "one"), run(base, tmp_path / "two")
    assert [e["loss"] for e in one.losses] == [e["loss"] for e in two.losses]
    name = "adapter_model.safetensors"
    assert (one.adapter / name).read_bytes() == (two.adapter / name).read_bytes()


def test_a_split_into_other_micro_batches_gives_the_same_losses(base: Path, tmp_path: Path) -> None:
    plain = {"lora": LoraSettings(rank=4)}
    one = run(base, tmp_path / "one", **plain, micro_batch_size=1, gradient_accumulation_steps=2)
    two = run(base, tmp_path / "two", **plain, micro_batch_size=2, gradient_accumulation_steps=1)
    for left, right in zip(one.losses, two.losses, strict=True):
        assert abs(left["loss"] - right["loss"]) <= 2e-5 * left["loss"]


@pytest.mark.parametrize("delay", [0.0, 0.15, 0.4])
def test_a_killed_run_resumes_bit_for_bit(base: Path, tmp_path: Path, delay: float) -> None:
    whole = run(base, tmp_path / "whole")
    folder = tmp_path / "killed"
    script = (
        "from pathlib import Path; import sys; sys.path.insert(0, sys.argv[3]);"
        "from test_finetune import run; run(Path(sys.argv[1]), Path(sys.argv[2]))"
    )
    here = Path(__file__).parent
    child = subprocess.Popen([sys.executable, "-c", script, str(base), str(folder), str(here)])
    deadline = time.monotonic() + 120
    while not list(folder.glob("checkpoint-*")) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert list(folder.glob("checkpoint-*"))
    resumed = run(base, folder)
    assert resumed.resumed_from is not None
    assert [e["loss"] for e in resumed.losses] == [e["loss"] for e in whole.losses]
    saved = load_file(resumed.adapter / "adapter_model.safetensors")
    for name, tensor in load_file(whole.adapter / "adapter_model.safetensors").items():
        assert torch.equal(tensor, saved[name])


def test_a_damaged_checkpoint_falls_back_to_the_one_before(base: Path, tmp_path: Path) -> None:
    whole = run(base, tmp_path)
    newest = sorted(tmp_path.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))[-1]
    content = bytearray((newest / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (newest / "weights.safetensors").write_bytes(bytes(content))
    said: list[str] = []
    again = finetune(
        base, rows(), rows(4), settings(), run_folder=tmp_path, identity={"data": "d"}, checkpoint_steps=2,
        say=said.append,
    )  # fmt: skip
    assert "damaged" in said[0]
    assert again.resumed_from is not None
    assert again.resumed_from < whole.steps
    assert [e["loss"] for e in again.losses] == [e["loss"] for e in whole.losses]


def test_resuming_with_other_data_or_settings_is_refused_with_the_difference(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path)
    with pytest.raises(ConflictError, match="learning_rate"):
        run(base, tmp_path, learning_rate=1e-4)
    with pytest.raises(ConflictError, match="data: d there, other here"):
        finetune(base, rows(), [], settings(), run_folder=tmp_path, identity={"data": "other"})


def test_an_optimizers_numbers_survive_a_checkpoint() -> None:
    from components.finetuning.trainer import _pack_optimizer, _unpack_optimizer

    state = {
        "state": {0: {"step": 3, "state1": torch.arange(4, dtype=torch.uint8)}, 1: {"step": torch.tensor(3.0)}},
        "param_groups": [{"lr": 0.1, "params": [0, 1]}],
    }
    tensors, document = _pack_optimizer(state)
    assert set(tensors) == {"0.state1", "1.step"}
    assert _unpack_optimizer(tensors, json.loads(json.dumps(document))) == state


def test_at_least_two_checkpoints_stay(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2
    assert checkpoint.latest(tmp_path / "absent", {}, print) is None


def test_qlora_trains_on_a_base_in_four_bits(base: Path, tmp_path: Path) -> None:
    result = run(base, tmp_path, method="qlora")
    assert result.losses[-1]["loss"] < result.losses[0]["loss"]


def test_targets_that_match_nothing_are_refused_before_time_is_spent(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="match no module"):
        run(base, tmp_path, lora=LoraSettings(targets="nonsense"))
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_row_longer_than_allowed_is_named(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="training row 1 has"):
        run(base, tmp_path, max_tokens=16)
    assert not (tmp_path / "adapter").exists()


def test_a_loss_that_is_not_finite_stops_the_run_naming_step_and_rows(base: Path, tmp_path: Path) -> None:
    from components.finetuning.trainer import DivergedError

    with pytest.raises(DivergedError, match=r"step \d+ is not finite; its rows: \d"):
        run(base, tmp_path, learning_rate=0.99, lora=LoraSettings(rank=4, alpha=1e20))
