"""Stage `split`: divide the rows by database, so that no database of the test set is seen in training."""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.data.rows import Row, read_rows, write_rows
from components.errors import InputError

__all__ = ["assign_databases", "split", "split_rows"]

SPLITS = ("train", "dev", "test")


def assign_databases(
    single_table_rows: dict[str, int], test: Sequence[str], dev_databases: int, dev_minimum: int, seed: int
) -> dict[str, str]:
    """Return the split of every database.

    The development databases are drawn at random from those not in the test set; draws are repeated until they hold
    enough single-table questions to tell two prompts apart.

    Args:
        single_table_rows: Number of single-table questions of each database.
        test: Databases of the test set.
        dev_databases: How many databases the development set takes.
        dev_minimum: How many single-table questions these must hold in total.
        seed: Seed of the draw.

    Raises:
        InputError: A test database doesn't exist, or no draw can hold enough questions.
    """
    unknown = sorted(set(test) - set(single_table_rows))
    if unknown:
        raise InputError(f"unknown test databases: {', '.join(unknown)}", allowed=", ".join(sorted(single_table_rows)))
    rest = sorted(set(single_table_rows) - set(test))
    best = sorted((single_table_rows[d] for d in rest), reverse=True)[:dev_databases]
    if len(rest) <= dev_databases or dev_databases < 1 or sum(best) < dev_minimum:
        raise InputError(
            f"cannot draw {dev_databases} of {len(rest)} databases with {dev_minimum} single-table rows for dev",
            allowed=f"at least one, fewer than {len(rest)}, and at most {sum(best)} rows",
            next_step="change `split` in params.yaml",
        )
    draw = random.Random(seed)
    dev: list[str] = []
    while sum(single_table_rows[d] for d in dev) < dev_minimum or not dev:
        dev = draw.sample(rest, dev_databases)
    return {d: "test" if d in test else "dev" if d in dev else "train" for d in sorted(single_table_rows)}


def split_rows(rows: Sequence[Row], assignment: dict[str, str]) -> dict[str, list[Row]]:
    """Return the rows of each split, in the order given.

    Raises:
        InputError: A split stays empty.
    """
    divided: dict[str, list[Row]] = {name: [] for name in SPLITS}
    for row in rows:
        divided[assignment[row.metadata["database"]]].append(row)
    empty = [name for name, members in divided.items() if not members]
    if empty:
        raise InputError(f"empty split: {', '.join(empty)}", next_step="change `split` in params.yaml")
    seen = {name: {r.metadata["database"] for r in members} for name, members in divided.items()}
    for one, other in (("train", "dev"), ("train", "test"), ("dev", "test")):
        shared = seen[one] & seen[other]
        assert not shared, f"databases in both {one} and {other}: {sorted(shared)}"
    return divided


def split(questions: Path, out: Path, parameters: dict[str, Any]) -> None:
    """Write train.jsonl, dev.jsonl and test.jsonl.

    Args:
        questions: Rows that `prepare` wrote.
        out: Folder to write into.
        parameters: `split` of params.yaml: test_databases, dev_databases, dev_minimum_single_table_rows, seed.
    """
    rows = read_rows(questions)
    single: dict[str, int] = {}
    for row in rows:
        database = row.metadata["database"]
        single[database] = single.get(database, 0) + (row.metadata["subset"] == "single-table")
    assignment = assign_databases(
        single,
        parameters["test_databases"],
        parameters["dev_databases"],
        parameters["dev_minimum_single_table_rows"],
        parameters["seed"],
    )
    for name, members in split_rows(rows, assignment).items():
        write_rows(out / f"{name}.jsonl", members)


def main() -> None:
    """Run the stage: `python -m components.data.text2sql.split --questions FILE --out FOLDER --params params.yaml`."""
    import yaml

    parser = argparse.ArgumentParser(description=split.__doc__)
    parser.add_argument("--questions", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--params", type=Path, required=True)
    arguments = parser.parse_args()
    split(arguments.questions, arguments.out, yaml.safe_load(arguments.params.read_text())["split"])


if __name__ == "__main__":
    main()
