"""A client's contents: sent and fetched in pieces, gone on with after a broken connection, hashed at both ends."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

import httpx

from registry.errors import BlobCorrupted, FileRefused, MissingError, ServerUnavailable, UploadConflict
from registry.http.problems import error_of
from registry.secret_uris import redacted, without_secrets

__all__ = ["VERIFY_SECONDS", "Progress", "RemoteBlobs", "failure_of", "raise_for", "send"]

# bytes done, bytes in all
Progress = Callable[[int, int], object]

PIECE_BYTES = 1 << 20
# One request's part of an upload: short enough for any time limit, long enough for its round trip not to matter.
PART_BYTES = 64 << 20
# Tries in a row without a byte more.
TRIES = 5
FIRST_PAUSE_SECONDS = 0.2
# How long an answer is waited for before which the server reads whole contents: to the last part of an upload, to a
# range, to a registration, and to a verification, which reads every byte that it has.
VERIFY_SECONDS = 6 * 3600.0
# How a server's refusal of another length than was announced begins what it allows.
_OTHER_LENGTH = "Upload-Length "
# Between two questions whether a server is done with that, at most.
LONGEST_PAUSE_SECONDS = 5.0


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


def failure_of(http: httpx.Client, error: httpx.TransportError) -> str:
    """Say why no answer came to a request: nobody is there, nothing was heard in time, or the connection broke."""
    url = str(http.base_url)
    shown, said = without_secrets(url), f"{type(error).__name__}: {redacted(str(error), url)}"
    if isinstance(error, httpx.ReadTimeout):
        return f"the registry at {shown} did not answer in {error.request.extensions['timeout']['read']:g} s"
    if isinstance(error, httpx.ReadError | httpx.WriteError | httpx.WriteTimeout | httpx.ProtocolError):
        return f"the connection to the registry at {shown} broke: {said}"
    return f"the registry at {shown} can't be reached: {said}"


def _pause(failures: int) -> float:
    """Wait for longer each time, and return for how long."""
    seconds = min(FIRST_PAUSE_SECONDS * 2 ** min(failures, 10), LONGEST_PAUSE_SECONDS)
    time.sleep(seconds)
    return seconds


def _patient(http: httpx.Client) -> httpx.Timeout:
    """Return the client's time limits, with time for the server to read a whole content before it answers."""
    usual = http.timeout
    return httpx.Timeout(connect=usual.connect, read=VERIFY_SECONDS, write=usual.write, pool=usual.pool)


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
    # whether what is there was begun with another length, and is to be forgotten; once, so that nobody fights over it
    forget, forgot = False, False
    # whether all bytes came, so that the server hashes them, whoever waits for its answer; and how long was waited then
    all_came, looks, waited = False, 0, 0.0
    while True:
        offset, part = 0, 0
        try:
            if forget:
                _forget(http, sha256)
                forget, forgot = False, True
            state = _asked(http.get(f"/v1/uploads/{sha256}"))
            offset, complete = state["offset"], state["complete"]
            if complete and all_came:
                sent(size)
                return
            # what the registry found missing may be a damaged blob: it is there, and is sent again all the same
            offset = 0 if complete else offset
            if offset > size:  # of a content that was announced to be longer
                raise UploadConflict(f"{offset} bytes of {sha256} are there, it has {size}", allowed=_OTHER_LENGTH)
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
                    timeout=_patient(http) if offset + part == size else http.timeout,
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
            refused, all_came = True, False
        except UploadConflict as error:
            # a digest is of a content of one length, and whoever announced another one has shut it for everybody
            other_length = (error.allowed or "").startswith(_OTHER_LENGTH)
            if other_length and not forgot:
                forget = True
            elif error.offset == size and not other_length and waited < VERIFY_SECONDS:
                # all of it is there, and is being hashed: for a request of ours that was given up, or for another's
                all_came, looks = True, looks + 1
                waited += _pause(looks)
            else:
                failures += 1
                if failures >= TRIES:
                    raise
                _pause(failures)
        except (httpx.TransportError, ServerUnavailable) as error:
            # the latter of a proxy, say, that waits no longer for the server
            if offset + part == size and isinstance(error, httpx.ReadTimeout | ServerUnavailable):
                all_came = True
            failures += 1
            if failures >= TRIES:
                if isinstance(error, ServerUnavailable):
                    raise
                raise _broken(http, error, "run the same again: it goes on where it stopped") from error
            _pause(failures)


def _forget(http: httpx.Client, sha256: str) -> None:
    with suppress(MissingError, UploadConflict):  # gone meanwhile, or being written: the next try says what there is
        raise_for(http.delete(f"/v1/uploads/{sha256}"))


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
                # what lies before a range is hashed before it is answered
                limit = _patient(self._http) if done else self._http.timeout
                with self._http.stream("GET", f"/v1/blobs/{sha256}", headers=headers, timeout=limit) as answer:
                    # from here on bytes come, or the connection is dead
                    answer.request.extensions["timeout"]["read"] = self._http.timeout.read
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
                    raise _broken(self._http, error, "run the same again, which fetches it anew") from error
                _pause(failures)
        if hasher.hexdigest() != sha256:
            raise BlobCorrupted(
                f"content {sha256} came with sha256 {hasher.hexdigest()}",
                next_step="try again; `tunewright registry verify` on the server's machine finds damage there",
            )
        return done


def _broken(http: httpx.Client, error: httpx.TransportError, next_step: str) -> ServerUnavailable:
    return ServerUnavailable(f"{failure_of(http, error)} (tried {TRIES} times)", next_step=next_step)
