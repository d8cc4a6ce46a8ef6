"""What shape must an answer have? Learned from the training answers, so that a failure of form can be told apart.

A shape is claimed only where every training answer has it: a closed set of labels, JSON with certain keys, a common
beginning or end, or one of a few patterns of letters, digits and signs. Where answers are free text only length is
left. A metric that knows better (does the query run?) is asked first, in diagnosis.py.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from components.data.packing import common_prefix

__all__ = ["AnswerForm", "learn_form"]

# Fewer answers than this share a beginning or a pattern by accident.
MIN_ANSWERS = 10
MAX_LABELS = 20
MAX_PATTERNS = 3
# An answer with more words than this multiple of the longest training answer is another style: it explains or rambles.
LENGTH_FACTOR = 2


@dataclass(frozen=True)
class AnswerForm:
    """The shape that all training answers have; a part that they don't share is empty.

    Attributes:
        labels: The closed set that they come from, normalised.
        json_keys: Keys that every one has, where each is a JSON object; None where they aren't.
        prefix: How every one begins.
        suffix: How every one ends.
        patterns: The few patterns of letters (a), digits (9) and signs.
        longest_words: Words of the longest one; 0 where no answer was seen.
    """

    labels: frozenset[str] = frozenset()
    json_keys: frozenset[str] | None = None
    prefix: str = ""
    suffix: str = ""
    patterns: frozenset[str] = frozenset()
    longest_words: int = 0

    def problem(self, answer: str) -> str | None:
        """Say what is wrong with the form of an answer, or nothing.

        Args:
            answer: What the model wrote.
        """
        text = answer.strip()
        if not text:
            return "nothing was written"
        if self.labels:
            return None if _plain(text) in self.labels else "not one of the labels"
        if self.json_keys is not None:
            return _json_problem(text, self.json_keys)
        folded = text.casefold()
        if not (folded.startswith(self.prefix.casefold()) and folded.endswith(self.suffix.casefold())):
            return f"not of the form {self.prefix}…{self.suffix}"
        if self.patterns and _pattern(text) not in self.patterns:
            return f"not of the pattern {', '.join(sorted(self.patterns))}"
        if self.longest_words and len(text.split()) > LENGTH_FACTOR * self.longest_words:
            return f"{len(text.split())} words where no answer has more than {self.longest_words}"
        return None


def learn_form(answers: Sequence[str]) -> AnswerForm:
    """Find what all answers have in common.

    Args:
        answers: The training answers.

    Returns:
        Their form; with fewer than 10 of them only what length they have.
    """
    texts = [answer.strip() for answer in answers if answer.strip()]
    longest = max((len(text.split()) for text in texts), default=0)
    if len(texts) < MIN_ANSWERS:
        return AnswerForm(longest_words=longest)
    labels = frozenset(map(_plain, texts))
    # five answers a label: names that repeat now and then are not a closed set
    if len(labels) <= MAX_LABELS and len(texts) >= 5 * len(labels):
        return AnswerForm(labels=labels, longest_words=longest)
    objects = [_parsed(text) for text in texts]
    if all(isinstance(value, dict) for value in objects):
        return AnswerForm(json_keys=frozenset.intersection(*(frozenset(o) for o in objects)), longest_words=longest)
    patterns = frozenset(map(_pattern, texts))
    # a word or number that begins alike in every answer is no form: a shared part ends with a sign or a space
    prefix = re.sub(r"\w+$", "", _common(texts))
    suffix = re.sub(r"^\w+", "", _common([text[len(prefix) :][::-1] for text in texts])[::-1])
    return AnswerForm(
        prefix=prefix,
        suffix=suffix,
        patterns=patterns if len(patterns) <= MAX_PATTERNS else frozenset(),
        longest_words=longest,
    )


def _plain(text: str) -> str:
    # the module of a metric imports the evaluate library
    from components.evaluation.metric_modules.exact_match.exact_match import normalise

    return normalise(text)


def _common(texts: Sequence[str]) -> str:
    return texts[0][: common_prefix([[ord(sign) for sign in text] for text in texts])]


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _json_problem(text: str, keys: frozenset[str]) -> str | None:
    value = _parsed(text)
    if not isinstance(value, dict):
        return "not a JSON object"
    missing = sorted(keys - set(value))
    return f"the key {missing[0]!r} is missing" if missing else None


def _pattern(text: str) -> str:
    """Return the text with every run of letters as a, of digits as 9, of white space as one space."""
    return re.sub(r"\s+", " ", re.sub(r"\d+", "9", re.sub(r"[^\W\d_]+", "a", text)))
