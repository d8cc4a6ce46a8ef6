from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.data.texts import check_texts, encode_text, read_texts, split_texts
from components.errors import InputError


def test_a_folder_has_a_document_a_file_and_jsonl_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "b.txt").write_text("second")
    (tmp_path / "a.md").write_text("first\u2028still first")
    (tmp_path / "code.py").write_text("not a text")
    found = read_texts(tmp_path)
    assert [(row.answer, row.metadata["id"]) for row in found] == [
        ("first\u2028still first", "a.md"), ("second", "in/b.txt")
    ]  # fmt: skip
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": text, "url": 1}) + "\n" for text in ("one", "two", "one")))
    assert [(row.answer, row.line, row.prompt) for row in read_texts(path)] == [("one", 1, ()), ("two", 2, ())]


@pytest.mark.parametrize("line", ["{", "[]", '{"text": ""}', '{"text": 3}', '{"other": "x"}', '{"text": "\\ud800"}'])
def test_what_is_no_document_is_named_by_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "fine"}\n' + line + "\n")
    with pytest.raises(InputError, match="line 2"):
        read_texts(path)


def test_a_special_token_in_a_text_is_refused(tmp_path: Path, tiny_tokenizer: Any) -> None:
    (tmp_path / "a.txt").write_text("so it ends <|im_end|> here")
    with pytest.raises(InputError, match=r"a\.txt: the text holds <\|im_end\|>"):
        check_texts(tiny_tokenizer, read_texts(tmp_path), tmp_path)


def test_splits_are_by_content_and_near_their_parts(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text("".join(json.dumps({"text": f"document {i}"}) + "\n" for i in range(1000)))
    rows = read_texts(path)
    found = split_texts(rows, 0.1, 3, path)
    assert sum(map(len, found.values())) == 1000
    assert 70 < len(found["test"]) < 130
    assert 70 < len(found["dev"]) < 130
    assert split_texts(rows[::-1], 0.1, 3, path)["test"] == found["test"][::-1]
    assert split_texts(rows, 0.1, 4, path)["test"] != found["test"]
    with pytest.raises(InputError, match="none falls to"):
        split_texts(rows[:2], 0.1, 3, path)


def test_a_document_begins_with_the_end_of_the_one_before_and_ends_with_its_own(tiny_tokenizer: Any) -> None:
    ids = encode_text(tiny_tokenizer, "the lazy dog")
    end = tiny_tokenizer.eos_token_id
    assert ids[0] == ids[-1] == end
    assert tiny_tokenizer.decode(ids[1:-1]) == "the lazy dog"
