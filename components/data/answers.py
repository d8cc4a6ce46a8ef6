"""Answers that are labels or numbers: what a classification or a regression learns, read off the rows' last message.

Between the rows and a head on a frozen base. What can't be learned or scored (one class, two spellings of a label, a
label that training never saw, text among numbers) is told here, before anything is computed.
"""

from __future__ import annotations

import difflib
import math
import re
import statistics
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from components.errors import InputError

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["HeadTask", "Targets", "check_answers", "number_in", "read_targets"]

HeadTask = Literal["classification", "regression"]
# Numbers of more kinds than this are a scale, and not the names of classes: star ratings have five.
MOST_NUMERIC_LABELS = 10
# Answers of which most are numbers were meant as numbers, and the rest is a slip to be told of.
MOSTLY = 0.9
MOST_DECIMALS = 6
# Of numbers that hardly differ so many leading digits of their spread are answered all the same, up to a float's own.
SPREAD_DIGITS, FLOAT_DECIMALS = 3, 17
# A head computes in float32; beyond this, squares of what it computes with leave a float64 as well.
LARGEST = 1e30
LISTED = 8
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True)
class Targets:
    """What the answers of the training rows are.

    Attributes:
        task: "classification" or "regression".
        labels: The classes, sorted; empty for regression.
        decimals: Digits behind the point with which numbers are answered: the most that a training answer has, up to
            six or what three digits of their standard deviation take.
    """

    task: HeadTask
    labels: tuple[str, ...] = ()
    decimals: int = 0

    def values(self, rows: Sequence[Row]) -> list[float]:
        """Return each row's class number, or its number; the rows are those that were read or checked."""
        if self.task == "regression":
            return [float(row.answer) for row in rows]
        numbers = {label: number for number, label in enumerate(self.labels)}
        return [float(numbers[row.answer.strip()]) for row in rows]


def number_in(text: str) -> float | None:
    """Return the number that a text is, or None; neither infinite nor NaN is one."""
    if not _NUMBER.fullmatch(text.strip()):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


def read_targets(rows: Sequence[Row], task: str, path: Path) -> Targets:
    """Read what the training rows teach.

    Args:
        rows: The training rows.
        task: classification, regression, or auto: regression where the answers are numbers of more than ten kinds.
        path: Their file, for messages.

    Returns:
        The classes, or how numbers are written.

    Raises:
        InputError: A class in two spellings, one class or one number only, texts that are no classes, or an answer that
            is no number among numbers.
    """
    numbers = [number_in(row.answer) for row in rows]
    kinds = {number for number in numbers if number is not None}
    numeric = sum(number is not None for number in numbers)
    if task == "auto":
        many = len(kinds) > MOST_NUMERIC_LABELS
        if many and MOSTLY * len(rows) <= numeric < len(rows):
            first = next(row for row, number in zip(rows, numbers, strict=True) if number is None)
            raise InputError(
                f"{path}, line {first.line}: the answer {_short(first.answer)} is no number, and {numeric} of "
                f"{len(rows)} answers are",
                allowed="numbers throughout (regression), or labels throughout (classification)",
                next_step="correct the row, or set finetune.head",
            )
        task = "regression" if many and numeric == len(rows) else "classification"
    if task == "regression":
        return _numbers(rows, path)
    return _labels(rows, path)


def check_answers(targets: Targets, rows: Sequence[Row], path: Path) -> None:
    """Hold dev or test rows against what training knows.

    Args:
        targets: As `read_targets` gave them.
        rows: The rows.
        path: Their file, for messages.

    Raises:
        InputError: A label that no training row has, or an answer that is no number.
    """
    for row in rows:
        if targets.task == "regression":
            _require_number(row, path)
        elif row.answer.strip() not in targets.labels:
            near = difflib.get_close_matches(row.answer.strip(), targets.labels, n=1, cutoff=0.7)
            raise InputError(
                f"{path}, line {row.line}: the label {_short(row.answer)} is in no training row",
                allowed=_listed(targets.labels),
                next_step=f"did you mean {_short(near[0])}?" if near else "add training rows of it, or leave it out",
            )


def _labels(rows: Sequence[Row], path: Path) -> Targets:
    counts = Counter(row.answer.strip() for row in rows)
    spellings: dict[str, list[str]] = {}
    for label in counts:
        spellings.setdefault(_spelling(label), []).append(label)
    for found in spellings.values():
        if len(found) > 1:
            found.sort(key=lambda label: -counts[label])
            line = next(row.line for row in rows if row.answer.strip() == found[-1])
            raise InputError(
                f"{path}: one label in {len(found)} spellings: "
                + ", ".join(f"{_short(label)} ({counts[label]} rows)" for label in found)
                + f"; line {line} has {_short(found[-1])}",
                allowed="each label in one spelling",
                next_step=f"write {_short(found[0])} throughout, in dev and test as well",
            )
    if len(counts) < 2:
        raise InputError(
            f"{path}: all {len(rows)} training rows have the answer {_short(next(iter(counts)))}",
            allowed="two classes or more",
            next_step="add rows of the other classes",
        )
    if len(counts) > MOST_NUMERIC_LABELS and 2 * len(counts) > len(rows):
        raise InputError(
            f"{path}: {len(counts)} different answers in {len(rows)} training rows are texts, not labels",
            allowed="labels that rows share, or numbers with finetune.head regression",
            next_step="choose a method that writes answers, such as finetune.method lora",
        )
    return Targets("classification", tuple(sorted(counts)))


def _numbers(rows: Sequence[Row], path: Path) -> Targets:
    values = {_require_number(row, path) for row in rows}
    if len(values) < 2:
        raise InputError(
            f"{path}: all {len(rows)} training rows have the answer {next(iter(values)):g}",
            allowed="numbers that differ",
            next_step="add rows with other numbers",
        )
    written = max(-int(Decimal(row.answer.strip()).as_tuple().exponent) for row in rows)
    spread = statistics.pstdev([_require_number(row, path) for row in rows])
    telling = SPREAD_DIGITS - 1 - math.floor(math.log10(spread))
    return Targets("regression", decimals=max(0, min(written, max(MOST_DECIMALS, telling), FLOAT_DECIMALS)))


def _require_number(row: Row, path: Path) -> float:
    value = number_in(row.answer)
    if value is None:
        raise InputError(
            f"{path}, line {row.line}: the answer {_short(row.answer)} is no number, as a regression needs it",
            allowed="a finite number such as 3, -0.25 or 1e-3, and nothing beside it",
            next_step="correct the row, or set finetune.head classification",
        )
    if abs(value) > LARGEST:
        raise InputError(
            f"{path}, line {row.line}: the answer {_short(row.answer)} is too large for a regression",
            allowed=f"numbers from -{LARGEST:g} to {LARGEST:g}",
            next_step="write the answers in a larger unit, or as logarithms",
        )
    return value


def _spelling(label: str) -> str:
    """Return what labels share that differ in case, white space, composition or a full stop only."""
    text = " ".join(unicodedata.normalize("NFKC", label).casefold().split())
    return text.rstrip(".") or text


def _short(text: str) -> str:
    text = " ".join(text.split())
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _listed(labels: Sequence[str]) -> str:
    shown = ", ".join(_short(label) for label in labels[:LISTED])
    return shown if len(labels) <= LISTED else f"{shown} and {len(labels) - LISTED} more"
