"""What holds for all tests: objects that imports have made for good aren't walked by every garbage collection."""

from __future__ import annotations

import gc
import sys

# New modules that are worth a collection and a freeze.
MANY = 100
_frozen_at = 0


def pytest_runtest_teardown() -> None:
    """Take what was imported out of the collector's sight.

    Training collects garbage several times a run. Behind all that the frameworks have made, that took two thirds of a
    tiny run's processor time.
    """
    global _frozen_at
    if len(sys.modules) >= _frozen_at + MANY:
        gc.collect()
        gc.freeze()
        _frozen_at = len(sys.modules)
