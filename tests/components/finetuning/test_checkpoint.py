"""Which checkpoints stay: whole ones, the one just written always."""

from __future__ import annotations

from pathlib import Path

import torch

from components.finetuning import checkpoint


def save(folder: Path, step: int, keep: int = 2) -> checkpoint.Checkpoint:
    return checkpoint.save(
        folder, step, tensors={"weights": {"w": torch.full((2,), float(step))}}, documents={"state": {"step": step}},
        identity={"data": "d"}, keep=keep,
    )  # fmt: skip


def steps(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def damage(folder: Path) -> None:
    (folder / "weights.safetensors").write_bytes(b"")


def test_the_newest_whole_checkpoints_stay(tmp_path: Path) -> None:
    for step in (20, 40, 60, 80):
        save(tmp_path, step, keep=3)
    assert steps(tmp_path) == {"checkpoint-40", "checkpoint-60", "checkpoint-80"}


def test_damaged_checkpoints_are_removed_and_push_no_whole_one_out(tmp_path: Path) -> None:
    for step in (40, 60):
        damage(save(tmp_path, step).folder)
    written = save(tmp_path, 20)
    assert steps(tmp_path) == {"checkpoint-20"}
    assert checkpoint.latest(tmp_path, {"data": "d"}, print) == written


def test_a_damaged_one_in_between_does_not_count(tmp_path: Path) -> None:
    save(tmp_path, 20)
    damage(save(tmp_path, 40).folder)
    save(tmp_path, 60)
    assert steps(tmp_path) == {"checkpoint-20", "checkpoint-60"}


def test_a_damaged_checkpoint_is_written_again_in_its_place(tmp_path: Path) -> None:
    damage(save(tmp_path, 20).folder)
    again = save(tmp_path, 20)
    assert checkpoint.latest(tmp_path, {"data": "d"}, print) == again
    assert steps(tmp_path) == {"checkpoint-20"}


def test_what_killed_processes_left_half_written_is_removed_and_nothing_else(tmp_path: Path) -> None:
    written = save(tmp_path, 20).folder
    kept = {path.name for path in (written, tmp_path / "adapter", tmp_path / "tensorboard")}
    for name in (*kept, ".checkpoint-40.7", ".adapter.7", ".full.7", ".quantized.7", "untrained"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "half").write_bytes(b"1")
    checkpoint.sweep(tmp_path)
    assert steps(tmp_path) == kept
