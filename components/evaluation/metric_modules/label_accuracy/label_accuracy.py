"""Metric `label_accuracy`: the share of answers that are the row's label, with macro-F1 beside it.

An `evaluate` module of our own: the hub's accuracy and F1 take class numbers and want the network.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

import datasets
import evaluate

DESCRIPTION = "1 for an answer that is the row's label, else 0; the metric is the mean. Macro-F1 stands beside it."
INPUTS = """
Args:
    predictions: What the model answered, one text a row.
    references: The labels.
Returns:
    label_accuracy: Mean of the scores.
    macro_f1: Mean over the labels of the references of 2 TP / (2 TP + FP + FN).
    scores: 1.0 or 0.0 for each answer.
"""
# What writers put round a label without meaning another one.
AROUND = " \t.,:;!?\"'`*"


def normalise(text: str) -> str:
    """Return the text in Unicode form NFKC, in lower case, single-spaced, without quotes and stops round it."""
    text = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return text.strip(AROUND) or text


class LabelAccuracy(evaluate.Metric):
    """Compare labels, not caring for case, white space and what stands round them."""

    # means over all rows that no mean of scores by row can give
    SUMMARIES = ("macro_f1",)

    def _info(self) -> evaluate.MetricInfo:
        text = datasets.Value("string")
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation="",
            inputs_description=INPUTS,
            features=datasets.Features({"predictions": text, "references": text}),
        )

    def _compute(self, predictions: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
        pairs = [(normalise(p), normalise(r)) for p, r in zip(predictions, references, strict=True)]
        scores = [float(predicted == gold) for predicted, gold in pairs]
        labels = sorted({gold for _, gold in pairs})
        return {
            "label_accuracy": sum(scores) / len(scores) if scores else 0.0,
            "macro_f1": sum(_f1(pairs, label) for label in labels) / len(labels) if labels else 0.0,
            "scores": scores,
        }


def _f1(pairs: Sequence[tuple[str, str]], label: str) -> float:
    both = sum(predicted == gold == label for predicted, gold in pairs)
    either = sum((predicted == label) + (gold == label) for predicted, gold in pairs)
    return 2 * both / either
