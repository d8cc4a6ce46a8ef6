"""Seeded databases make queries discriminating: literals hit and miss, joins return rows, some parents are alone."""

from __future__ import annotations

import pytest

from components.data.text2sql.databases import build_database, fill_rows
from components.data.text2sql.schema import Column, ForeignKey, Schema, Table

SEEDS = range(6)


def one(schema: Schema, seed: int, sql: str) -> object:
    return build_database(schema, seed).execute(sql).fetchone()[0]


def test_the_seed_decides_the_rows(schemas: dict[str, Schema]) -> None:
    schema = schemas["music_0"]
    assert fill_rows(schema, 1) == fill_rows(schema, 1)
    assert fill_rows(schema, 1) != fill_rows(schema, 2)
    assert fill_rows(schema, 1) != fill_rows(schemas["music_1"], 1)


@pytest.mark.parametrize("seed", SEEDS)
def test_values_that_questions_ask_for_are_found_and_others_too(schemas: dict[str, Schema], seed: int) -> None:
    schema = schemas["music_0"]
    assert one(schema, seed, "SELECT count(*) FROM singer WHERE Country = 'France'")
    assert one(schema, seed, "SELECT count(*) FROM singer WHERE Country != 'France'")
    assert one(schema, seed, "SELECT count(*) FROM singer WHERE Country IS NULL")
    assert one(schema, seed, "SELECT count(*) FROM singer WHERE Song LIKE '%Hey%' AND Song != 'Hey'")
    assert one(schema, seed, "SELECT count(*) FROM concert WHERE Year = 2014")  # a text column with numbers in it
    for test in ("Age = 30", "Age > 30", "Age < 30"):
        assert one(schema, seed, f"SELECT count(*) FROM singer WHERE {test}"), test


@pytest.mark.parametrize("seed", SEEDS)
def test_joins_return_rows_and_some_parents_stay_childless(schemas: dict[str, Schema], seed: int) -> None:
    schema = schemas["music_0"]
    link_rows = one(schema, seed, "SELECT count(*) FROM sings")
    joined = one(
        schema, seed, "SELECT count(*) FROM sings JOIN singer ON Singer = Singer_ID JOIN concert USING (Concert_ID)"
    )
    assert joined == link_rows  # every foreign key finds exactly one parent
    assert one(schema, seed, "SELECT count(*) FROM singer WHERE Singer_ID NOT IN (SELECT Singer FROM sings)")
    assert one(schema, seed, "SELECT max(n) FROM (SELECT count(*) AS n FROM sings GROUP BY Singer)") > 2  # type: ignore[operator]


def test_a_primary_key_has_no_repeats_unless_it_points_at_another_table(schemas: dict[str, Schema]) -> None:
    schema = schemas["music_0"]
    assert one(schema, 0, "SELECT count(*) = count(DISTINCT Singer_ID) FROM singer") == 1
    # Spider lists a composite key by its first column, which repeats
    assert one(schema, 0, "SELECT count(*) > count(DISTINCT Concert_ID) FROM sings") == 1


def test_literals_of_a_foreign_key_are_put_among_the_parents_keys() -> None:
    code = Column("code", "text")
    schema = Schema(
        "d",
        (
            Table("flight", (Column("origin", "text", ("APG", "CVO")),)),
            Table("airport", (code, Column("city", "text")), "code"),
        ),
        (ForeignKey("flight", "origin", "airport", "code"),),
    )
    for seed in SEEDS:
        rows = fill_rows(schema, seed)
        assert {"APG", "CVO"} <= {row[0] for row in rows["airport"]}
        assert {"APG", "CVO"} < {row[0] for row in rows["flight"]}


def test_values_asked_for_together_stand_in_one_row() -> None:
    columns = (Column("continent", "text", ("Africa",)), Column("form", "text", ("Republic",)))
    table = Table("country", columns, None, ((("continent", "Africa"), ("form", "Republic")),))
    for seed in SEEDS:
        assert ("Africa", "Republic") in fill_rows(Schema("d", (table,), ()), seed)["country"]


def test_tables_that_point_at_each_other_are_filled() -> None:
    key = Column("id", "number")
    tables = (Table("a", (key, Column("b", "number")), "id"), Table("b", (key, Column("a", "number")), "id"))
    links = (ForeignKey("a", "b", "b", "id"), ForeignKey("b", "a", "a", "id"))
    rows = fill_rows(Schema("d", tables, links), 0)
    assert rows["a"]
    assert {r[1] for r in rows["b"]} <= {r[0] for r in rows["a"]}
