"""Stage `sentiment-prepare`: texts as chat rows, split so that no review, article or tweet is in two splits.

The same texts twice: with a label (positive, neutral, negative) and with the valence. Deterministic: the same raw
files and seed give the same bytes.
"""

from __future__ import annotations

import argparse
import html
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.data.rows import Message, Row, write_rows
from components.data.sentiment.fetch import DOMAINS
from components.errors import InputError

__all__ = ["LABEL_INSTRUCTION", "VALENCE_INSTRUCTION", "Text", "label_of", "prepare", "read_texts", "split_texts"]

LABEL_INSTRUCTION = "Is the sentiment of this text positive, neutral or negative? Answer with one of these words."
VALENCE_INSTRUCTION = (
    "Rate the sentiment of this text from -4.0 (most negative) to 4.0 (most positive). Answer with one number."
)
SPLITS = ("train", "dev", "test")
# A mean rating nearer to zero than one step of the scale is no clear sentiment.
NEUTRAL = 1.0


@dataclass(frozen=True)
class Text:
    """One rated text.

    Attributes:
        domain: Where it is from.
        identifier: Its number in the published file.
        valence: Mean of its ratings, from -4 to 4.
        text: What was rated.
    """

    domain: str
    identifier: str
    valence: float
    text: str

    @property
    def group(self) -> str:
        """The review or article that a snippet is from: "12_3" is the third of the twelfth."""
        return f"{self.domain}-{self.identifier.partition('_')[0]}"


def read_texts(path: Path, domain: str) -> list[Text]:
    """Read one published file; a text that stands twice, in whatever case, is kept once.

    Raises:
        InputError: A line that isn't number, valence and text.
    """
    found: dict[str, Text] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        identifier, _, rest = line.partition("\t")
        valence, separator, text = rest.partition("\t")
        try:
            value = float(valence)
        except ValueError:
            separator = ""
        if not separator:
            raise InputError(f"{path}, line {number} is not number, valence and text, parted by tabs")
        text = " ".join(html.unescape(text).split())
        if text:
            found.setdefault(text.casefold(), Text(domain, identifier, value, text))
    return list(found.values())


def label_of(valence: float) -> str:
    """Return the label of a mean rating."""
    if abs(valence) < NEUTRAL:
        return "neutral"
    return "positive" if valence > 0 else "negative"


def split_texts(texts: list[Text], sizes: Mapping[str, int], seed: int) -> dict[str, list[Text]]:
    """Divide one domain's texts by the review or article that they are from, then draw as many as are wanted.

    Args:
        texts: The domain's.
        sizes: Texts of each split.
        seed: Seed of the draw.

    Returns:
        The texts of each split, in published order.

    Raises:
        InputError: Fewer texts than are wanted.
    """
    draw = random.Random(f"{seed} {texts[0].domain}")
    groups = sorted({text.group for text in texts})
    draw.shuffle(groups)
    ends = [len(groups) * (place + 1) // len(SPLITS) for place in range(len(SPLITS))]
    divided = {}
    for name, start, end in zip(SPLITS, [0, *ends[:-1]], ends, strict=True):
        members = set(groups[start:end])
        there = [place for place, text in enumerate(texts) if text.group in members]
        if len(there) < sizes[name]:
            raise InputError(
                f"{texts[0].domain} has {len(there)} texts for {name}, not {sizes[name]}",
                next_step="change `sentiment` in params.yaml",
            )
        divided[name] = [texts[place] for place in sorted(draw.sample(there, sizes[name]))]
    return divided


def prepare(raw: Path, out: Path, parameters: Mapping[str, Any]) -> None:
    """Write the splits, with labels and with numbers.

    Args:
        raw: Folder with a file for each domain.
        out: Folder of `labels/` and `valence/`, each with train.jsonl, dev.jsonl and test.jsonl.
        parameters: `sentiment` of params.yaml: seed, and texts of each domain for train, dev and test.

    Raises:
        InputError: A file that can't be used, or fewer texts than are wanted.
    """
    splits: dict[str, list[Text]] = {name: [] for name in SPLITS}
    sizes = {name: int(parameters[name]) for name in SPLITS}
    for domain in DOMAINS:
        texts = read_texts(raw / f"{domain}.txt", domain)
        for name, members in split_texts(texts, sizes, parameters["seed"]).items():
            splits[name] += members
    for name, texts in splits.items():
        write_rows(out / "labels" / f"{name}.jsonl", [_row(t, LABEL_INSTRUCTION, label_of(t.valence)) for t in texts])
        write_rows(out / "valence" / f"{name}.jsonl", [_row(t, VALENCE_INSTRUCTION, f"{t.valence:.1f}") for t in texts])


def _row(text: Text, instruction: str, answer: str) -> Row:
    # a rating that rounds to zero from below is zero
    answer = "0.0" if answer == "-0.0" else answer
    messages = (Message("system", instruction), Message("user", text.text), Message("assistant", answer))
    return Row(messages, {"subset": text.domain, "group": text.group, "id": f"{text.domain}-{text.identifier}"})


def main() -> None:
    """Run the stage: `python -m components.data.sentiment.prepare --raw FOLDER --out FOLDER --params params.yaml`."""
    import yaml

    parser = argparse.ArgumentParser(description=prepare.__doc__)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--params", type=Path, required=True)
    arguments = parser.parse_args()
    prepare(arguments.raw, arguments.out, yaml.safe_load(arguments.params.read_text())["sentiment"])


if __name__ == "__main__":
    main()
