"""Prefect's settings for an embedded server. Applied before prefect is imported; the user's own settings win."""

from __future__ import annotations

import os
from pathlib import Path

from flows.state_folder import make_state_folder

__all__ = ["use_embedded_server"]


def use_embedded_server(home: Path) -> None:
    """Give Prefect a folder of its own under the state folder and let it start a server for one process.

    A set PREFECT_API_URL means that there is a server already: then nothing but analytics is touched.

    Args:
        home: State folder.
    """
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
    os.environ.setdefault("DO_NOT_TRACK", "1")
    # The observer writes for people, and the command line tells an error without a traceback: Prefect's own lines go to
    # its server only.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    if "PREFECT_API_URL" in os.environ:
        return
    # Prefect makes its folder, but not the one above it
    make_state_folder(home)
    os.environ.setdefault("PREFECT_HOME", str(home / "prefect"))
    os.environ.setdefault("PREFECT_SERVER_ALLOW_EPHEMERAL_MODE", "true")
    # twenty seconds, the default, are too few on two busy cores
    os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
