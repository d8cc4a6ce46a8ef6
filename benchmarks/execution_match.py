"""How well does execution match tell right queries from wrong ones? Run with `python -m benchmarks.execution_match`.

Four questions: does every gold query match itself; how often does it return rows; how often does the gold query of
another question on the same database match (a false positive); how many one-step mistakes in a gold query go unseen.
Needs the prepared data: `dvc repro` first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from components.data.rows import Row, read_rows
from components.data.text2sql.execution import QueryFailed, open_database, run_query, score
from components.data.text2sql.schema import Schema, load_schemas


def main() -> None:
    """Measure on all prepared questions and print one JSON document."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--questions", type=Path, default=Path("data/prepared/questions.jsonl"))
    parser.add_argument("--schemas", type=Path, default=Path("data/text2sql/databases.json"))
    arguments = parser.parse_args()
    rows, schemas = read_rows(arguments.questions), load_schemas(arguments.schemas)
    document = {
        "questions": len(rows),
        "gold_matches_itself": sum(_score(r.answer, r, schemas) for r in rows) / len(rows),
        **_rows_returned(rows, schemas),
        **_speed(rows, schemas),
        "other_questions": _other_questions(rows, schemas),
        "mistakes": {f"{k} databases": _mistakes(rows, schemas, k) for k in (1, 3, 5)},
    }
    print(json.dumps(document, indent=2))


def _score(prediction: str, row: Row, schemas: dict[str, Schema], databases: int = 3) -> float:
    return score(prediction, row.answer, row.metadata["database"], schemas, databases=databases)


def _rows_returned(rows: list[Row], schemas: dict[str, Schema]) -> dict[str, float]:
    """Count gold queries whose result holds anything but nothing, NULL and 0, on one of three databases and on all."""
    opened = {(name, seed): open_database(schema, seed) for name, schema in schemas.items() for seed in range(3)}
    some = every = 0
    for row in rows:
        results = [run_query(opened[row.metadata["database"], seed], row.answer) for seed in range(3)]
        full = [any(cell not in (None, 0) for line in result for cell in line) for result in results]
        some, every = some + any(full), every + all(full)
    return {"gold_returns_rows_on_some": some / len(rows), "gold_returns_rows_on_all": every / len(rows)}


def _speed(rows: list[Row], schemas: dict[str, Schema]) -> dict[str, float]:
    started = time.perf_counter()
    for row in rows:
        _score(row.answer, row, schemas)
    return {"milliseconds_per_score": round((time.perf_counter() - started) / len(rows) * 1000, 3)}


def _canonical(sql: str) -> str:
    import sqlglot

    return sqlglot.parse_one(sql, dialect="sqlite").sql(dialect="sqlite", normalize=True).lower().replace('"', "'")


def _other_questions(rows: list[Row], schemas: dict[str, Schema]) -> dict[str, Any]:
    by_database: dict[str, dict[str, Row]] = {}
    for row in rows:
        by_database.setdefault(row.metadata["database"], {}).setdefault(_canonical(row.answer), row)
    pairs = [pair for known in by_database.values() for pair in itertools.permutations(known.values(), 2)]
    matching = [(gold.answer, other.answer) for gold, other in pairs if _score(other.answer, gold, schemas)]
    return {"pairs": len(pairs), "matches": len(matching), "rate": len(matching) / len(pairs), "examples": matching}


def mutants(sql: str) -> Iterator[tuple[str, str]]:
    """Yield (kind of mistake, query) for each one-step mistake that models make."""
    import sqlglot
    from sqlglot import exp

    swaps: dict[str, dict[type[exp.Expr], type[exp.Expr]]] = {
        "bound": {exp.GT: exp.GTE, exp.LT: exp.LTE, exp.GTE: exp.GT, exp.LTE: exp.LT},
        "direction": {exp.GT: exp.LT, exp.LT: exp.GT},
        "equality": {exp.EQ: exp.NEQ, exp.NEQ: exp.EQ},
        "connective": {exp.And: exp.Or, exp.Or: exp.And},
        "aggregate": {exp.Max: exp.Min, exp.Min: exp.Max, exp.Avg: exp.Sum, exp.Sum: exp.Avg},
        "set operation": {exp.Intersect: exp.Except, exp.Except: exp.Intersect},
    }
    tree = sqlglot.parse_one(sql, dialect="sqlite")
    for index, node in enumerate(tree.walk()):
        for kind, swap in swaps.items():
            if type(node) in swap:
                yield kind, _changed(tree, index, _replacement(swap[type(node)]))
        if isinstance(node, exp.Ordered):
            yield "sort direction", _changed(tree, index, lambda n: n.set("desc", not n.args.get("desc")))
        if isinstance(node, exp.Distinct):
            yield "lost distinct", _changed(tree, index, _drop_distinct)
        if isinstance(node, exp.Where | exp.Order | exp.Limit | exp.Having) and node.parent is not None:
            yield f"lost {type(node).__name__.lower()}", _changed(tree, index, lambda n: n.pop())
        if isinstance(node, exp.Literal) and not node.is_string and not isinstance(node.parent, exp.Limit):
            yield "number off by one", _changed(tree, index, lambda n: n.replace(exp.Literal.number(float(n.this) + 1)))


def _replacement(kind: Any) -> Any:
    return lambda node: node.replace(kind(**node.args))


def _changed(tree: Any, index: int, change: Any) -> str:
    copy = tree.copy()
    node = next(itertools.islice(copy.walk(), index, None))
    if node is copy:  # a root is rebuilt, since nothing holds it
        holder = _holder(copy)
        change(node)
        return str(holder.this.sql(dialect="sqlite"))
    change(node)
    return str(copy.sql(dialect="sqlite"))


def _holder(tree: Any) -> Any:
    from sqlglot import exp

    return exp.Paren(this=tree)


def _drop_distinct(node: Any) -> None:
    from sqlglot import exp

    if isinstance(node.parent, exp.Select):
        node.pop()
    else:
        node.replace(node.expressions[0])


def _mistakes(rows: list[Row], schemas: dict[str, Schema], databases: int) -> dict[str, Any]:
    """Score every mutant that runs; those that match are either unseen mistakes or no mistakes at all."""
    made, unseen = Counter[str](), Counter[str]()
    opened = {name: open_database(schema, 0) for name, schema in schemas.items()}
    seen: set[tuple[str, str]] = set()
    for row in rows:
        for kind, query in mutants(row.answer):
            key = (row.metadata["database"], query)
            if key in seen or _canonical(query) == _canonical(row.answer):
                continue
            seen.add(key)
            try:
                run_query(opened[row.metadata["database"]], query)
            except QueryFailed:
                continue
            made[kind] += 1
            unseen[kind] += int(_score(query, row, schemas, databases))
    by_kind = {kind: {"made": made[kind], "match": unseen[kind]} for kind in sorted(made)}
    total, missed = made.total(), unseen.total()
    return {"made": total, "match": missed, "rate": round(missed / total, 4), "by_kind": by_kind}


if __name__ == "__main__":
    main()
