"""The contest's own fairness: one set of rows, one order, and losses that are the same where settings coincide."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks.finetuning.__main__ import _in_our_order
from benchmarks.finetuning.contestant import CONTESTANTS, Spec
from benchmarks.finetuning.workloads import ROWS_PER_STEP, WORKLOADS, rows_of
from components.data.rows import Message, Row, read_rows
from components.errors import InputError
from components.models.load import load_tokenizer


def write(rows: list[Row], path: Path) -> Path:
    documents = ({"messages": [asdict(m) for m in row.messages], "metadata": dict(row.metadata)} for row in rows)
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [
        Row(
            (
                Message("system", f"table{database}(id, name)"),
                Message("user", f"How many rows have id {number}?"),
                Message("assistant", f"SELECT {'count(*)' * (1 + number % 3)} FROM table{database}"),
            ),
            {"database": f"db{database}"},
        )
        for database in range(4)
        for number in range(12)
    ]
    return write(rows, tmp_path / "train.jsonl")


@pytest.mark.parametrize("workload", WORKLOADS)
def test_every_step_has_rows_of_one_database_to_pack(workload: str, file: Path) -> None:
    rows = rows_of(workload, file, 3, seed=1)
    assert sorted(Counter(row.metadata["database"] for row in rows).values()) == [ROWS_PER_STEP] * 3
    assert len({(row.metadata["database"], row.messages[0].content) for row in rows}) == 3
    assert rows == rows_of(workload, file, 3, seed=1)
    assert [row.metadata for row in rows] != sorted((row.metadata for row in rows), key=str)


def test_long_prompts_hold_the_rows_own_schema(file: Path) -> None:
    for row in rows_of("long", file, 2, seed=1):
        assert f"table{str(row.metadata['database'])[2:]}(" in row.messages[0].content
        assert row.messages[0].content.count("(id, name)") == 3


def test_more_steps_than_databases_are_refused(file: Path) -> None:
    with pytest.raises(InputError, match="at most 4"):
        rows_of("mixed", file, 5, seed=1)


def test_plain_transformers_and_ours_have_the_same_losses(file: Path, tiny_folder: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(tiny_folder)
    rows = rows_of("mixed", file, 3, seed=1)
    ordered = _in_our_order(tokenizer, rows)
    spec = Spec("", "lora", "float32", str(tiny_folder), "", 1)
    ours = CONTESTANTS["Tunewright, one row a sequence"](spec, read_rows(write(rows, tmp_path / "given.jsonl")))
    plain = CONTESTANTS["transformers and peft"](spec, read_rows(write(ordered, tmp_path / "ordered.jsonl")))
    assert len(ours["losses"]) == 3
    assert len(set(ours["losses"])) == 3
    assert ours["losses"] == pytest.approx(plain["losses"], abs=1e-4)
