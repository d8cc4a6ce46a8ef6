"""Any order of acts, kills, reopenings and refusals: the registry agrees with a model of it that has no database.

The machine is in `tests/registry/machine`: the model, the acts, the approvals, the mirror, the kills. On SQLite 10,000
operations; more with `TUNEWRIGHT_TEST_OPERATIONS=100000 pytest -s tests/registry/test_state_machine.py`, which says
what it did.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from registry.store import Registry
from tests.registry.machine.approving import Approving
from tests.registry.machine.kills import Kills
from tests.registry.machine.mirroring import Mirroring

OPERATIONS = int(os.environ.get("TUNEWRIGHT_TEST_OPERATIONS", "10000"))
# An example is one registry; on PostgreSQL a database each.
STEPS = {"sqlite": 100, "postgresql": 25}
# What the machine must have come to at least once in so many operations, or it would prove nothing of it.
EVERY = {
    "kills": 200,
    "promoted with approvals": 500,
    "rolled back with approvals": 1000,
    "taken away with approvals": 5000,
    "refused for want of approvals": 200,
    "protection weakened": 2000,
    "mirror failed": 500,
    "mirror caught up": 200,
}


@pytest.mark.timeout(300 + OPERATIONS // 5)  # busy cores, too
def test_registry_agrees_with_its_model(backend: Any, tmp_path: Path, run_and_die: Callable[..., bool]) -> None:
    prepare: Callable[[Path], object] = backend.prepare
    if backend.name == "sqlite":
        Registry.open(tmp_path / "template").close()

        def prepare(folder: Path) -> object:
            return shutil.copytree(tmp_path / "template", folder)

    class Machine(Kills, Approving, Mirroring):
        """Counts for itself."""

        tally: ClassVar[Counter[str]] = Counter()

    wanted, steps = OPERATIONS if backend.name == "sqlite" else 200, STEPS[backend.name]
    is_counted = wanted >= 2 * max(EVERY.values())

    def rare() -> dict[str, int]:
        return {what: Machine.tally[what] for what, often in EVERY.items() if Machine.tally[what] < wanted // often}

    # Hypothesis leaves rules out of whole examples: where chance left one out of nearly all, more are run
    while (done := Machine.tally["operations"]) < wanted or (is_counted and rare() and done < 3 * wanted):
        run_state_machine_as_test(
            lambda: Machine(prepare, run_and_die),
            settings=settings(
                max_examples=max(10, -(-(wanted - done) // steps)),
                stateful_step_count=steps,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
    print(backend.name, dict(Machine.tally))
    assert not is_counted or not rare(), Machine.tally
