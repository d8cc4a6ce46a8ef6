"""A client's contents: sent and fetched in pieces, gone on with after a broken connection, hashed at both ends."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import httpx

from registry.errors import BlobCorrupted, FileRefused, ServerUnavailable, UploadConflict
from registry.http.problems import error_of

__all__ = ["Progress", "RemoteBlobs", "raise_for", "send"]

# bytes done, bytes in all
Progress = Callable[[int, int], object]

PIECE_BYTES = 1 << 20
# One request's part of an upload: short enough for any time limit, long enough for its round trip not to matter.
PART_BYTES = 64 << 20
# Tries in a row without a byte more.
TRIES = 5
FIRST_PAUSE_SECONDS = 0.2


def raise_for(answer: httpx.Response) -> None:
    """Raise what an answer's problem document tells of, if it is an error.

    Raises:
        RegistryError: Of the class that the server raised.
    """
    if answer.status_code < 400:
        return
    answer.read()
    try:
        document = answer.json()
    except ValueError:
        document = None
    raise error_of(document if isinstance(document, dict) else {}, answer.status_code)


def _pause(failures: int) -> None:
    time.sleep(FIRST_PAUSE_SECONDS * 2**failures)


def send(http: httpx.Client, source: IO[bytes], sha256: str, size: int, sent: Callable[[int], object]) -> None:
    """Send a content, from where an earlier upload of it stopped.

    Args:
        http: The server's client.
        source: The content, seekable.
        sha256: Its hex digest.
        size: Its length in bytes.
        sent: Called with the number of bytes that the server has, as it grows.

    Raises:
        FileRefused: The content isn't what its digest says.
        ServerUnavailable: The connection broke again and again.
        UploadConflict: Somebody else is sending the same content.
    """
    failures, refused = 0, False
    while True:
        try:
            state = _asked(http.get(f"/v1/uploads/{sha256}"))
            offset, complete = state["offset"], state["complete"]
            # what the registry found missing may be a damaged blob: it is there, and is sent again all the same
            offset = 0 if complete else offset
            while True:
                part = min(PART_BYTES, size - offset)
                answer = http.patch(
                    f"/v1/uploads/{sha256}",
                    content=_part(source, offset, part, sent),
                    headers={
                        "Upload-Offset": str(offset),
                        "Upload-Length": str(size),
                        "Content-Length": str(part),
                        "Content-Type": "application/octet-stream",
                    },
                )
                state = _asked(answer)
                offset, failures = state["offset"], 0
                sent(offset)
                if state["complete"]:
                    return
        except FileRefused:
            # bytes that somebody else left there may have been wrong; they are gone now
            if refused:
                raise
            refused = True
        except (httpx.TransportError, UploadConflict) as error:
            failures += 1
            if failures >= TRIES:
                if isinstance(error, UploadConflict):
                    raise
                raise _broken(http, error) from error
            _pause(failures)


def _asked(answer: httpx.Response) -> dict[str, int]:
    raise_for(answer)
    document: dict[str, int] = answer.json()
    return document


def _part(source: IO[bytes], offset: int, length: int, sent: Callable[[int], object]) -> Iterator[bytes]:
    source.seek(offset)
    done = 0
    while done < length:
        piece = source.read(min(PIECE_BYTES, length - done))
        if not piece:
            return  # the file was cut short meanwhile; the server sees too few bytes
        yield piece
        done += len(piece)
        sent(offset + done)


class RemoteBlobs:
    """A server's contents, for `registry.checkout.check_out`.

    Args:
        http: The server's client.
        received: Called with the number of bytes of each piece.
    """

    def __init__(self, http: httpx.Client, received: Callable[[int], object]) -> None:
        self._http = http
        self._received = received

    def local_path(self, sha256: str) -> Path | None:
        """Return None: contents are fetched, never linked."""

    def read(self, sha256: str, write: Callable[[bytes], object] | None = None) -> int:
        """Fetch a content, hashing it on the way; what was written counts only once this returns.

        Raises:
            BlobCorrupted: It is damaged or gone, or came with another digest.
            ServerUnavailable: The connection broke again and again.
        """
        hasher, done, failures = hashlib.sha256(), 0, 0
        while True:
            before = done
            try:
                headers = {"Range": f"bytes={done}-"} if done else {}
                with self._http.stream("GET", f"/v1/blobs/{sha256}", headers=headers) as answer:
                    raise_for(answer)
                    wanted = done + int(answer.headers["content-length"])
                    for piece in answer.iter_bytes(PIECE_BYTES):
                        hasher.update(piece)
                        done += len(piece)
                        if write is not None:
                            write(piece)
                        self._received(len(piece))
                if done < wanted:
                    raise httpx.RemoteProtocolError(f"{done} of {wanted} bytes came")
                break
            except httpx.TransportError as error:
                failures = 1 if done > before else failures + 1
                if failures >= TRIES:
                    raise _broken(self._http, error) from error
                _pause(failures)
        if hasher.hexdigest() != sha256:
            raise BlobCorrupted(
                f"content {sha256} came with sha256 {hasher.hexdigest()}",
                next_step="try again; `tunewright registry verify` on the server's machine finds damage there",
            )
        return done


def _broken(http: httpx.Client, error: httpx.TransportError) -> ServerUnavailable:
    return ServerUnavailable(
        f"the connection to {http.base_url} broke {TRIES} times: {type(error).__name__}: {error}",
        next_step="run the same again: it goes on where it stopped",
    )
