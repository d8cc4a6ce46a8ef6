"""Which of a file's rows a step uses: subsets by name, seeded samples. Between rows and what reads them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from components.data.rows import Row
from components.errors import InputError

__all__ = ["sample", "sample_subsets", "select_subsets"]


def select_subsets(rows: Sequence[Row], subsets: Sequence[str], path: Path, key: str) -> list[Row]:
    """Keep the rows of some subsets.

    Args:
        rows: Rows whose metadata may name a subset.
        subsets: Names to keep; none keeps all.
        path: Where the rows are from, for the error.
        key: The recipe's key that names the subsets, for the error.

    Returns:
        The rows, in their order.

    Raises:
        InputError: A name that no row has.
    """
    if not subsets:
        return list(rows)
    known = sorted({str(row.metadata["subset"]) for row in rows if "subset" in row.metadata})
    unknown = [name for name in subsets if name not in known]
    if unknown:
        raise InputError(
            f"{path} has no row of subset {unknown[0]!r}, which {key} names",
            allowed=", ".join(known) or "no subset: no row has one in its metadata",
            next_step=f"correct {key}; `tunewright data stats {path}` counts the subsets",
        )
    return [row for row in rows if row.metadata.get("subset") in subsets]


def sample(rows: Sequence[Row], count: int, seed: int) -> list[Row]:
    """Draw rows without replacement, in the order of the file.

    Args:
        rows: What to draw from.
        count: How many; 0, or more than there are, gives all.
        seed: Seed of the draw.

    Returns:
        The rows.
    """
    if count == 0 or count >= len(rows):
        return list(rows)
    chosen = sorted(random.Random(seed).sample(range(len(rows)), count))
    return [rows[index] for index in chosen]


def sample_subsets(rows: Sequence[Row], counts: int | Mapping[str, int], seed: int, path: Path) -> list[Row]:
    """Draw rows from all subsets together, or a number of rows from each one named.

    Args:
        rows: What to draw from.
        counts: A number for all, or one a subset; 0 gives all.
        seed: Seed of the draws.
        path: Where the rows are from, for the error.

    Returns:
        The rows, subset by subset where counts names them.

    Raises:
        InputError: A subset that no row has.
    """
    if isinstance(counts, int):
        return sample(rows, counts, seed)
    return [
        row
        # by name, not by the mapping's order: mappings that are equal give the same rows in the same places
        for name, count in sorted(counts.items())
        for row in sample(select_subsets(rows, [name], path, "evaluation.test_rows"), count, seed)
    ]
