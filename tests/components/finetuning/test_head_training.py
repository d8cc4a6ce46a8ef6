"""Heads: learned from kept features, the same by the seed, proven after saving."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from components.data.rows import Message, Row
from components.errors import InputError, TunewrightError
from components.files import sha256_tree
from components.finetuning import feature_cache, head_training
from components.finetuning.features import FeatureSettings
from components.finetuning.finetune import FinetuneResult, FinetuneSettings, StoppedError, finetune
from components.finetuning.head_fit import FitSettings, fit
from components.finetuning.head_training import feature_workload, train_head
from components.models.fingerprint import fingerprint
from components.models.load import load_as_served
from components.models.tiny import make_tiny

WORDS = {"dog": "The quick brown fox jumps over the lazy dog", "singer": "concert stadium capacity singer country"}


def rows(count: int, answer: Any = None) -> list[Row]:
    found = []
    for number in range(count):
        label = ("dog", "singer")[number % 2]
        said = label if answer is None else answer(number)
        question = Message("user", f"{WORDS[label]} {number * 7 % 31}")
        found.append(Row((question, Message("assistant", said)), line=number + 1))
    return found


def settings(epochs: float = 30.0, seed: int = 1, **head: Any) -> FinetuneSettings:
    chosen = FeatureSettings(**{"seed": seed, **head})
    return FinetuneSettings("features", chosen, learning_rate=1e-2, epochs=epochs, micro_batch_size=4, seed=seed)


def train(folder: Path, base: Path, train_rows: list[Row], dev_rows: list[Row], **options: Any) -> FinetuneResult:
    print_ = fingerprint(base)
    return train_head(
        base, train_rows, dev_rows, options.pop("settings", settings()), run_folder=folder / "run",
        identity={"base": print_.base, "tokenizer": print_.tokenizer, "template": print_.template},
        cache_folder=folder / "features", **options,
    )  # fmt: skip


@pytest.mark.parametrize("head", [{}, {"width": 8, "pooling": "mean"}, {"layer": 1, "class_weights": True}])
def test_a_head_learns_what_the_states_show(tiny_folder: Path, tmp_path: Path, head: dict[str, Any]) -> None:
    found = train(tmp_path, tiny_folder, rows(40), rows(16), settings=settings(**head))
    assert (found.kind, found.weights) == ("head", tmp_path / "run" / "head")
    assert found.losses[-1]["loss"] < found.losses[0]["loss"] / 2
    assert found.dev
    model, tokenizer = load_as_served(tiny_folder, adapter=found.weights, quantization=None)
    from components.evaluation.generation import generate

    unseen = rows(60)[44:]
    answers = generate(model, tokenizer, [row.prompt for row in unseen], max_new_tokens=4)
    assert sum(answer.text == row.answer for answer, row in zip(answers, unseen, strict=True)) >= 14
    assert found.trainable_parameters == sum(p.numel() for p in model.head.network.parameters())
    assert (found.energy["kwh"] is None) == bool(found.energy["unknown"])
    assert found.energy["seconds"] > found.seconds


def test_a_regression_answers_numbers(tiny_folder: Path, tmp_path: Path) -> None:
    wanted = lambda number: f"{(3.0 if number % 2 else -1.0) + number % 4 / 100:.2f}"  # noqa: E731
    found = train(tmp_path, tiny_folder, rows(40, wanted), rows(16, wanted), settings=settings(task="regression"))
    model, tokenizer = load_as_served(tiny_folder, adapter=found.weights, quantization=None)
    from components.data.chat import prompt_ids

    outputs = model.outputs([prompt_ids(tokenizer, row.prompt) for row in rows(6)], 3)
    assert [round(float(value)) for value in outputs[:, 0]] == [-1, 3, -1, 3, -1, 3]
    assert model.head.text(outputs[1]).partition(".")[0] in ("2", "3")


def test_the_same_seed_gives_the_same_bytes_and_another_one_others(tiny_folder: Path, tmp_path: Path) -> None:
    def weights(name: str, seed: int) -> str:
        found = train(tmp_path / name, tiny_folder, rows(24), rows(8), settings=settings(3, seed=seed, width=4))
        return sha256_tree(found.weights)

    assert weights("one", 1) == weights("two", 1) != weights("three", 2)


def test_features_are_computed_once(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = train(tmp_path, tiny_folder, rows(24), rows(8))
    assert first.head is not None
    assert first.head["features_computed"] == 32
    monkeypatch.setattr(head_training, "attach", lambda *_: pytest.fail("the base was loaded"))
    again = train(tmp_path, tiny_folder, rows(24), rows(8), settings=settings(5))
    assert again.head is not None
    assert again.head["features_computed"] == 0
    # what the features took stands in the result, whenever they were computed
    assert again.head["features_seconds"] == first.head["features_seconds"]
    assert again.total_parameters == first.total_parameters


@pytest.mark.parametrize("other", [{"pooling": "mean"}, {"layer": 1}])
def test_other_features_are_not_taken_for_these(tiny_folder: Path, tmp_path: Path, other: dict[str, Any]) -> None:
    train(tmp_path, tiny_folder, rows(24), rows(8))
    found = train(tmp_path, tiny_folder, rows(24), rows(8), settings=settings(3, **other))
    assert found.head is not None
    assert found.head["features_computed"] == 32


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_damaged_features_are_computed_anew_with_a_word(tiny_folder: Path, tmp_path: Path, damage: str) -> None:
    first = train(tmp_path, tiny_folder, rows(24), rows(8))
    (path,) = (tmp_path / "features").rglob("*.safetensors")
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-100]
    else:
        content[-10] ^= 1
    path.write_bytes(bytes(content))
    said: list[str] = []
    again = train(tmp_path, tiny_folder, rows(24), rows(8), say=said.append)
    assert any("damaged" in line and path.name in line for line in said)
    assert again.head is not None
    assert again.head["features_computed"] == 32
    assert sha256_tree(first.weights) == sha256_tree(again.weights)


def test_a_stopped_pass_goes_on_where_it_was(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "SHARD_ROWS", 8)
    whole = train(tmp_path / "whole", tiny_folder, rows(24), rows(32)[24:])
    with pytest.raises(StoppedError) as stopped:
        train(tmp_path, tiny_folder, rows(24), rows(32)[24:], stop=lambda: True)
    assert (stopped.value.step, stopped.value.steps) == (8, 32)
    found = train(tmp_path, tiny_folder, rows(24), rows(32)[24:])
    assert found.head is not None
    assert found.head["features_computed"] == 24
    assert sha256_tree(found.weights) == sha256_tree(whole.weights)


def test_a_saved_head_that_answers_otherwise_is_an_error(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from components.models import head as heads

    whole = heads.save_head

    def wrong(one: Any, folder: Path) -> None:
        whole(replace(one, mean=one.mean + 1), folder)

    monkeypatch.setattr(heads, "save_head", wrong)
    with pytest.raises(TunewrightError, match="other outputs"):
        train(tmp_path, tiny_folder, rows(24), rows(8))


def test_training_that_changes_nothing_is_an_error(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TunewrightError, match="no effect"):
        train(tmp_path, tiny_folder, rows(24), [], settings=replace(settings(1), learning_rate=1e-12))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"settings": settings(layer=3)}, "layer 3 of a base with 2 layers"),
        ({"settings": replace(settings(), max_tokens=16)}, "and finetune.max_tokens is 16"),
        ({"settings": settings(task="regression")}, "is no number"),
    ],
)
def test_what_cannot_be_used_is_told_before_the_base_is_loaded(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr(head_training, "attach", lambda *_: pytest.fail("the base was loaded"))
    with pytest.raises(InputError) as error:
        train(tmp_path, tiny_folder, rows(24), rows(8), **change)
    assert said in str(error.value)


def test_prompts_past_the_positions_are_refused_by_plan_and_training_with_their_line(tmp_path: Path) -> None:
    base = make_tiny(tmp_path / "short", positions=48)
    given = [
        *rows(8),
        replace(rows(1)[0], messages=(Message("user", "singer " * 60), Message("assistant", "dog")), line=9),
    ]
    for refused in (
        lambda: feature_workload(base, given, rows(2), 1024),
        lambda: train(tmp_path, base, given, rows(2)),
    ):
        with pytest.raises(InputError, match=r"line 9: the prompt has .* and the base has 48 positions") as error:
            refused()
        assert "rope_scaling" not in str(error.value.next_step)
    with pytest.raises(InputError, match=r"and finetune\.max_tokens is 16"):
        feature_workload(base, rows(8), [], 16)
    assert feature_workload(base, rows(8), rows(2), 48).longest <= 48


def test_the_trainer_of_weights_refuses_a_head(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="features in the trainer of weights"):
        finetune(tiny_folder, rows(4), [], settings(), run_folder=tmp_path, identity={})


def _fit(dev: bool = True, **changes: Any) -> tuple[Any, Any, torch.nn.Module]:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 6, generator=generator)
    # noise that can be learned by heart but not repeated
    targets = (features[:, 0] + 2 * torch.randn(60, generator=generator) > 0).float()
    values: dict[str, Any] = {
        "classes": 2, "learning_rate": 0.05, "schedule": "constant", "warmup_fraction": 0.0, "weight_decay": 0.0,
        "max_grad_norm": 1.0, "epochs": 60, "batch_rows": 8, "patience": 5, "class_weights": False, "seed": 3,
    }  # fmt: skip
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(6, 32), torch.nn.GELU(), torch.nn.Linear(32, 2))
    held_out = (features[30:], targets[30:]) if dev else None
    found = fit(network, (features[:30], targets[:30]), held_out, FitSettings(**{**values, **changes}))
    return found, held_out, network


def test_the_epoch_with_the_smallest_dev_loss_is_kept_and_ends_training() -> None:
    found, held_out, network = _fit()
    losses = [entry["loss"] for entry in found.dev]
    assert found.best_epoch == losses.index(min(losses)) + 1
    assert found.epochs == found.best_epoch + 5 < 60
    with torch.no_grad():
        kept = float(torch.nn.functional.cross_entropy(network(held_out[0]), held_out[1].long()))
    assert kept == pytest.approx(min(losses), abs=1e-6)


def test_without_patience_or_dev_rows_every_epoch_is_made() -> None:
    assert _fit(patience=0)[0].epochs == 60
    found = _fit(dev=False)[0]
    assert (found.epochs, found.best_epoch, found.dev) == (60, 60, [])
    assert _fit(epochs=0.3)[0].epochs == 1


def test_class_weights_lift_the_rare_class() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = torch.zeros(100)
    targets[:5] = 1.0
    features = torch.randn(100, 4, generator=generator) + 0.5 * targets[:, None]

    def rare(weights: bool) -> int:
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Linear(4, 2))
        fit(
            network, (features, targets), None,
            FitSettings(2, 0.05, "constant", 0.0, 0.0, 1.0, 10, 10, 0, weights, 0),
        )  # fmt: skip
        return int((network(features).argmax(dim=1) == 1).sum())

    assert rare(True) > rare(False)


def test_the_kept_features_are_float32_and_named_by_what_made_them(tiny_folder: Path, tmp_path: Path) -> None:
    train(tmp_path, tiny_folder, rows(24), rows(8))
    (path,) = (tmp_path / "features").rglob("*.safetensors")
    assert load_file(path)["features"].shape == (32, 64)
    assert load_file(path)["features"].dtype == torch.float32
