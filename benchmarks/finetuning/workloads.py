"""The rows of the contest: real questions about real databases, as they come or behind long prompts.

Every workload is so many steps of `ROWS_PER_STEP` rows. The rows of one database make one group, as they do in use,
where many rows share their instructions; who trains on them sees them shuffled unless it groups them itself.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from components.data.rows import Row, read_rows
from components.errors import InputError

__all__ = ["ROWS_PER_STEP", "WORKLOADS", "rows_of"]

ROWS_PER_STEP = 8
# schemas in a long prompt; one of them is the question's
SCHEMAS = 3


def rows_of(workload: str, file: Path, steps: int, seed: int) -> list[Row]:
    """Return the rows of some steps, shuffled.

    Args:
        workload: A key of `WORKLOADS`.
        file: JSONL of training rows with metadata.database.
        steps: Optimizer steps, each of `ROWS_PER_STEP` rows of one database.
        seed: Of the choice and the order.

    Raises:
        InputError: Fewer databases with enough rows than steps.
    """
    rng = random.Random(seed)
    by_database: dict[str, list[Row]] = defaultdict(list)
    for row in read_rows(file):
        by_database[str(row.metadata["database"])].append(row)
    able = [name for name, rows in sorted(by_database.items()) if len(rows) >= ROWS_PER_STEP]
    if steps > len(able):
        raise InputError(f"{steps} steps", allowed=f"at most {len(able)}: one database each", next_step="fewer steps")
    names = rng.sample(able, steps)
    chosen = [row for name in names for row in rng.sample(by_database[name], ROWS_PER_STEP)]
    schemas = {name: rows[0].messages[0].content for name, rows in by_database.items()}
    rows = WORKLOADS[workload](chosen, schemas, rng)
    rng.shuffle(rows)
    return rows


def _as_they_come(rows: Sequence[Row], _schemas: dict[str, str], _rng: random.Random) -> list[Row]:
    return list(rows)


def _behind_long_prompts(rows: Sequence[Row], schemas: dict[str, str], rng: random.Random) -> list[Row]:
    others = {name: rng.sample([n for n in sorted(schemas) if n != name], SCHEMAS - 1) for name in sorted(schemas)}
    found = []
    for row in rows:
        own = str(row.metadata["database"])
        long = "\n\n".join(schemas[name] for name in sorted([own, *others[own]]))
        found.append(replace(row, messages=(replace(row.messages[0], content=long), *row.messages[1:])))
    return found


WORKLOADS: dict[str, Callable[[Sequence[Row], dict[str, str], random.Random], list[Row]]] = {
    "mixed": _as_they_come,
    "long": _behind_long_prompts,
}
