from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax, softmax

from components.data.packing import collate
from components.data.rows import Message
from components.errors import InputError
from components.finetuning.distill import Teacher, check_teacher
from components.finetuning.finetune import FinetuneResult, StoppedError, finetune
from components.finetuning.full import FullSettings
from components.finetuning.loss import SoftTargets, forward_loss, weighted_token_loss
from components.finetuning.run_schedule import training_schedule
from components.memory.settings import StepSettings, StepShape
from components.memory.simulate import StepModel
from components.models.fingerprint import fingerprint
from components.models.load import load_model
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings


@pytest.fixture(scope="module")
def teacher_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("teacher"), seed=8, hidden_size=96, layers=3)


def distilled(teacher: Path, weight: float = 0.9, temperature: float = 2.0, **changes: Any) -> Any:
    named = {"teacher": fingerprint(teacher).base, "distillation_weight": weight, "temperature": temperature}
    return settings(**{**named, **changes})


def train(base: Path, folder: Path, chosen: Any, teacher: Path | None, **options: Any) -> FinetuneResult:
    return finetune(
        base, rows(), [], chosen, run_folder=folder, identity={}, checkpoint_steps=1, teacher_folder=teacher, **options
    )


def distance(model: Any, teacher: Any, tokenizer: Any) -> float:
    """Mean KL from the teacher over the answers' places."""
    schedule, _ = training_schedule(tokenizer, rows(), settings(epochs=1.0))
    total, places = 0.0, 0
    for step in schedule.steps:
        for micro_batch in step:
            batch = collate(micro_batch, 0)
            weight = float(batch["weights"].sum())
            with torch.no_grad():
                total += float(forward_loss(model, batch, 1.0, Teacher(teacher, 1.0, 1.0)))
            places += int(weight)
    return total / places


@pytest.mark.parametrize("chunk", [3, 256])
def test_the_loss_is_the_labels_and_the_teachers_at_a_temperature(chunk: int) -> None:
    torch.manual_seed(0)
    hidden = torch.randn(2, 5, 8, requires_grad=True)
    head, taught, wider = torch.randn(11, 8), torch.randn(2, 5, 6), torch.randn(13, 6)
    labels = torch.randint(0, 11, (2, 5))
    weights = torch.tensor([[0.0, 1.0, 0.5, 1.0, 0.0], [1.0, 1.0, 0.0, 0.1, 1.0]])
    soft = SoftTargets(taught, lambda states: states @ wider.T, 0.7, 3.0)
    found = weighted_token_loss(
        hidden, lambda states: states @ head.T, labels, weights, 4.0, chunk_tokens=chunk, soft=soft
    )
    student = hidden @ head.T
    # the teacher's tokens beyond the student's are left out
    teacher = softmax((taught @ wider.T)[..., :11] / 3.0, dim=-1)
    kl = (teacher * (teacher.log() - log_softmax(student / 3.0, dim=-1))).sum(-1)
    plain = cross_entropy(student.flatten(0, 1), labels.flatten(), reduction="none").view(2, 5)
    expected = ((0.3 * plain + 0.7 * 9.0 * kl) * weights).sum() / 4.0
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    gradient, wanted = (torch.autograd.grad(loss, hidden, retain_graph=True)[0] for loss in (found, expected))
    assert torch.allclose(gradient, wanted, atol=1e-6)


def test_a_model_is_no_distance_from_itself(tiny_model: Any, tiny_tokenizer: Any) -> None:
    assert distance(tiny_model, tiny_model, tiny_tokenizer) == pytest.approx(0, abs=1e-5)


def test_learning_from_a_teacher_comes_nearer_to_it_than_the_labels_alone(
    tiny_folder: Path, tiny_tokenizer: Any, teacher_folder: Path, tmp_path: Path
) -> None:
    # one that says other things than the labels do
    other = [
        replace(row, messages=(*row.prompt, Message("assistant", "SELECT name FROM stadium WHERE 1"))) for row in rows()
    ]
    whole = settings(method="full", attachment=FullSettings(), learning_rate=5e-3, epochs=8.0)
    odd = finetune(teacher_folder, other, [], whole, run_folder=tmp_path / "teacher", identity={}).weights
    named = {"teacher": fingerprint(odd).base, "distillation_weight": 0.9, "temperature": 2.0}
    taught = train(tiny_folder, tmp_path / "taught", replace(whole, **named), odd)
    alone = train(tiny_folder, tmp_path / "alone", whole, None)
    teacher = load_model(odd)
    found = {
        name: distance(load_model(run.weights), teacher, tiny_tokenizer)
        for name, run in (("taught", taught), ("alone", alone))
    }
    before = distance(load_model(tiny_folder), teacher, tiny_tokenizer)
    assert found["taught"] < 0.8 * before
    assert found["taught"] < 0.5 * found["alone"]


def test_a_run_with_a_teacher_that_was_stopped_goes_on_with_the_same_bits(
    tiny_folder: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    chosen = distilled(teacher_folder)
    whole = train(tiny_folder, tmp_path / "whole", chosen, teacher_folder)
    asked = iter([False, False, True])
    with pytest.raises(StoppedError):
        train(tiny_folder, tmp_path / "cut", chosen, teacher_folder, stop=lambda: next(asked))
    resumed = train(tiny_folder, tmp_path / "cut", chosen, teacher_folder)
    assert resumed.resumed_from == 3
    one, other = ((run.weights / "adapter_model.safetensors").read_bytes() for run in (whole, resumed))
    assert one == other


def test_whole_weights_learn_from_a_teacher_too(tiny_folder: Path, teacher_folder: Path, tmp_path: Path) -> None:
    chosen = distilled(teacher_folder, method="full", attachment=FullSettings(), learning_rate=1e-3, epochs=1.0)
    found = train(tiny_folder, tmp_path, chosen, teacher_folder)
    assert found.kind == "full"
    assert found.trainable_parameters == found.total_parameters


def test_a_teacher_with_another_tokenizer_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    other = make_tiny(tmp_path / "other", vocabulary=380)
    with pytest.raises(InputError, match="another tokenizer"):
        check_teacher(other, tiny_folder)
    with pytest.raises(InputError, match="another tokenizer"):
        train(tiny_folder, tmp_path / "run", distilled(other), other)
    assert not (tmp_path / "run").exists()


def test_a_teacher_that_the_settings_do_not_name_is_refused(
    tiny_folder: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    for chosen, teacher in (
        (settings(), teacher_folder),
        (distilled(teacher_folder), None),
        (replace(distilled(teacher_folder), teacher="0" * 64), teacher_folder),
    ):
        with pytest.raises(InputError, match="settings that name"):
            train(tiny_folder, tmp_path, chosen, teacher)


def test_a_teacher_with_too_few_positions_is_refused_before_a_step(
    tiny_folder: Path, teacher_folder: Path, tmp_path: Path
) -> None:
    short = tmp_path / "short"
    shutil.copytree(teacher_folder, short)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 16}))
    with pytest.raises(InputError, match="the teacher 16"):
        train(tiny_folder, tmp_path / "run", distilled(short), short)


def test_the_simulated_step_counts_the_teacher(tiny_folder: Path, teacher_folder: Path) -> None:
    plain = StepSettings(rank=4)
    shape = StepShape(1, 64)
    alone, taught = (
        StepModel(tiny_folder, chosen).run(shape) for chosen in (plain, replace(plain, teacher=str(teacher_folder)))
    )
    weights = sum(parameter.numel() for parameter in load_model(teacher_folder).parameters()) * 4
    assert taught.peak.breakdown["weights"] - alone.peak.breakdown["weights"] == pytest.approx(weights, rel=0.01)
    assert taught.peak.peak_bytes >= alone.peak.peak_bytes + weights
    assert taught.flops > alone.flops
    assert (taught.parameters, taught.trainable_parameters) == (alone.parameters, alone.trainable_parameters)
