"""A server that was started for somebody ends with them: also when they were killed and could not stop it.

Used by the BentoML service when `serve_bundle` started it; the supervisor follows our process, the worker the
supervisor.
"""

from __future__ import annotations

import os
import signal
import threading
import time

__all__ = ["FOLLOW_VARIABLE", "follow_parent"]

FOLLOW_VARIABLE = "TUNEWRIGHT_FOLLOW_PARENT"
POLL_SECONDS = 1.0


def follow_parent() -> None:
    """Terminate this process once its parent has gone; does nothing unless `FOLLOW_VARIABLE` is set."""
    if not os.environ.get(FOLLOW_VARIABLE):
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
