"""Stage `prepare`: render each question as a chat row, and gather per database what the metric needs.

System message = one instruction and the schema; user = the question; assistant = the human SQL with white space
normalised. Deterministic: the same raw files give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

from components.data.rows import Message, Row, write_rows
from components.data.text2sql.literals import with_query_values
from components.data.text2sql.schema import Schema, schema_from_spider
from components.errors import InputError
from components.files import write_atomic

__all__ = ["INSTRUCTION", "normalise_sql", "prepare", "query_subset", "render_row"]

INSTRUCTION = "Write one SQLite query that answers the question about this database."


def normalise_sql(sql: str) -> str:
    """Return the query on one line, single-spaced, without a closing semicolon; quoted text is kept as it is."""
    pieces: list[str] = []
    for part in re.split(r"""('(?:[^']|'')*'|"(?:[^"]|"")*")""", sql.strip().rstrip(";").strip()):
        quoted = part[:1] in ("'", '"')
        pieces.append(part if quoted else re.sub(r"\s*,\s*", ", ", re.sub(r"\s+", " ", part)))
    return re.sub(r"(['\"]) ,", r"\1,", "".join(pieces)).strip()


def query_subset(sql: str) -> str:
    """Return `single-table` or `joined`.

    Single-table: the whole query, sub-queries and both sides of set operations included, names a table exactly once.
    Everything else is joined: joins, self-joins, INTERSECT/EXCEPT/UNION, sub-queries over a table, even the same one.
    """
    import sqlglot
    from sqlglot import exp

    references = list(sqlglot.parse_one(sql, dialect="sqlite").find_all(exp.Table))
    return "single-table" if len(references) == 1 else "joined"


def render_row(schema: Schema, question: str, sql: str, identifier: str) -> Row:
    """Return one question as a chat row with its database, subset and stable id."""
    query = normalise_sql(sql)
    messages = (
        Message("system", f"{INSTRUCTION}\n{schema.render()}"),
        Message("user", " ".join(question.split())),
        Message("assistant", query),
    )
    return Row(messages, {"database": schema.database, "id": identifier, "subset": query_subset(query)})


def prepare(raw: Path, questions_file: Path, databases_file: Path) -> None:
    """Write all rows, by database in published order, and what the metric needs of each database.

    Args:
        raw: Folder with Spider's dev.json and tables.json.
        questions_file: The rows, as JSONL.
        databases_file: The schemas with their literal pools, as JSON.

    Raises:
        InputError: A question names a database that has no schema.
    """
    questions = json.loads((raw / "dev.json").read_text())
    declared = {entry["db_id"]: schema_from_spider(entry) for entry in json.loads((raw / "tables.json").read_text())}
    by_database: dict[str, list[tuple[int, dict[str, Any]]]] = {}
    for index, question in enumerate(questions):
        by_database.setdefault(question["db_id"], []).append((index, question))
    unknown = sorted(set(by_database) - set(declared))
    if unknown:
        raise InputError(
            f"questions on databases without a schema: {', '.join(unknown)}", next_step="check tables.json"
        )
    rows, schemas = [], {}
    for database in sorted(by_database):
        asked = by_database[database]
        schema = with_query_values(declared[database], [normalise_sql(q["query"]) for _, q in asked])
        schemas[database] = schema.to_dict()
        rows += [render_row(schema, q["question"], q["query"], f"spider-dev-{index:04d}") for index, q in asked]
    write_rows(questions_file, rows)
    document = {"version": 1, "databases": schemas}
    write_atomic(databases_file, json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n")


def main() -> None:
    """Run the stage: `python -m components.data.text2sql.prepare --raw FOLDER --questions FILE --databases FILE`."""
    parser = argparse.ArgumentParser(description=prepare.__doc__)
    parser.add_argument("--raw", type=Path, required=True)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--databases", type=Path, required=True)
    arguments = parser.parse_args()
    prepare(arguments.raw, arguments.questions, arguments.databases)


if __name__ == "__main__":
    main()
