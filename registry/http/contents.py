"""Routes of contents: blobs whole, and uploads that go on where they stopped. Verified on the way in and out.

Out: `Repr-Digest` and the ETag name the sha256 before the first byte, and the last piece is held back until every byte
was hashed; a damaged blob breaks the connection off before its declared length is reached, and asked again from there
it is told as a problem. In: a content becomes a blob
once its whole has the digest in the URL.
"""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager, asynccontextmanager
from itertools import chain
from typing import IO, Annotated, Any

from fastapi import APIRouter, Header, Path
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from registry.blobs import PIECE_BYTES
from registry.errors import BlobsMissing, MissingError, RegistryPathError, RequestInvalid
from registry.http.access import WRITES, matches, router_of
from registry.http.guard import Limits
from registry.http.models import BlobModel, UploadModel
from registry.http.problems import Refused
from registry.http.uploads import Uploads
from registry.store import Registry

__all__ = ["content_routes"]

Sha256 = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="The content's sha256 in lower-case hex.")]
_BINARY: dict[str, Any] = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_SENT: dict[str, Any] = {"requestBody": {"required": True, "content": _BINARY}}


def content_routes(registry: Registry, uploads: Uploads, limits: Limits) -> APIRouter:
    """Return the routes.

    Args:
        registry: Whose blobs they are.
        uploads: Where contents lie until they are whole.
        limits: Bounds on size and time.
    """
    router = router_of("contents")

    @router.head(
        "/blobs/{sha256}",
        response_class=Response,
        responses={200: {"description": "It is stored; Content-Length says how long.", "content": _BINARY}},
    )
    def has_blob(sha256: Sha256) -> Response:
        """Say whether a content is stored, and how long it is. Its bytes are verified when they are read."""
        size = _size(registry, sha256)
        headers = {**_described(sha256), "Content-Length": str(size)}
        return Response(headers=headers, media_type="application/octet-stream")

    @router.get(
        "/blobs/{sha256}",
        response_class=StreamingResponse,
        responses={
            200: {"description": "The content.", "content": _BINARY},
            206: {"description": "The content from the offset of `Range: bytes=N-` on.", "content": _BINARY},
            304: {"description": "The caller has it."},
            416: {"description": "The range begins behind the end."},
        },
    )
    def get_blob(sha256: Sha256, request: Request) -> Response:
        """Send a content, hashed on the way; `Range: bytes=N-` sends what is behind N bytes, hashed from the start."""
        size = _size(registry, sha256)
        headers = _described(sha256)
        if matches(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        first = _offset(request.headers.get("range"))
        if first and first >= size:
            raise Refused(
                416,
                RequestInvalid(f"the content has {size} bytes, the range begins at {first}"),
                {"Content-Range": f"bytes */{size}"},
            )
        if first:
            headers["Content-Range"] = f"bytes {first}-{size - 1}/{size}"
        headers["Content-Length"] = str(size - first)
        pieces = _behind(registry.blobs.pieces(sha256), first)
        # drawn before the answer begins: where it is the last piece, and damage broke the connection off before it, the
        # damage is told as a problem
        begun = next(pieces, b"")
        return StreamingResponse(
            chain((begun,), pieces),
            status_code=206 if first else 200,
            headers=headers,
            media_type="application/octet-stream",
        )

    @router.put("/blobs/{sha256}", response_model=BlobModel, openapi_extra=_SENT, dependencies=[WRITES])
    async def put_blob(sha256: Sha256, request: Request) -> Any:
        """Store a content in one request. One that breaks off leaves nothing; uploads can be gone on with."""
        async with _in_threads(uploads.whole(sha256, _declared(request, limits))) as stream:
            size = await _receive(request, stream, limits, limits.blob_bytes)
            created = await run_in_threadpool(uploads.finish, stream, sha256)
        return {"sha256": sha256, "size": size, "created": created}

    @router.get("/uploads/{sha256}", response_model=UploadModel, dependencies=[WRITES])
    def upload_offset(sha256: Sha256) -> Any:
        """Say how many bytes of a content have come, and whether it is stored whole."""
        offset = uploads.offset(sha256)
        # a content that is being sent again is not whole: what is stored may be damaged
        size = registry.blobs.size(sha256) if offset == 0 else None
        return {"sha256": sha256, "offset": offset if size is None else size, "complete": size is not None}

    @router.patch("/uploads/{sha256}", response_model=UploadModel, openapi_extra=_SENT, dependencies=[WRITES])
    async def append(
        sha256: Sha256,
        request: Request,
        upload_offset: Annotated[int, Header(ge=0, le=2**53, description="How many bytes have come before.")],
        upload_length: Annotated[int, Header(ge=0, le=2**53, description="How many bytes there are in all.")],
    ) -> Any:
        """Send what is behind an offset, or a part of it. The last part makes it a blob, if it has the digest."""
        if upload_length > limits.blob_bytes or upload_offset > upload_length:
            raise Refused(
                413,
                RequestInvalid("the upload is too large", allowed=f"an offset and a length up to {limits.blob_bytes}"),
            )
        _declared(request, limits)
        async with _in_threads(uploads.appending(sha256, upload_offset, upload_length)) as stream:
            offset = upload_offset + await _receive(request, stream, limits, upload_length - upload_offset)
            complete = offset == upload_length
            if complete:
                await run_in_threadpool(uploads.finish, stream, sha256)
        return {"sha256": sha256, "offset": offset, "complete": complete}

    @router.delete("/uploads/{sha256}", status_code=204, dependencies=[WRITES])
    def discard(sha256: Sha256) -> Response:
        """Forget an upload that isn't whole."""
        if not uploads.discard(sha256):
            raise MissingError(f"there is no upload of {sha256}", next_step="GET it to see what has come")
        return Response(status_code=204)

    return router


@asynccontextmanager
async def _in_threads(files: AbstractContextManager[IO[bytes]]) -> AsyncIterator[IO[bytes]]:
    """Enter and leave in a thread: both wait for the disk."""
    stream = await run_in_threadpool(files.__enter__)
    try:
        yield stream
    except BaseException as error:
        # a cancelled request leaves at once, and its file must be let go of all the same
        files.__exit__(type(error), error, error.__traceback__)
        raise
    await run_in_threadpool(files.__exit__, None, None, None)


async def _receive(request: Request, stream: IO[bytes], limits: Limits, most_bytes: int) -> int:
    """Write a request's body to a file as it comes, and return how many bytes came.

    Raises:
        Refused: More than was announced, or too slowly; what was written stays.
        RegistryPathError: The disk is full.
    """
    received, deadline = 0, time.monotonic() + limits.request_seconds
    pieces = request.stream()
    # a server hands a body on in pieces of some kilobytes, and a thread for each takes longer than the disk
    held = bytearray()
    try:
        while True:
            wait = min(limits.idle_seconds, deadline - time.monotonic())
            try:
                piece = await asyncio.wait_for(anext(pieces), max(wait, 0.0))
            except StopAsyncIteration:
                return received
            except TimeoutError:
                error = RequestInvalid(
                    f"the content came too slowly: {received} bytes so far",
                    allowed=f"a piece every {limits.idle_seconds:g} s, and {limits.request_seconds:g} s in all",
                    next_step="ask for the upload's offset and go on there",
                )
                raise Refused(408, error, {"Connection": "close"}) from None
            if received + len(piece) > most_bytes:
                error = RequestInvalid("more bytes came than were announced", allowed=f"{most_bytes} bytes")
                raise Refused(413, error, {"Connection": "close"})
            received += len(piece)
            held += piece
            if len(held) >= PIECE_BYTES:
                whole, held = held, bytearray()
                await run_in_threadpool(_write, stream, whole)
    finally:
        # whatever ended it: what came can be gone on with
        _write(stream, held)


def _write(stream: IO[bytes], piece: bytes | bytearray) -> None:
    try:
        stream.write(piece)
        stream.flush()  # what comes later would be told to nobody
    except OSError as error:
        raise RegistryPathError(
            f"the server can't write the content: {error.strerror}",
            allowed="a server's disk with room",
            next_step="free space on the server, then ask for the offset and go on from there",
        ) from error


def _declared(request: Request, limits: Limits) -> int | None:
    """Return the body's declared length, if it is one that may come."""
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not text.isdigit() or int(text) > limits.blob_bytes:
        raise Refused(413, RequestInvalid("the content is too large", allowed=f"at most {limits.blob_bytes} bytes"))
    return int(text)


def _size(registry: Registry, sha256: str) -> int:
    size = registry.blobs.size(sha256)
    if size is None:
        raise BlobsMissing(f"no content with sha256 {sha256} is stored", missing=[sha256])
    return size


def _described(sha256: str) -> dict[str, str]:
    # a content never changes under its digest
    return {
        "ETag": f'"{sha256}"',
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(sha256)).decode()}:",
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, max-age=31536000, immutable",
        "Content-Disposition": "attachment",
    }


def _offset(header: str | None) -> int:
    """Return where an open range begins; every other range is answered with the whole, as RFC 9110 allows."""
    found = re.fullmatch(r"bytes=([0-9]{1,16})-", header or "")
    return 0 if found is None else int(found[1])


def _behind(pieces: Iterator[bytes], first: int) -> Iterator[bytes]:
    for piece in pieces:
        if first < len(piece):
            yield piece[first:] if first > 0 else piece
        first -= len(piece)
