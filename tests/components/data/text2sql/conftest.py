"""One small database in Spider's own form: singers, concerts, and a link table whose join no foreign key declares."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.data.text2sql.prepare import prepare
from components.data.text2sql.schema import Schema, load_schemas

QUESTIONS = [
    ("How many singers are there?", "SELECT count(*)   FROM singer"),
    (
        "Names of French singers above 30, oldest first.",
        'SELECT Name ,  Age FROM singer WHERE Country = "France" AND Age > 30 ORDER BY Age DESC;',
    ),
    ("Which concerts took place in 2014?", "SELECT Title FROM concert WHERE Year = 2014"),
    (
        "Who sang where?",
        "SELECT T1.Name, T3.Title FROM singer AS T1 JOIN sings AS T2 ON T1.Singer_ID = T2.Singer "
        "JOIN concert AS T3 ON T2.Concert_ID = T3.Concert_ID",
    ),
    ("Who never sang?", "SELECT Name FROM singer WHERE Singer_ID NOT IN (SELECT Singer FROM sings)"),
    ("Songs with Hey?", "SELECT Song FROM singer WHERE Song LIKE '%Hey%'"),
    ("Who has no country?", "SELECT Name FROM singer WHERE Country IS NULL"),
]


def tables(database: str) -> dict[str, Any]:
    return {
        "db_id": database,
        "table_names_original": ["singer", "sqlite_sequence", "concert", "sings"],
        "column_names_original": [
            [-1, "*"],
            [0, "Singer_ID"],
            [0, "Name"],
            [0, "Country"],
            [0, "Song"],
            [0, "Age"],
            [1, "seq"],
            [2, "Concert_ID"],
            [2, "Title"],
            [2, "Year"],
            [3, "Concert_ID"],
            [3, "Singer"],
        ],
        "column_types": [
            "text",
            "number",
            *["text"] * 3,
            "number",
            "text",
            "number",
            "text",
            "text",
            "number",
            "number",
        ],
        "primary_keys": [1, 7, 10],
        "foreign_keys": [[10, 7], [10, 7]],
    }


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    names = [f"music_{i}" for i in range(6)]
    questions = [{"db_id": name, "question": q, "query": sql} for name in reversed(names) for q, sql in QUESTIONS]
    (folder / "dev.json").write_text(json.dumps(questions))
    (folder / "tables.json").write_text(json.dumps([tables(name) for name in [*names, "unused"]]))
    return folder


@pytest.fixture
def prepared(raw: Path, tmp_path: Path) -> Path:
    out = tmp_path / "prepared"
    prepare(raw, out / "questions.jsonl", out / "databases.json")
    return out


@pytest.fixture
def schemas(prepared: Path) -> dict[str, Schema]:
    return load_schemas(prepared / "databases.json")
