"""Stage `texts`: the training databases' schemas, questions and queries as raw SQL files, for a base to read first."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from components.data.rows import Row, read_rows
from components.files import canonical_json, write_atomic

__all__ = ["sql_documents"]

# Queries in one document: long enough to show a database's tables in use, short enough for a few hundred tokens.
QUERIES = 6


def sql_documents(rows: Sequence[Row]) -> list[str]:
    """Return documents as somebody would keep them in a file of queries: comments and statements, a database each.

    Args:
        rows: Questions whose system message ends with the schema, a table a line, and whose metadata name the database.
    """
    by_database: dict[str, list[Row]] = {}
    for row in rows:
        by_database.setdefault(str(row.metadata["database"]), []).append(row)
    documents = []
    for found in by_database.values():
        tables = "\n".join(f"-- {line}" for line in found[0].messages[0].content.splitlines()[1:])
        for start in range(0, len(found), QUERIES):
            queries = [f"-- {row.messages[1].content}\n{row.answer};" for row in found[start : start + QUERIES]]
            documents.append("\n\n".join([tables, *queries]) + "\n")
    return documents


def main() -> None:
    """Run the stage: `python -m components.data.text2sql.texts --questions FILE --out FILE`."""
    parser = argparse.ArgumentParser(description=sql_documents.__doc__)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    documents = sql_documents(read_rows(arguments.questions))
    write_atomic(arguments.out, "".join(f"{canonical_json({'text': text})}\n" for text in documents))


if __name__ == "__main__":
    main()
