"""A wire to PostgreSQL that is listened to: how often a client waits, and what it is told of its session."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_READY, _KEY = b"Z", b"K"


class Wire:
    """Hands bytes on between clients and a server, both on sockets in the file system.

    Attributes:
        waits: How often the server has said that it is ready for more (ReadyForQuery): once for each message, or group
            of messages, that a client waits for.

    Args:
        process_id: What clients are told as their session's process id, as poolers do; None leaves the server's.
    """

    def __init__(self, process_id: int | None = None) -> None:
        self.waits = 0
        self._process_id = process_id
        self._ends: list[socket.socket] = []

    @contextmanager
    def between(self, server: Path, at: Path) -> Iterator[None]:
        """Listen at a path, and hand on to the server's."""
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(at))
        listening.listen()
        self._ends.append(listening)

        def accept() -> None:
            with suppress(OSError):  # closed
                while True:
                    client, _ = listening.accept()
                    session = socket.socket(socket.AF_UNIX)
                    session.connect(str(server))
                    self._ends += [client, session]
                    for act, ends in ((self._ask, (client, session)), (self._answer, (session, client))):
                        threading.Thread(target=act, args=ends, daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        try:
            yield
        finally:
            for end in self._ends:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    @staticmethod
    def _ask(client: socket.socket, session: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                session.sendall(data)
            session.shutdown(socket.SHUT_WR)

    def _answer(self, session: socket.socket, client: socket.socket) -> None:
        with suppress(OSError), session.makefile("rb") as stream:
            while head := stream.read(5):
                kind, length = head[:1], struct.unpack("!i", head[1:])[0]
                body = stream.read(length - 4)
                if kind == _KEY and self._process_id is not None:
                    body = struct.pack("!i", self._process_id) + body[4:]
                self.waits += kind == _READY
                client.sendall(head + body)
