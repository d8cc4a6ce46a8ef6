"""Metric `number_closeness`: how near an answered number is to the row's, with mean absolute error and Spearman's rank
correlation beside it (Spearman 1904).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

DESCRIPTION = (
    "1 - |answer - reference| / scale, not below 0, and 0 for an answer without a number; the metric is the mean. It "
    "is mean absolute error in units of the scale, turned so that more is better. The error itself and Spearman's rank "
    "correlation stand beside it."
)
INPUTS = """
Args:
    predictions: What the model answered, one text a row; its first number counts.
    references: The right numbers.
    scale: The difference that scores 0, such as the range of the numbers.
Returns:
    number_closeness: Mean of the scores.
    answered: Share of answers with a number.
    mean_absolute_error: Over those; left out where there are none.
    spearman: Over those; left out where one side has one value only.
    scores: A number from 0 to 1 for each answer.
"""
NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?")


class NumberCloseness(evaluate.Metric):
    """Compare numbers."""

    # what no mean of scores by row can give
    SUMMARIES = ("answered", "mean_absolute_error", "spearman")

    @staticmethod
    def check_options(scale: float) -> None:
        """Refuse a scale that measures nothing.

        Raises:
            ValueError: It is no number above 0.
        """
        number = isinstance(scale, int | float) and not isinstance(scale, bool)
        if not (number and math.isfinite(scale) and scale > 0):
            raise ValueError(f"scale is {scale!r}, and must be a number above 0")

    @staticmethod
    def check_reference(reference: str) -> None:
        """Refuse a right answer that is no number.

        Raises:
            ValueError: It is text, infinite or NaN, or a number with something beside it.
        """
        if NUMBER.fullmatch(reference.strip()) is None or not math.isfinite(float(reference)):
            raise ValueError(f"the right answer {reference[:40]!r} is no finite number")

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str], scale: float) -> dict[str, Any]:
        pairs = [(_first_number(p), float(r)) for p, r in zip(predictions, references, strict=True)]
        scores = [0.0 if p is None else max(0.0, 1 - abs(p - gold) / scale) for p, gold in pairs]
        answered = [(p, gold) for p, gold in pairs if p is not None]
        found: dict[str, Any] = {
            "number_closeness": sum(scores) / len(scores) if scores else 0.0,
            "answered": len(answered) / len(pairs) if pairs else 0.0,
            "scores": scores,
        }
        if answered:
            found["mean_absolute_error"] = sum(abs(p - gold) for p, gold in answered) / len(answered)
        if all(len(set(side)) > 1 for side in zip(*answered, strict=True)) and answered:
            from scipy.stats import spearmanr

            found["spearman"] = float(spearmanr(*zip(*answered, strict=True)).statistic)
        return found


def _first_number(text: str) -> float | None:
    found = NUMBER.search(text)
    value = float(found.group()) if found else math.nan
    return value if math.isfinite(value) else None
