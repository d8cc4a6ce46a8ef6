"""A project in a folder: a tiny base, a few rows, a recipe."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.models.tiny import make_tiny

SPLITS = {"train": range(24), "dev": range(30, 38), "test": range(40, 52)}


def write_rows(path: Path, numbers: range, answer: str = "SELECT count(*) FROM t{}") -> None:
    lines = [
        json.dumps(
            {
                "messages": [
                    {"role": "system", "content": f"table{number // 4}(id, name)"},
                    {"role": "user", "content": f"How many rows in table {number}?"},
                    {"role": "assistant", "content": answer.format(number // 4)},
                ],
                "metadata": {"subset": ("even", "odd")[number % 2], "id": f"row-{number}"},
            }
        )
        for number in numbers
    ]
    path.write_text("\n".join(lines) + "\n")


def recipe_document(base: Path) -> dict[str, Any]:
    return {
        "name": "tiny",
        "base": str(base),
        "data": {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"},
        "task": {"metric": "exact_match", "max_new_tokens": 4},
        "decision": {
            "dev_rows": 4,
            "candidates": ["zero-shot", "few-shot"],
            "few_shot": 1,
            "min_train_rows": 4,
            "override_reason": "the test wants a finetuning run",
        },
        "memory": {"budget": "4GiB", "dtype": "float32"},
        "finetune": {"method": "lora", "rank": 4, "epochs": 1, "effective_rows": 8, "rows_per_sequence": 4,
                     "checkpoint_steps": 1, "dev_loss_rows": 4},
        "gate": {"min_task_delta": -1.0, "task_interval_excludes_zero": False, "min_rows": 1},
        "release": {"bundle": False},
    }  # fmt: skip


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("base") / "tiny-base")


@pytest.fixture
def project(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write a project and return its recipe; call it again to change values."""
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    for split, numbers in SPLITS.items():
        write_rows(tmp_path / f"{split}.jsonl", numbers)

    def write(**sections: Any) -> Path:
        document = recipe_document(tiny_base)
        for name, values in sections.items():
            if isinstance(values, dict):
                document.setdefault(name, {}).update(values)
            else:
                document[name] = values
        path = tmp_path / "recipe.yaml"
        path.write_text(yaml.safe_dump(document))
        return path

    return write


def call_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str
) -> tuple[int, str, str]:
    """Run `tunewright` in this process; return its exit status and what it wrote to both outputs."""
    from flows.cli import main

    monkeypatch.setattr(sys, "argv", ["tunewright", *arguments])
    status: object = 0
    try:
        main()
    except SystemExit as stop:
        status = stop.code or 0
    captured = capsys.readouterr()
    assert isinstance(status, int)
    return status, captured.out, captured.err
