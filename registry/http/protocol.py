"""The server's side of a connection: one that nobody asks through is held for a while only, and never for long.

uvicorn waits without end for a request's head, and with its own limit answers 503 to everybody once so many
connections are open, whether anything was sent through them or not. So there are deadlines here, the connection that
was idle longest makes room for a new one, and `registry.http.guard` counts the requests that are being answered.
"""

from __future__ import annotations

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["PatientProtocol"]


class PatientProtocol(H11Protocol):
    """HTTP/1.1 on one connection.

    Attributes:
        head_seconds: Longest time for a request's head, from the connection's begin or the head's first byte on.
        most_connections: More than so many, and those are closed that were idle longest.
    """

    head_seconds = 20.0
    most_connections = 512
    _waits_since = 0.0
    _deadline: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for a head; make room for this connection where there are too many."""
        super().connection_made(transport)
        self._waits_since = self.loop.time()
        self._deadline = self._waits_since + self.head_seconds
        self._close_at(self._deadline)
        if len(self.connections) > self.most_connections:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """Take what came; a head that isn't whole has until its deadline, however its bytes come."""
        super().data_received(data)
        self._limit_wait()

    def on_response_complete(self) -> None:
        """Wait for the next request, which may have come already, or have begun to."""
        self._waits_since, self._deadline = self.loop.time(), None
        super().on_response_complete()
        self._limit_wait()

    @property
    def _is_idle(self) -> bool:
        return self.cycle is None or self.cycle.response_complete

    def _make_room(self) -> None:
        held = [one for one in self.connections if isinstance(one, PatientProtocol) and not one.transport.is_closing()]
        idle = sorted((one for one in held if one._is_idle and one is not self), key=lambda one: one._waits_since)
        for one in idle[: max(len(held) - self.most_connections, 0)]:
            one.timeout_keep_alive_handler()

    def _limit_wait(self) -> None:
        """Say how long is waited for more, where nothing is being answered."""
        if not self._is_idle or self.transport.is_closing():
            self._deadline = None
            return
        now = self.loop.time()
        if self.conn.their_state is not h11.IDLE:
            # the rest of a body that was answered before it was whole: as long as it comes
            self._deadline = None
            self._close_at(now + self.head_seconds)
        elif self.conn.trailing_data[0]:
            self._deadline = self._deadline or now + self.head_seconds
            self._close_at(self._deadline)
        else:
            self._deadline = None
            self._close_at(self._waits_since + self.timeout_keep_alive)

    def _close_at(self, moment: float) -> None:
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_at(moment, self.timeout_keep_alive_handler)
