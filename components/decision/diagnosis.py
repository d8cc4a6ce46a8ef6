"""Why did an answer fail: its form, missing facts, or the model's capability? Counted for the verdict.

form: what was written can't be an answer at all: SQL that doesn't run, or a text without the shape that every training
answer has (form.py), or the right answer in wrong clothes.
facts: well-formed, wrong, and right once the right context is given; without a corpus that can't be tested, so none.
capability: well-formed and wrong, with the right context too.

A failure of form may lack facts as well. So those that the context mends are counted beside, and so is what still fails
with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.decision.form import AnswerForm

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["KINDS", "ContextAnswers", "Diagnosis", "classify_failure", "diagnose", "malformed"]

KINDS = ("form", "facts", "capability")
EXAMPLES_SHOWN = 3


@dataclass(frozen=True)
class ContextAnswers:
    """The same rows answered with context.

    Attributes:
        name: The candidate that gave the context.
        gold: The passages are those that are known to hold the answers, not those that were found.
        predictions: One text a row.
        scores: One number a row.
    """

    name: str
    gold: bool
    predictions: Sequence[str]
    scores: Sequence[float]


@dataclass(frozen=True)
class Diagnosis:
    """The failures of one candidate.

    Attributes:
        form: Number of answers that can't be used.
        facts: Number of well-formed ones that the context mends.
        capability: Number of well-formed ones that are wrong even then.
        n: Number of rows, right ones included.
        note: How facts were tested, or that they were not.
        examples: Up to 3 of each kind, with `kind`, `id`, `question`, `gold` and `answer`.
        form_mended: How many of `form` the context mends: the answer's shape was lost with its content.
        context_form: Failures of form among all rows answered with context.
        context_capability: Other failures among them.
    """

    form: int
    facts: int
    capability: int
    n: int
    note: str
    examples: tuple[dict[str, Any], ...]
    form_mended: int = 0
    context_form: int = 0
    context_capability: int = 0

    @property
    def mended(self) -> int:
        """Return the number of failures that the context mends, whatever their form."""
        return self.facts + self.form_mended


def diagnose(
    metric: str,
    options: Mapping[str, Any],
    rows: Sequence[Row],
    predictions: Sequence[str],
    scores: Sequence[float],
    *,
    form: AnswerForm | None = None,
    context: ContextAnswers | None = None,
) -> Diagnosis:
    """Count the failed rows by kind.

    Args:
        metric: Name of the metric that gave the scores.
        options: Its options.
        rows: The rows answered.
        predictions: What was answered.
        scores: Score of each answer; below 1 is a failure.
        form: The form of the training answers.
        context: What was answered with the right context.
    """
    counts: Counter[str] = Counter()
    examples: list[dict[str, Any]] = []
    for index, (row, prediction, score) in enumerate(zip(rows, predictions, scores, strict=True)):
        if score >= 1:
            continue
        mended = context is not None and context.scores[index] >= 1
        kind = classify_failure(metric, prediction, row, options, form, mended=mended)
        counts[kind] += 1
        counts["form mended"] += kind == "form" and mended
        if counts[kind] <= EXAMPLES_SHOWN:
            question = row.prompt[-1].content if row.prompt else ""
            found = {"kind": kind, "id": row.metadata.get("id", row.line), "question": question}
            found |= {"gold": row.answer, "answer": prediction}
            examples.append(found if context is None else {**found, "with_context": context.predictions[index]})
    after = _after(metric, options, rows, context, form) if context else Counter()
    return Diagnosis(
        counts["form"],
        counts["facts"],
        counts["capability"],
        len(rows),
        _note(context),
        tuple(examples),
        counts["form mended"],
        after["form"],
        after["capability"],
    )


def classify_failure(
    metric: str,
    prediction: str,
    row: Row,
    options: Mapping[str, Any],
    form: AnswerForm | None = None,
    *,
    mended: bool = False,
) -> str:
    """Return the kind of a failed answer, one of KINDS.

    Args:
        metric: Name of the metric.
        prediction: The failed answer.
        row: The row it answers.
        options: Options of the metric.
        form: The form of the training answers.
        mended: The same question was answered rightly with context.
    """
    if malformed(metric, prediction, row, options, form):
        return "form"
    return "facts" if mended else "capability"


def malformed(
    metric: str, prediction: str, row: Row, options: Mapping[str, Any], form: AnswerForm | None = None
) -> bool:
    """Tell whether a failed answer is none at all, by the metric's own rule or else by the text and its form."""
    if metric == "execution_match":
        return not _query_runs(prediction, row, options)
    return _wrong_clothes(prediction, row) or (form is not None and form.problem(prediction) is not None)


def _wrong_clothes(prediction: str, row: Row) -> bool:
    """Tell whether nothing was written, or the right answer stands in the middle of other words."""
    from components.evaluation.metric_modules.exact_match.exact_match import normalise

    answer = f" {normalise(prediction, ignore_punctuation=True)} "
    gold = f" {normalise(row.answer, ignore_punctuation=True)} "
    return not answer.strip() or (bool(gold.strip()) and gold in answer)


def _query_runs(prediction: str, row: Row, options: Mapping[str, Any]) -> bool:
    from components.data.text2sql.execution import extract_query

    schemas = Path(options["schemas"])
    changed = schemas.stat().st_mtime_ns if schemas.exists() else 0
    query = extract_query(prediction)
    return _runs(query, row.metadata["database"], int(options.get("seed", 0)), schemas, changed)


@lru_cache(maxsize=4096)
def _runs(query: str, database: str, seed: int, schemas: Path, changed: int) -> bool:
    """Run a query on a database that is built for it; the same answer is asked about more than once."""
    from components.data.text2sql.execution import QueryFailed, open_database, run_query

    connection = open_database(_schemas(schemas, changed)[database], seed)
    try:
        run_query(connection, query)
    except QueryFailed:
        return False
    finally:
        connection.close()
    return True


@lru_cache(maxsize=4)
def _schemas(path: Path, changed: int) -> Mapping[str, Any]:  # noqa: ARG001  a part of the cache's key
    from components.data.text2sql.schema import load_schemas

    return load_schemas(path)


def _after(
    metric: str, options: Mapping[str, Any], rows: Sequence[Row], context: ContextAnswers, form: AnswerForm | None
) -> Counter[str]:
    answered = zip(rows, context.predictions, context.scores, strict=True)
    return Counter(classify_failure(metric, text, row, options, form) for row, text, score in answered if score < 1)


def _note(context: ContextAnswers | None) -> str:
    if context is None:
        return "facts: no corpus given, so missing facts are counted as capability"
    if context.gold:
        return f"facts: tested with the gold passages ({context.name})"
    return f"facts: tested with the passages that were found ({context.name}); one that retrieval misses is not counted"
