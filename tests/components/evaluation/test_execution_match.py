"""The shipped metric module `execution_match`, loaded by path as `evaluate` does, without a network."""

from __future__ import annotations

import json
from pathlib import Path

import evaluate
import pytest

from components.data.rows import Message, Row
from components.evaluation import metrics

MODULE = Path(metrics.__file__).parent / "metric_modules" / "execution_match"


@pytest.fixture
def schemas(tmp_path: Path) -> Path:
    columns = [{"name": "Name", "type": "text"}, {"name": "Age", "type": "number", "literals": [30]}]
    table = {"name": "singer", "primary_key": None, "facts": [], "columns": columns}
    path = tmp_path / "databases.json"
    path.write_text(json.dumps({"version": 1, "databases": {"music": {"tables": [table], "foreign_keys": []}}}))
    return path


def test_it_loads_offline_and_scores_each_prediction(
    schemas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_EVALUATE_OFFLINE", "1")
    module = evaluate.load(str(MODULE), keep_in_memory=True, cache_dir=str(tmp_path / "cache"))
    gold = "SELECT Name FROM singer WHERE Age > 30"
    found = module.compute(
        predictions=["```sql\nSELECT Name FROM singer WHERE Age >= 31;\n```", "SELECT Name FROM singer"],
        references=[gold, gold],
        databases=["music", "music"],
        schemas=str(schemas),
    )
    assert found == {"execution_match": 0.5, "scores": [1.0, 0.0]}


def test_the_project_scores_rows_with_it(schemas: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))
    messages = (Message("user", "How many?"), Message("assistant", "SELECT count(*) FROM singer"))
    rows = [Row(messages, {"database": "music"}, line) for line in (1, 2)]
    options = {"schemas": str(schemas), "seeded_databases": 2}
    predictions = ["select COUNT(1) from singer", "SELECT 3"]
    assert metrics.score("execution_match", predictions, rows, options) == [1.0, 0.0]
