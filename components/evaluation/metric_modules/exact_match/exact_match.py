"""Metric `exact_match`: the share of predictions that equal their reference once both are normalised.

An `evaluate` module of our own: the one of that name on the hub wants the network.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

DESCRIPTION = "1 for a prediction that equals its reference after normalisation, else 0; the metric is the mean."
INPUTS = """
Args:
    predictions: What the model wrote, one text a row.
    references: The right answers.
    ignore_case: Compare in lower case (default true).
    ignore_punctuation: Leave out punctuation and symbols (default false).
Returns:
    exact_match: Mean of the scores.
    scores: 1.0 or 0.0 for each prediction.
"""


def normalise(text: str, *, ignore_case: bool = True, ignore_punctuation: bool = False) -> str:
    """Return the text in Unicode form NFKC with single spaces, in lower case and without punctuation where asked."""
    text = unicodedata.normalize("NFKC", text)
    if ignore_case:
        text = text.casefold()
    if ignore_punctuation:
        text = "".join(" " if unicodedata.category(sign)[0] in "PS" else sign for sign in text)
    return re.sub(r"\s+", " ", text).strip()


class ExactMatch(evaluate.Metric):
    """Compare texts, not caring for white space."""

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(
        self,
        predictions: Sequence[str],
        references: Sequence[str],
        ignore_case: bool = True,
        ignore_punctuation: bool = False,
    ) -> dict[str, Any]:
        scores = [
            float(
                normalise(predicted, ignore_case=ignore_case, ignore_punctuation=ignore_punctuation)
                == normalise(gold, ignore_case=ignore_case, ignore_punctuation=ignore_punctuation)
            )
            for predicted, gold in zip(predictions, references, strict=True)
        ]
        return {"exact_match": sum(scores) / len(scores) if scores else 0.0, "scores": scores}
