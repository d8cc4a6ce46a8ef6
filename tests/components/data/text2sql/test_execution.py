"""Execution match: what counts as the same result, and what a hostile prediction can not do."""

from __future__ import annotations

import pytest

from components.data.text2sql.execution import Result, extract_query, is_ordered, same_result, score
from components.data.text2sql.schema import Schema
from components.errors import InputError

GOLD = 'SELECT Name, Age FROM singer WHERE Country = "France" AND Age > 30'
DATABASE = "music_0"


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("SELECT 1", "SELECT 1"),
        ("  SELECT 1;\n", "SELECT 1"),
        ("```sql\nSELECT 1\n```", "SELECT 1"),
        ("Here it is:\n```\nSELECT 1;\n```\nHope it helps", "SELECT 1"),
        ("```sql\nSELECT 1", "SELECT 1"),
        ("The query is:\nSELECT 1", "SELECT 1"),
        ("SELECT a\nFROM t\n\nThis selects a.", "SELECT a\nFROM t"),
        ("SELECT 1; DROP TABLE t", "SELECT 1"),
        ("SELECT ';' FROM t; SELECT 2", "SELECT ';' FROM t"),
        ('SELECT ";" -- a; b\nFROM t;x', 'SELECT ";" -- a; b\nFROM t'),
        ("I can not do that.", "I can not do that."),
        ("", ""),
    ],
)
def test_the_query_is_taken_out_of_what_the_model_wrote(text: str, query: str) -> None:
    assert extract_query(text) == query


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [
        (GOLD, 1.0),
        ("select name, age from singer where age >= 31 and country = 'France'", 1.0),
        ("SELECT s.Name, s.Age FROM singer s WHERE s.Country = 'France' AND NOT s.Age <= 30 ORDER BY s.Name", 1.0),
        ("SELECT Age, Name FROM singer WHERE Country = 'France' AND Age > 30", 0.0),
        ("SELECT Name FROM singer WHERE Country = 'France' AND Age > 30", 0.0),
        ("SELECT Name, Age FROM singer WHERE Country = 'France' AND Age >= 30", 0.0),
        ("SELECT Name, Age FROM singer WHERE Age > 30", 0.0),
        ("SELECT Name, Age FROM singer WHERE Country = 'Francia' AND Age > 30", 0.0),
        ("SELECT nonsense FROM nowhere", 0.0),
        ("", 0.0),
    ],
)
def test_a_prediction_scores_by_what_it_returns(schemas: dict[str, Schema], prediction: str, expected: float) -> None:
    assert score(prediction, GOLD, DATABASE, schemas) == expected


@pytest.mark.parametrize(
    "prediction",
    [
        "DROP TABLE singer",
        "DELETE FROM singer",
        "UPDATE singer SET Age = 1",
        "INSERT INTO singer VALUES (1, 'a', 'b', 'c', 2)",
        "CREATE TABLE x (a)",
        "ATTACH '/etc/passwd' AS other",
        "PRAGMA query_only = OFF",
        "VACUUM",
        "SELECT load_extension('x')",
        "SELECT randomblob(10)",
        "SELECT zeroblob(900000000)",
        "SELECT printf('%.*c', 900000000, 'x')",
        "SELECT Name FROM singer\x00",
        "SELECT '\ud800'",
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT count(*) FROM r",
        "WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM r) SELECT x FROM r",
        "SELECT count(*) FROM sings a, sings b, sings c, sings d, sings e, sings f",
        "SELECT " + "(" * 5000 + "1" + ")" * 5000,
    ],
)
def test_a_hostile_prediction_scores_zero_and_changes_nothing(schemas: dict[str, Schema], prediction: str) -> None:
    gold = "SELECT count(*) FROM singer"
    assert score(prediction, gold, DATABASE, schemas) == 0.0
    assert score(gold, gold, DATABASE, schemas) == 1.0


def test_order_counts_only_where_the_gold_query_orders(schemas: dict[str, Schema]) -> None:
    ascending, unordered = "SELECT Age FROM singer ORDER BY Age", "SELECT Age FROM singer"
    assert score("SELECT Age FROM singer ORDER BY Age DESC", ascending, DATABASE, schemas) == 0.0
    assert score("SELECT Age FROM singer ORDER BY Age DESC", unordered, DATABASE, schemas) == 1.0
    assert is_ordered("SELECT a FROM t UNION SELECT a FROM u ORDER BY a")
    assert not is_ordered("SELECT a FROM (SELECT a FROM t ORDER BY a)")


def test_repeats_count() -> None:
    assert not same_result(Result([("a",), ("a",), ("b",)], ordered=False), [("a",), ("b",), ("b",)])
    assert same_result(Result([("a",), ("b",), ("a",)], ordered=False), [("b",), ("a",), ("a",)])


def test_cells_agree_by_value_not_by_writing() -> None:
    def same(left: object, right: object) -> bool:
        return same_result(Result([(left,)], ordered=False), [(right,)])  # type: ignore[list-item]

    assert same(1, 1.0)
    assert same(0.1 + 0.2, 0.3)
    assert same(None, None)
    assert not same(1, 1.001)
    assert not same(1, "1")
    assert not same(None, 0)
    assert not same("France", "france")


def test_a_query_that_finds_nothing_does_not_match_one_that_rarely_finds_something(schemas: dict[str, Schema]) -> None:
    rare = "SELECT Name FROM singer WHERE Age = (SELECT max(Age) FROM singer) AND Country = 'France'"
    seeds_without_rows = [
        s for s in range(40) if score("SELECT Name FROM singer WHERE 0", rare, DATABASE, schemas, seed=s, databases=1)
    ]
    assert seeds_without_rows == []


def test_an_unknown_database_a_bad_gold_query_and_no_database_are_input_errors(schemas: dict[str, Schema]) -> None:
    with pytest.raises(InputError, match="no schema for database 'x'"):
        score(GOLD, GOLD, "x", schemas)
    with pytest.raises(InputError, match="the gold query fails"):
        score(GOLD, "SELECT nothing FROM nowhere", DATABASE, schemas)
    with pytest.raises(InputError, match="0 databases"):
        score(GOLD, GOLD, DATABASE, schemas, databases=0)
