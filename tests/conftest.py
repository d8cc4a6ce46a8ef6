"""What holds for all tests: objects that imports have made for good aren't walked by every garbage collection, and
Ctrl-C works even where the tests were started with it ignored, as a shell does with jobs in the background.
"""

from __future__ import annotations

import gc
import signal
import sys

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # commands that the tests start would ignore it as well, and it is what some tests send
    signal.signal(signal.SIGINT, signal.default_int_handler)

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
