"""Metric `execution_match`: the share of predicted queries that return what the human query returns.

An `evaluate` module, loaded by its local path; the logic is in components/data/text2sql/execution.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import evaluate

from components.data.text2sql.execution import DATABASES, score
from components.data.text2sql.schema import load_schemas

DESCRIPTION = (
    "1 for a prediction whose query returns, on every one of several seeded SQLite databases, the rows of the "
    "reference query (in its order if it has an ORDER BY), else 0; the metric is the mean."
)
INPUTS = """
Args:
    predictions: What the model wrote, one text a question; the query is taken out of code fences and prose.
    references: The human queries.
    databases: Names of the databases that the questions are about.
    schemas: Path of databases.json, as the data stages write it.
    seeded_databases: On how many differently filled databases both must agree.
    seed: Seed of the first of them.
Returns:
    execution_match: Mean of the scores.
    scores: 1.0 or 0.0 for each prediction.
"""
CITATION = "Zhong, Yu, Klein 2020: Semantic Evaluation for Text-to-SQL with Distilled Test Suites (EMNLP)"


class ExecutionMatch(evaluate.Metric):
    """Compare what two queries return instead of how they are written."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": text, "references": text, "databases": text}),
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        databases: Sequence[str],
        schemas: str,
        seeded_databases: int = DATABASES,
        seed: int = 0,
    ) -> dict[str, Any]:
        known = load_schemas(Path(schemas))
        scores = [
            score(predicted, gold, database, known, databases=seeded_databases, seed=seed)
            for predicted, gold, database in zip(predictions, references, databases, strict=True)
        ]
        return {"execution_match": sum(scores) / len(scores) if scores else 0.0, "scores": scores}
