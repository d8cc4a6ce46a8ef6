"""What counts as a row, and what a person is told where a line is none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.data.rows import Message, Row, RowProblem, parse_row, read_rows, write_rows
from components.errors import InputError

USER = {"role": "user", "content": "How many?"}
ANSWER = {"role": "assistant", "content": "SELECT 1"}


def line(*messages: object, **more: object) -> str:
    return json.dumps({"messages": list(messages), **more})


def test_the_answer_is_the_last_assistant_message_and_the_prompt_all_before_it() -> None:
    row = parse_row(line({"role": "system", "content": "s"}, USER, ANSWER, USER, ANSWER, metadata={"id": "a"}), 7)
    assert row.answer == "SELECT 1"
    assert [m.role for m in row.prompt] == ["system", "user", "assistant", "user"]
    assert (row.line, row.metadata) == (7, {"id": "a"})


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("{not json", "malformed_json"),
        ('{"messages": [], "metadata": {"x": NaN}}', "malformed_json"),
        ("[" * 100_000, "malformed_json"),
        ("[1]", "not_an_object"),
        ("{}", "no_messages"),
        (line(), "no_messages"),
        (line(USER), "no_answer"),
        (line(USER, {"role": "assistant", "content": "  "}), "empty_answer"),
        (line(ANSWER), "no_question"),
        (line("hello", ANSWER), "bad_message"),
        (line({"role": "robot", "content": "x"}, ANSWER), "bad_role"),
        (line({"role": "user", "content": 3}, ANSWER), "bad_content"),
        (line({"role": "user", "content": "\ud800"}, ANSWER), "bad_text"),
        (line(USER, {"role": "system", "content": "s"}, ANSWER), "late_system"),
        (line(USER, ANSWER, metadata=[1]), "bad_metadata"),
        (line(USER, ANSWER, metadata={"subset": 3}), "bad_metadata"),
        (line(USER, ANSWER, metadata={"database": None}), "bad_metadata"),
        (line(USER, ANSWER, metadata={"subset": " "}), "bad_metadata"),
        (line(USER, ANSWER, metdata={"subset": "a"}), "unknown_key"),
        (line({**USER, "name": "ada"}, ANSWER), "unknown_key"),
        ('{"messages": [], "messages": [1]}', "repeated_key"),
        ('{"messages": [{"role": "user", "content": "a", "content": "b"}]}', "repeated_key"),
        (line(USER, USER, ANSWER), "repeated_role"),
        (line(USER, ANSWER, ANSWER), "repeated_role"),
    ],
)
def test_a_line_that_is_no_row_is_refused_with_a_stable_code(text: str, code: str) -> None:
    with pytest.raises(RowProblem) as caught:
        parse_row(text, 1)
    assert caught.value.code == code


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"metdata": {}}, r'unknown key "metdata"; allowed: messages, metadata; did you mean `metadata`\?'),
        ({"difficulty": 1}, 'unknown key "difficulty".* goes into `metadata`'),
        ({"metadata": {"database": ["a"]}}, r'metadata\.database must be text, not \["a"\]'),
    ],
)
def test_a_misspelt_key_and_a_subset_that_is_no_text_say_what_is_allowed(more: dict[str, object], message: str) -> None:
    with pytest.raises(RowProblem, match=message):
        parse_row(line(USER, ANSWER, **more), 1)
    # the rest of the metadata is the user's own
    assert parse_row(line(USER, ANSWER, metadata={"difficulty": 1}), 1).metadata == {"difficulty": 1}


def test_a_problem_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "train.jsonl"
    path.write_text(line(USER, ANSWER) + "\n\n{broken\n")
    with pytest.raises(InputError, match=r"train\.jsonl, line 3: malformed JSON"):
        read_rows(path)


def test_missing_empty_binary_and_folder_are_input_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data file"):
        read_rows(tmp_path / "absent.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n \n")
    with pytest.raises(InputError, match="has no rows"):
        read_rows(tmp_path / "empty.jsonl")
    (tmp_path / "binary.jsonl").write_bytes(b"\x80\x00")
    with pytest.raises(InputError, match=r"binary.jsonl, line 1: not UTF-8 text: byte 1"):
        read_rows(tmp_path / "binary.jsonl")
    with pytest.raises(InputError, match="cannot read"):
        read_rows(tmp_path)


def test_what_is_written_is_read_back_even_with_line_separators_inside(tmp_path: Path) -> None:
    rows = [Row((Message("user", "a\u2028b\nc"), Message("assistant", "é")), {"id": 1})]
    write_rows(tmp_path / "a.jsonl", rows)
    write_rows(tmp_path / "b.jsonl", read_rows(tmp_path / "a.jsonl"))
    assert read_rows(tmp_path / "a.jsonl")[0].messages == rows[0].messages
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    (tmp_path / "bom.jsonl").write_bytes(b"\xef\xbb\xbf" + line(USER, ANSWER).encode())
    assert len(read_rows(tmp_path / "bom.jsonl")) == 1
