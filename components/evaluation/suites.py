"""General suites: what a model can do besides the task. Loaded as seeded samples, answered by likelihood.

A score is tied to a digest of exactly what was asked: the suite's items, the sample's ids and the prompt format. The
format is plain text, as the suites' papers use it: a small chat model gains nothing from its template here.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.evaluation.likelihood import ChoiceItem, score_choices
from components.evaluation.statistics import wilson
from components.evaluation.suite_data import SUITES, suite_file, suite_record
from components.files import digest_of

__all__ = [
    "FORMATS",
    "PROMPT_FORMAT",
    "Suite",
    "SuiteItem",
    "SuiteResult",
    "check_suites",
    "known_suites",
    "load_suite",
    "run_suite",
]

# A change of a format's text is a new name: scores of different formats must not be compared.
FORMATS = ("plain-1", "chat-1")
PROMPT_FORMAT = "plain-1"


@dataclass(frozen=True)
class SuiteItem:
    """One question: its stable id, text, choices and the index of the right choice."""

    id: str
    question: str
    choices: tuple[str, ...]
    gold: int


@dataclass(frozen=True)
class Suite:
    """A sample of a suite.

    Attributes:
        name: Name of the suite.
        digest: Hex sha256 over the suite's file, the ids sampled and the prompt format.
        version: Version of the suite's data.
        metric: Name of its metric.
        licence: Terms of its data.
        items: The items sampled, in the order of the file.
        available: Number of items in the whole suite.
        seed: Seed of the sample.
        prompt_format: One of FORMATS.
    """

    name: str
    digest: str
    version: int
    metric: str
    licence: str
    items: tuple[SuiteItem, ...]
    available: int
    seed: int
    prompt_format: str = PROMPT_FORMAT


@dataclass(frozen=True)
class SuiteResult:
    """What a model scored: for each item whether it was right, and the mean with its 95 % interval."""

    suite: str
    digest: str
    metric: str
    correct: tuple[bool, ...]
    score: float
    low: float
    high: float
    seconds: float

    @property
    def n(self) -> int:
        """Return the number of items."""
        return len(self.correct)

    def to_dict(self) -> dict[str, Any]:
        """Return the keys that `evaluate REF` prints for a suite."""
        return {
            "suite": self.suite,
            "digest": self.digest,
            "n": self.n,
            "metric": self.metric,
            "score": self.score,
            "low": self.low,
            "high": self.high,
            "seconds": self.seconds,
        }


def known_suites() -> list[str]:
    """Return the names of the suites, sorted."""
    return sorted(SUITES)


def check_suites(names: Sequence[str]) -> None:
    """Refuse a suite that doesn't exist, without fetching any.

    Raises:
        InputError: The first name that is none.
    """
    for name in names:
        if name not in SUITES:
            raise InputError(
                f"unknown suite {name!r}",
                allowed=", ".join(known_suites()),
                next_step="name one of these: evaluation.suites in a recipe, --suite on the command line",
            )


def load_suite(
    name: str, rows: int, seed: int = 0, *, cache: Path | None = None, prompt_format: str = PROMPT_FORMAT
) -> Suite:
    """Draw a sample of a suite; the first time its data is fetched.

    Args:
        name: One of `known_suites()`.
        rows: Number of items; all of them where the suite has fewer.
        seed: Seed of the sample.
        cache: Download folder; the per-user cache when not given.
        prompt_format: One of FORMATS.

    Returns:
        The sample. The same arguments give the same items and digest.

    Raises:
        InputError: An unknown suite or format, or fewer than one row.
    """
    check_suites((name,))
    if rows < 1:
        raise InputError(f"suite {name}: {rows} rows", allowed="1 or more")
    if prompt_format not in FORMATS:
        raise InputError(f"unknown prompt format {prompt_format!r}", allowed=", ".join(FORMATS))
    record = suite_record(name, cache)
    lines = suite_file(name, cache).read_text().splitlines()
    chosen = sorted(random.Random(f"{name}/{seed}").sample(range(len(lines)), min(rows, len(lines))))
    items = tuple(_item(json.loads(lines[index])) for index in chosen)
    digest = digest_of({"file": record["digest"], "ids": [item.id for item in items], "format": prompt_format})
    return Suite(
        name,
        digest,
        int(record["version"]),
        str(record["metric"]),
        str(record["licence"]),
        items,
        len(lines),
        seed,
        prompt_format,
    )


def run_suite(
    model: Any,
    tokenizer: Any,
    suite: Suite,
    *,
    batch_size: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> SuiteResult:
    """Answer a suite's sample: an item is right if its gold choice is the likeliest per character.

    Args:
        model: A causal language model, bare or wrapped by peft.
        tokenizer: Its tokenizer.
        suite: The sample.
        batch_size: Most items in one pass.
        progress: Called with (finished, all) after each batch.

    Returns:
        Correctness of every item, in the sample's order, with score, interval and seconds.
    """
    started = time.perf_counter()
    asked = [_asked(tokenizer, item, suite.prompt_format) for item in suite.items]
    chosen = score_choices(model, tokenizer, asked, batch_size=batch_size, progress=progress)
    correct = tuple(choice == item.gold for choice, item in zip(chosen, suite.items, strict=True))
    low, high = wilson(sum(correct), len(correct))
    seconds = time.perf_counter() - started
    return SuiteResult(suite.name, suite.digest, suite.metric, correct, sum(correct) / len(correct), low, high, seconds)


def _item(value: dict[str, Any]) -> SuiteItem:
    return SuiteItem(value["id"], value["question"], tuple(value["choices"]), int(value["answer"]))


def _asked(tokenizer: Any, item: SuiteItem, prompt_format: str) -> ChoiceItem:
    if prompt_format == "plain-1":
        prompt = f"Question: {item.question}\nAnswer:"
        return ChoiceItem(prompt, tuple(f" {choice}" for choice in item.choices), item.gold)
    turns = [{"role": "user", "content": item.question}]
    prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return ChoiceItem(prompt, item.choices, item.gold)
