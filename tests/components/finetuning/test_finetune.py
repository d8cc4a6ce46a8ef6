"""A run teaches, resumes bit for bit, refuses what can't be resumed, and saves what it trained."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from components.data.chat import encode
from components.data.rows import Message
from components.errors import ConflictError, InputError, TunewrightError
from components.finetuning import checkpoint
from components.finetuning.finetune import FinetuneResult, finetune
from components.finetuning.lora import LoraSettings
from components.finetuning.methods import METHODS
from components.finetuning.run_schedule import run_workload
from components.models.fingerprint import fingerprint
from components.models.kernels import Kernels
from components.models.load import load_model, load_tokenizer
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings, uneven_rows


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


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
        load_model(other, adapter=result.weights)


def test_the_same_run_twice_gives_the_same_bytes(base: Path, tmp_path: Path) -> None:
    one, two = run(base, tmp_path / "one"), run(base, tmp_path / "two")
    assert [e["loss"] for e in one.losses] == [e["loss"] for e in two.losses]
    name = "adapter_model.safetensors"
    assert (one.weights / name).read_bytes() == (two.weights / name).read_bytes()


def test_a_steps_loss_is_that_of_its_rows_alone_under_one_sum_of_weights(base: Path, tmp_path: Path) -> None:
    """Each row by itself through plain transformers; weighted, summed, and divided once."""
    given, weight = uneven_rows(9), 0.3
    tokenizer, model = load_tokenizer(base), load_model(base)
    summed = weights = 0.0
    for row in given:
        encoded = encode(tokenizer, row.messages, prompt_loss_weight=weight)
        ids = torch.tensor([encoded.input_ids])
        with torch.no_grad():
            scores = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        losses = -scores.gather(1, ids[0, 1:, None])[:, 0]
        summed += float((losses.double() * torch.tensor(encoded.weights[1:], dtype=torch.float64)).sum())
        weights += sum(encoded.weights[1:])
    for size, count in ((1, 6), (2, 3), (6, 1)):
        result = finetune(
            base, given, [],
            settings(
                attachment=LoraSettings(rank=4), prompt_loss_weight=weight, micro_batch_size=size, epochs=1.0,
                gradient_accumulation_steps=count,
            ),
            run_folder=tmp_path / str(size), identity={},
        )  # fmt: skip
        assert result.steps == 1
        assert result.losses[0]["loss"] == pytest.approx(summed / weights, rel=1e-6)


def test_the_longest_sequence_depends_on_the_seed_that_groups_the_rows(base: Path) -> None:
    answers = [Message("assistant", "SELECT 1" + ", 1" * (3 * number)) for number in range(12)]
    uneven = [replace(row, messages=(*row.prompt, answer)) for row, answer in zip(rows(), answers, strict=True)]
    tokenizer = load_tokenizer(base)
    works = [run_workload(tokenizer, uneven, [], settings(seed=seed, epochs=1.0)) for seed in range(6)]
    assert len({work.longest for work in works}) > 1


def run_until_killed(base: Path, folder: Path, moment: str) -> None:
    """Train in a process that is killed the hard way after its checkpoint of step 2; called in a child.

    Step 3 has a checkpoint too: its dev loss is the smallest so far.
    """
    place = checkpoint.place_folder

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def place_or_die(aside: Path, final: Path) -> None:
        fourth = final.name == "checkpoint-4"
        if fourth and moment == "before the checkpoint of step 4 is placed":
            die()
        place(aside, final)
        if fourth and moment == "before an old checkpoint is dropped":
            die()

    checkpoint.place_folder = place_or_die  # type: ignore[attr-defined]
    finetune(
        base, rows(), rows(4), settings(), run_folder=folder, identity={"data": "d"}, checkpoint_steps=2,
        progress=lambda log: die() if moment == "between checkpoints" and log["step"] == 3 else None,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("moment", "step"),
    [
        ("between checkpoints", 2),
        ("before the checkpoint of step 4 is placed", 3),
        ("before an old checkpoint is dropped", 4),
    ],
)
def test_a_killed_run_resumes_bit_for_bit(base: Path, tmp_path: Path, moment: str, step: int) -> None:
    whole = run(base, tmp_path / "whole")
    folder = tmp_path / "killed"
    script = (
        "from pathlib import Path; import sys; sys.path.insert(0, sys.argv[4]);"
        "from tests.components.finetuning.test_finetune import run_until_killed as train;"
        "train(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])"
    )
    here = str(Path(__file__).parents[3])
    child = subprocess.run([sys.executable, "-c", script, str(base), str(folder), moment, here], timeout=300)
    assert child.returncode == -signal.SIGKILL
    assert not (folder / "adapter").exists()
    resumed = run(base, folder)
    assert resumed.resumed_from == step
    assert [e["loss"] for e in resumed.losses] == [e["loss"] for e in whole.losses]
    saved = load_file(resumed.weights / "adapter_model.safetensors")
    for name, tensor in load_file(whole.weights / "adapter_model.safetensors").items():
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


def test_resuming_with_other_data_base_or_settings_is_refused_with_the_difference(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path)
    with pytest.raises(ConflictError, match="learning_rate"):
        run(base, tmp_path, learning_rate=1e-4)
    # they round otherwise, so that the rest would not be that of either run
    with pytest.raises(ConflictError, match='"compile": true'):
        run(base, tmp_path, kernels=Kernels(compile=True))
    with pytest.raises(ConflictError, match="data: d there, other here"):
        finetune(base, rows(), [], settings(), run_folder=tmp_path, identity={"data": "other"})
    # of the same shapes: its checkpoint could be loaded
    with pytest.raises(ConflictError, match=f"base: {fingerprint(base).base} there"):
        run(make_tiny(tmp_path / "other", seed=1), tmp_path)
    # which is read from the files, whatever the caller says of them
    claim = {"data": "d", "base": "b", "template": "t"}
    finetune(base, rows(), [], settings(epochs=1.0), run_folder=tmp_path / "claimed", identity=claim)
    other = Path(shutil.copytree(base, tmp_path / "other-template"))
    template = other / "chat_template.jinja"
    template.write_text(template.read_text() + "{# other #}")
    with pytest.raises(ConflictError, match=f"template: {fingerprint(base).template} there"):
        finetune(other, rows(), [], settings(epochs=1.0), run_folder=tmp_path / "claimed", identity=claim)
    with pytest.raises(ConflictError, match=f"base: {fingerprint(base).base} there"):
        finetune(
            tmp_path / "other", rows(), [], settings(epochs=1.0), run_folder=tmp_path / "claimed", identity=claim
        )  # fmt: skip


def test_an_optimizers_numbers_survive_a_checkpoint() -> None:
    from components.finetuning.training_state import pack_optimizer, unpack_optimizer

    state = {
        "state": {0: {"step": 3, "state1": torch.arange(4, dtype=torch.uint8)}, 1: {"step": torch.tensor(3.0)}},
        "param_groups": [{"lr": 0.1, "params": [0, 1]}],
    }
    tensors, document = pack_optimizer(state)
    assert set(tensors) == {"0.state1", "1.step"}
    assert unpack_optimizer(tensors, json.loads(json.dumps(document))) == state


def test_every_random_generator_goes_on_where_a_checkpoint_was_written(tmp_path: Path) -> None:
    from components.finetuning.training_state import random_document, random_tensors, restore_random

    def draw() -> tuple[float, ...]:
        # the second normal deviate of a pair is kept by NumPy's generator and by Python's
        drawn = (random.gauss(0, 1), random.random(), np.random.normal(), np.random.random(), float(torch.rand(())))
        return tuple(map(float, drawn))

    draw()
    written = checkpoint.save(
        tmp_path, 1, tensors={"random": random_tensors()}, documents={"random": random_document()}, identity={}, keep=2
    )
    expected = [draw(), draw()]
    restore_random(json.loads((written.folder / "random.json").read_text()), checkpoint.load_tensors(written, "random"))
    assert [draw(), draw()] == expected


def test_at_least_two_checkpoints_stay(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path)
    assert len(list(tmp_path.glob("checkpoint-*"))) == 2
    assert checkpoint.latest(tmp_path / "absent", {}, print) is None


def test_qlora_trains_on_a_base_in_four_bits(base: Path, tmp_path: Path) -> None:
    result = run(base, tmp_path, method="qlora")
    assert result.losses[-1]["loss"] < result.losses[0]["loss"]


def test_factors_on_the_head_are_trained_too(base: Path, tmp_path: Path) -> None:
    result = run(base, tmp_path, attachment=LoraSettings(rank=4, targets="q_proj,lm_head"), epochs=1.0)
    saved = load_file(result.weights / "adapter_model.safetensors")
    ups = {name: float(tensor.abs().max()) for name, tensor in saved.items() if "lora_B" in name}
    assert any("lm_head" in name for name in ups)
    assert min(ups.values()) > 0


def test_a_trainable_parameter_that_the_loss_does_not_reach_stops_the_run_by_name(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach = METHODS["lora"].attach

    def with_an_idle_one(model: object, chosen: LoraSettings) -> object:
        wrapped = attach(model, chosen)
        wrapped.register_parameter("idle", torch.nn.Parameter(torch.zeros(2)))
        return wrapped

    monkeypatch.setitem(METHODS, "lora", replace(METHODS["lora"], attach=with_an_idle_one))
    with pytest.raises(TunewrightError, match="doesn't reach idle: trainable, but without a gradient"):
        run(base, tmp_path)
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize("targets", ["nonsense", "q_proj, nonsense", " , "])
def test_targets_that_match_nothing_are_refused_before_time_is_spent(base: Path, tmp_path: Path, targets: str) -> None:
    named = "'nonsense'" if "nonsense" in targets else "' , '"
    with pytest.raises(InputError, match=f"targets {named} match no module") as refused:
        run(base, tmp_path, attachment=LoraSettings(targets=targets))
    assert "down_proj, gate_proj" in str(refused.value.allowed)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_row_longer_than_allowed_is_named_by_its_line_in_the_file(base: Path, tmp_path: Path) -> None:
    # as train_subsets leaves them: the first row here is the fifth of its file
    answer = Message("assistant", "SELECT 1, " * 300)
    long = [replace(row, messages=(*row.prompt, answer)) for row in rows()[4:]]
    for train, dev, what in ((long, [], "training"), (rows(), long, "dev")):
        with pytest.raises(InputError, match=f"the {what} row of line 5 has"):
            finetune(base, train, dev, settings(max_tokens=300), run_folder=tmp_path / what, identity={})
        assert not (tmp_path / what / "adapter").exists()


def test_a_loss_that_is_not_finite_stops_the_run_naming_step_and_rows(base: Path, tmp_path: Path) -> None:
    from components.finetuning.trainer import DivergedError

    with pytest.raises(DivergedError, match=r"step \d+ is not finite; .* on the lines (105|106|107|108), "):
        finetune(
            base,
            [replace(row, line=row.line + 100) for row in rows()[4:8]],
            [],
            settings(learning_rate=0.99, attachment=LoraSettings(rank=4, alpha=1e20)),
            run_folder=tmp_path,
            identity={},
        )
