"""Problems by line, statistics, and leakage between splits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.data.check import check_file, check_splits, row_statistics, show_row
from components.data.rows import Message, Row
from components.errors import InputError
from components.models.load import load_tokenizer
from components.models.tiny import make_tiny


def row(question: str, answer: str = "yes", line: int = 1, **metadata: str) -> Row:
    return Row((Message("user", question), Message("assistant", answer)), metadata, line)


def test_every_problem_is_listed_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    good = json.dumps(row("a").to_dict())
    path.write_text(f'{good}\n{{bad\n\n{good}\n{{"messages": []}}\n')
    found = check_file(path)
    assert found["rows"] == 2
    assert [(p["line"], p["code"]) for p in found["problems"]] == [(2, "malformed_json"), (5, "no_messages")]
    assert found["format"] == "chat-jsonl"


def test_an_empty_file_is_a_problem_and_a_missing_one_an_error(tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text("\n")
    assert [p["code"] for p in check_file(tmp_path / "e.jsonl")["problems"]] == ["empty"]
    with pytest.raises(InputError, match="no data file"):
        check_file(tmp_path / "absent.jsonl")


def test_statistics_count_rows_subsets_and_repeats() -> None:
    rows = [
        row("abc", "x", subset="one", database="d1"),
        row("abc", "x", subset="one", database="d2"),
        row("abc", "other", subset="two", database="d1"),
        row("b", "x"),
    ]
    found = row_statistics(rows)
    assert (found["rows"], found["turns"]) == (4, 8)
    assert found["subsets"] == {"one": 2, "two": 1}
    assert found["databases"] == {"d1": 2, "d2": 1}
    assert found["duplicates"] == {"rows": 1, "prompts": 1}
    assert found["characters"] == {"prompt": {"mean": 2.5, "max": 3}, "answer": {"mean": 2.0, "max": 5}}
    assert "tokens" not in found


def test_tokens_are_counted_and_shown_as_they_are_trained(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(make_tiny(tmp_path / "tiny"))
    rows = [row("How many singers?", "SELECT 1"), row("b", "x")]
    shown = show_row(rows[0], tokenizer, prompt_loss_weight=0.25)
    trained = "".join(t["text"] for t in shown["tokens"] if t["weight"] == 1.0)
    assert trained == "SELECT 1<|im_end|>"
    assert "".join(t["text"] for t in shown["tokens"]) == shown["text"]
    assert {t["weight"] for t in shown["tokens"][1:]} == {0.25, 1.0}
    counts = row_statistics(rows, tokenizer)["tokens"]
    assert counts["max"] == len(shown["tokens"])
    assert counts["total"] == sum(len(show_row(r, tokenizer)["tokens"]) for r in rows)
    assert counts["trained"] == sum(t["weight"] > 0 for r in rows for t in show_row(r, tokenizer)["tokens"])


def test_without_a_tokenizer_the_text_is_shown_plain() -> None:
    shown = show_row(row("q", "a", line=4))
    assert (shown["line"], shown["text"], shown["tokens"]) == (4, "[user] q\n[assistant] a", [])


def test_splits_without_leakage_pass() -> None:
    check_splits([row("a", database="1")], [row("b", database="2")], [row("c", database="3"), row("d")])


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_an_empty_split_is_refused(empty: int) -> None:
    splits = [[row(name)] for name in "abc"]
    splits[empty] = []
    with pytest.raises(InputError, match=f"the {('train', 'dev', 'test')[empty]} split is empty"):
        check_splits(*splits)


def test_a_database_of_the_test_set_must_not_be_trained_on() -> None:
    with pytest.raises(InputError, match=r"the database '1' is in test \(line 9\) and in train \(line 1\)"):
        check_splits([row("a", database="1")], [row("b", database="2")], [row("c", line=9, database="1")])


def test_the_same_prompt_in_two_splits_is_leakage_whatever_its_letter_case() -> None:
    with pytest.raises(InputError, match="the same prompt is in test"):
        check_splits([row("How  many?")], [row("b")], [row("how many?", "another answer")])
    with pytest.raises(InputError, match="the same prompt is in dev"):
        check_splits([row("x")], [row("x")], [row("c")])


def test_text_that_would_become_a_special_token_is_a_problem_where_the_tokenizer_is_known(tmp_path: Path) -> None:
    rows = [row("a"), row("b<|im_end|>")]
    path = tmp_path / "d.jsonl"
    path.write_text("".join(json.dumps(r.to_dict()) + "\n" for r in rows))
    assert check_file(path)["problems"] == []
    found = check_file(path, load_tokenizer(make_tiny(tmp_path / "tiny")))
    assert found["rows"] == 1
    assert [(p["line"], p["code"]) for p in found["problems"]] == [(2, "control_token")]
    assert "<|im_end|>" in found["problems"][0]["message"]


def test_a_line_with_several_problems_tells_all_and_one_that_is_not_utf8_is_told_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    bad = {
        "messages": [{"role": "user", "content": "a", "name": "x"}, {"role": "robot", "content": 3}],
        "metadata": {"subset": ""},
        "extra": 1,
    }
    good = json.dumps(row("a").to_dict()).encode()
    path.write_bytes(good + b"\n" + json.dumps(bad).encode() + b'\n{"messages": "\xff"}\n' + good)
    found = check_file(path)
    assert found["rows"] == 2
    assert [(p["line"], p["code"]) for p in found["problems"]] == [
        (2, "unknown_key"), (2, "bad_metadata"), (2, "unknown_key"), (2, "bad_role"), (2, "bad_content"),
        (3, "not_utf8"),
    ]  # fmt: skip
    turns = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}, {"role": "assistant", "content": " "}]
    path.write_text(json.dumps({"messages": turns}))
    assert [p["code"] for p in check_file(path)["problems"]] == ["repeated_role", "empty_answer"]
