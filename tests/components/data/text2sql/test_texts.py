"""Training databases as raw SQL files: every query once, each document of one database with its tables."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from components.data.rows import read_rows
from components.data.text2sql.texts import QUERIES, main, sql_documents
from components.data.texts import read_texts


def test_every_query_stands_in_one_document_of_its_database(
    prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = read_rows(prepared / "questions.jsonl")
    monkeypatch.setattr(
        sys, "argv", ["texts", "--questions", str(prepared / "questions.jsonl"), "--out", str(tmp_path / "t.jsonl")]
    )
    main()
    documents = sql_documents(rows)
    assert [row.answer for row in read_texts(tmp_path / "t.jsonl")] == list(dict.fromkeys(documents))
    for row in rows:
        holding = [text for text in documents if f"-- {row.messages[1].content}\n{row.answer};" in text]
        assert len(holding) >= 1
        assert all(line in holding[0] for line in row.messages[0].content.splitlines()[1:])
    assert max(text.count(";\n") for text in documents) <= QUERIES
