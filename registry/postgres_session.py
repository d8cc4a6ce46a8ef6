"""A session on PostgreSQL: several statements in one message, and statements that the server keeps for it.

A statement that is kept is parsed once and soon planned once, which is half of what the server does for a look-up. But
behind a pooler the next transaction may be somebody else's session, which has none of them, or others of that name.
"""

from __future__ import annotations

import os
import sys
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from registry.address import import_driver

__all__ = [
    "Session",
    "closed_if_interrupted",
    "has_lost_statements",
    "keep_no_more",
    "keep_statements",
    "leave_to_parent",
    "planning_settings",
]

# How statements are planned, by name and value. A kept one is planned once: where its tables were short then, it would
# read them whole for as long as nobody counted them anew. An index serves all that is asked often; what reads tables
# whole does so still, at a price that must not make the server compile it.
_PLANNING = {"enable_seqscan": "off", "jit": "off"}
# A statement that comes a third time is kept, and of those the hundred that were used last.
_THRESHOLD = 2
# No such kept statement, one of that name that somebody else made; a kept one that doesn't fit its table any more.
_NOT_OURS = {"26000", "42P05"}
_OUTDATED, _OUTDATED_BY = "0A000", "RevalidateCachedQuery"

_is_keeping = True
_SESSIONS: weakref.WeakSet[Session] = weakref.WeakSet()


def keep_statements(session: Any, process_id: int) -> bool:
    """Let the server keep statements, if its own session is at the other end: a pooler gives out other process ids.

    Args:
        session: psycopg's connection.
        process_id: What `pg_backend_pid()` said in it.

    Returns:
        Whether it does.
    """
    if not _is_keeping or process_id != session.info.backend_pid:
        return False
    session.prepare_threshold = _THRESHOLD
    return True


def planning_settings(*, local: bool) -> str:
    """Return what sets how statements are planned, as columns of a SELECT; `local` for the transaction alone."""
    scope = "true" if local else "false"
    return ", ".join(f"set_config('{name}', '{value}', {scope})" for name, value in _PLANNING.items())


def has_lost_statements(error: Any) -> bool:
    """Tell whether an error says that what a session kept can't be used: another session can be asked the same."""
    state = getattr(error, "sqlstate", None)
    # the server's words are in its own language, and the state is that of all that it hasn't
    outdated = state == _OUTDATED and error.diag.source_function == _OUTDATED_BY
    return state in _NOT_OURS or outdated


def keep_no_more(error: BaseException) -> None:
    """Let no session of this process keep statements any more, if one turns out to be shared after all."""
    global _is_keeping
    if getattr(error, "sqlstate", None) in _NOT_OURS:
        _is_keeping = False


class Session:
    """A session that several statements are sent to at once, in libpq's pipeline mode, which it stays in.

    Args:
        connection: psycopg's, which commits each statement by itself.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._pipeline: Any = None
        _SESSIONS.add(self)

    def exchange(self, statements: Sequence[tuple[str, Sequence[Any]]]) -> list[Any]:
        """Send statements together, wait once for all of their answers, and return their cursors.

        The server is told that it may answer (Sync, not Flush), so that it knows when it waits for us: otherwise it
        ends no session that has stopped in the midst of a transaction. A session that is interrupted meanwhile is
        closed, since what is on its way in it is nobody's any more.

        Args:
            statements: With psycopg's placeholders. After one that fails none is run.

        Raises:
            psycopg.Error: That of the first one that failed.
        """
        driver = import_driver()
        try:
            with closed_if_interrupted(self.connection):
                if self._pipeline is None and driver.Pipeline.is_supported():  # libpq has it since 14
                    self._pipeline = self.connection.pipeline()
                    self._sync = self._pipeline.__enter__().sync
                cursors = [self.connection.execute(sql, parameters) for sql, parameters in statements]
                if self._pipeline is not None:
                    self._sync()
        except driver.Error:
            if self._pipeline is not None:
                with suppress(driver.Error):
                    self._sync()  # out of what was broken off
            raise
        return cursors

    def leave(self) -> None:
        """Leave the pipeline, of a session that is to be closed or is; psycopg complains of one that is forgotten."""
        if self._pipeline is not None:
            with suppress(Exception):
                self._pipeline.__exit__(None, None, None)
            self._pipeline = None


def leave_to_parent() -> None:
    """Cut this process, which was forked, off its parent's sessions: nothing that is sent here reaches them."""
    with Path(os.devnull).open("r+b", buffering=0) as nowhere:
        for session in list(_SESSIONS):
            if not session.connection.closed:
                os.dup2(nowhere.fileno(), session.connection.fileno())
                # a thread that waited for the server held it, and isn't here
                session.connection.lock.acquire(blocking=False)
                session.connection.lock.release()
                session.leave()


@contextmanager
def closed_if_interrupted(connection: Any) -> Iterator[None]:
    """Close psycopg's connection if what is asked of it in the block is interrupted, and raise what interrupted it.

    It is in the midst of something then. Errors of the driver come out as they are.
    """
    before = sys.exception()
    try:
        yield
    except BaseException as error:
        signal = _signal_behind(error, before)
        if signal is not None or not isinstance(error, import_driver().Error):
            connection.close()
            raise signal or error from None
        raise


def _signal_behind(error: BaseException | None, before: BaseException | None) -> BaseException | None:
    """Return what interrupted psycopg, where that then stumbled over its own state and raised another error.

    Args:
        error: What psycopg raised.
        before: What was being handled before it was called.
    """
    while error is not None and error is not before:
        if not isinstance(error, Exception):
            return error
        error = error.__context__
    return None
