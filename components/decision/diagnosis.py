"""Why did an answer fail: its form, missing facts, or the model's capability? Counted for the verdict.

form: what was written can't be used as an answer at all (SQL that doesn't run, the right answer in wrong clothes).
facts: usable, wrong, and right once the right context is given; without a corpus that can't be tested, so none.
capability: usable and wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["KINDS", "Diagnosis", "classify_failure", "diagnose"]

KINDS = ("form", "facts", "capability")
EXAMPLES_SHOWN = 3

Classifier = Callable[[str, "Row", Mapping[str, Any]], str]


@dataclass(frozen=True)
class Diagnosis:
    """The failures of one candidate.

    Attributes:
        form: Number of answers that can't be used.
        facts: Number that the right context would have mended.
        capability: Number that are usable and wrong.
        n: Number of rows, right ones included.
        note: What could not be tested.
        examples: Up to 3 of each kind, with `kind`, `id`, `question`, `gold` and `answer`.
    """

    form: int
    facts: int
    capability: int
    n: int
    note: str
    examples: tuple[dict[str, Any], ...]

    @property
    def failures(self) -> int:
        """Return the number of rows that failed."""
        return self.form + self.facts + self.capability


def diagnose(
    metric: str, options: Mapping[str, Any], rows: Sequence[Row], predictions: Sequence[str], scores: Sequence[float]
) -> Diagnosis:
    """Count the failed rows by kind.

    Args:
        metric: Name of the metric that gave the scores.
        options: Its options.
        rows: The rows answered.
        predictions: What was answered.
        scores: Score of each answer; below 1 is a failure.
    """
    counts: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    for row, prediction, score in zip(rows, predictions, scores, strict=True):
        if score >= 1:
            continue
        kind = classify_failure(metric, prediction, row, options)
        counts[kind] += 1
        if counts[kind] <= EXAMPLES_SHOWN:
            question = row.prompt[-1].content if row.prompt else ""
            found = {"kind": kind, "id": row.metadata.get("id", row.line), "question": question}
            examples.append({**found, "gold": row.answer, "answer": prediction})
    note = "facts: no corpus given, so missing facts are counted as capability"
    return Diagnosis(counts["form"], counts["facts"], counts["capability"], len(rows), note, tuple(examples))


def classify_failure(metric: str, prediction: str, row: Row, options: Mapping[str, Any]) -> str:
    """Return the kind of a failed answer, one of KINDS, by the metric's own rule or else by the text alone.

    Args:
        metric: Name of the metric.
        prediction: The failed answer.
        row: The row it answers.
        options: Options of the metric.
    """
    return _CLASSIFIERS.get(metric, _classify_text)(prediction, row, options)


def _classify_text(prediction: str, row: Row, _options: Mapping[str, Any]) -> str:
    """Form if nothing was written, or if the right answer stands in the middle of other words."""
    from components.evaluation.metric_modules.exact_match.exact_match import normalise

    answer = f" {normalise(prediction, ignore_punctuation=True)} "
    gold = f" {normalise(row.answer, ignore_punctuation=True)} "
    return "form" if not answer.strip() or (gold.strip() and gold in answer) else "capability"


def _classify_query(prediction: str, row: Row, options: Mapping[str, Any]) -> str:
    """Form if the query doesn't run on the database, capability if it runs and returns something else."""
    from components.data.text2sql.execution import QueryFailed, extract_query, open_database, run_query
    from components.data.text2sql.schema import load_schemas

    schema = load_schemas(Path(options["schemas"]))[row.metadata["database"]]
    connection = open_database(schema, int(options.get("seed", 0)))
    try:
        run_query(connection, extract_query(prediction))
    except QueryFailed:
        return "form"
    finally:
        connection.close()
    return "capability"


_CLASSIFIERS: Mapping[str, Classifier] = {"execution_match": _classify_query}
