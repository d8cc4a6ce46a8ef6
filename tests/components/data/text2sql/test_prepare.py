"""How questions become rows, and what is kept of each database."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from components.data.rows import read_rows
from components.data.text2sql.prepare import INSTRUCTION, normalise_sql, prepare, query_subset
from components.data.text2sql.schema import Schema, load_schemas
from components.errors import InputError


def test_white_space_is_normalised_but_quoted_text_is_kept() -> None:
    assert normalise_sql('SELECT  a ,  b\n FROM t WHERE c  =  "x  ,  y" ;') == 'SELECT a, b FROM t WHERE c = "x  ,  y"'
    assert normalise_sql("SELECT 'it''s  so' ,b") == "SELECT 'it''s  so', b"


@pytest.mark.parametrize(
    ("sql", "subset"),
    [
        ("SELECT a FROM t WHERE b = 1 ORDER BY c", "single-table"),
        ("SELECT count(*) FROM (SELECT a FROM t)", "single-table"),
        ("SELECT a FROM t JOIN u ON t.x = u.x", "joined"),
        ("SELECT a FROM t, u", "joined"),
        ("SELECT a FROM t WHERE b > (SELECT avg(b) FROM t)", "joined"),
        ("SELECT a FROM t UNION SELECT b FROM u", "joined"),
        ("SELECT a FROM t INTERSECT SELECT a FROM t", "joined"),
    ],
)
def test_single_table_means_one_table_named_once_in_the_whole_query(sql: str, subset: str) -> None:
    assert query_subset(sql) == subset


def test_a_row_has_instruction_and_schema_the_question_and_the_human_query(prepared: Path) -> None:
    row = read_rows(prepared / "questions.jsonl")[1]
    assert row.prompt[0].content == (
        f"{INSTRUCTION}\nsinger(Singer_ID, Name, Country, Song, Age)\n"
        "concert(Concert_ID, Title, Year)\nsings(Concert_ID, Singer)"
    )
    assert row.prompt[1].content == "Names of French singers above 30, oldest first."
    assert row.answer == 'SELECT Name, Age FROM singer WHERE Country = "France" AND Age > 30 ORDER BY Age DESC'
    assert row.metadata == {"database": "music_0", "id": "spider-dev-0036", "subset": "single-table"}


def test_ids_are_unique_and_follow_the_published_order(prepared: Path) -> None:
    rows = read_rows(prepared / "questions.jsonl")
    assert len({r.metadata["id"] for r in rows}) == len(rows) == 42
    assert [r.metadata["database"] for r in rows] == sorted(r.metadata["database"] for r in rows)


def test_the_same_raw_files_give_the_same_bytes(raw: Path, prepared: Path, tmp_path: Path) -> None:
    prepare(raw, tmp_path / "again/q.jsonl", tmp_path / "again/d.json")
    assert (tmp_path / "again/q.jsonl").read_bytes() == (prepared / "questions.jsonl").read_bytes()
    assert (tmp_path / "again/d.json").read_bytes() == (prepared / "databases.json").read_bytes()


def test_compared_values_null_tests_and_undeclared_joins_are_kept(schemas: dict[str, Schema]) -> None:
    schema = schemas["music_0"]
    singer = schema.table("singer")
    assert singer is not None
    columns = {c.name: c for c in singer.columns}
    assert columns["Country"].literals == ("France",)
    assert columns["Country"].nullable
    assert columns["Age"].literals == (30,)
    assert all(re.search("hey", str(v), re.IGNORECASE) for v in columns["Song"].literals)
    assert len(columns["Song"].literals) == 2
    joins = {(f.table, f.column, f.parent_table, f.parent_column) for f in schema.foreign_keys}
    assert joins == {
        ("sings", "Concert_ID", "concert", "Concert_ID"),
        ("sings", "Singer", "singer", "Singer_ID"),  # declared nowhere, but a question joins on it
    }
    assert schema.table("sqlite_sequence") is None


def test_only_databases_with_questions_are_kept(schemas: dict[str, Schema]) -> None:
    assert "unused" not in schemas


def test_a_question_on_an_unknown_database_is_refused(raw: Path, tmp_path: Path) -> None:
    (raw / "tables.json").write_text("[]")
    with pytest.raises(InputError, match="without a schema: music_0"):
        prepare(raw, tmp_path / "q", tmp_path / "d")
    assert not (tmp_path / "q").exists()


def test_a_broken_schemas_file_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no schemas file"):
        load_schemas(tmp_path / "absent.json")
    (tmp_path / "d.json").write_text(json.dumps({"databases": {"a": {"tables": 3}}}))
    with pytest.raises(InputError, match="not a schemas file"):
        load_schemas(tmp_path / "d.json")
