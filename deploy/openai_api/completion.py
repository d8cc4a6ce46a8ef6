"""From an engine's pieces to a chat completion: one document, or server-sent events. A client that leaves stops it."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from starlette.responses import JSONResponse, Response

from components.errors import TunewrightError
from deploy.engines.engine import Answer, Delta
from deploy.openai_api.errors import from_engine

if TYPE_CHECKING:
    from starlette.types import Receive

    from deploy.openai_api.metrics import Metrics

__all__ = ["Completion", "collect", "stream_events"]

CLIENT_CLOSED_REQUEST = 499


@dataclass
class Completion:
    """What a completion's documents share, and its counts so far.

    Attributes:
        model_name: The model's id.
        prompt_tokens: Length of the prompt.
        arrived: `time.perf_counter()` when the request came.
        metrics: Where tokens and seconds are counted.
    """

    model_name: str
    prompt_tokens: int
    arrived: float
    metrics: Metrics
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid4().hex}")
    created: int = field(default_factory=lambda: int(time.time()))
    tokens: int = 0

    def count(self, delta: Delta) -> None:
        """Take note of a piece."""
        if self.tokens == 0:
            self.metrics.first_token_seconds.observe(time.perf_counter() - self.arrived)
        self.metrics.completion_tokens.inc(delta.tokens - self.tokens)
        self.tokens = delta.tokens

    def usage(self) -> dict[str, int]:
        """Return the token counts."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.tokens,
            "total_tokens": self.prompt_tokens + self.tokens,
        }

    def document(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """Return a document of this completion."""
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model_name,
            "system_fingerprint": None,
            "choices": choices,
        }


async def collect(answer: Answer, completion: Completion, receive: Receive) -> Response:
    """Wait for a whole answer, or until the client leaves.

    Args:
        answer: The engine's pieces.
        completion: The completion that they belong to.
        receive: The request's channel, with its body read.

    Returns:
        The chat completion; an empty answer that nobody reads when the client has gone.

    Raises:
        ApiError: The engine broke off.
    """
    reading = asyncio.ensure_future(_read(answer, completion))
    leaving = asyncio.ensure_future(_departure(receive))
    try:
        await asyncio.wait({reading, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not reading.done():
            completion.metrics.disconnects.inc()
            return Response(status_code=CLIENT_CLOSED_REQUEST)
        text, reason = reading.result()
    except TunewrightError as error:
        raise from_engine(error) from error
    finally:
        reading.cancel()
        leaving.cancel()
        await answer.aclose()
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
    return JSONResponse({**completion.document("chat.completion", [choice]), "usage": completion.usage()})


async def stream_events(answer: Answer, completion: Completion, *, include_usage: bool) -> AsyncIterator[bytes]:
    """Yield an answer as server-sent events; closing this iterator stops the generation.

    Args:
        answer: The engine's pieces.
        completion: The completion that they belong to.
        include_usage: Send the token counts in an event of their own before the end.
    """

    def event(delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        document = completion.document("chat.completion.chunk", [choice])
        return _event({**document, "usage": None} if include_usage else document)

    ended = False
    try:
        yield event({"role": "assistant", "content": ""})
        async for delta in answer:
            completion.count(delta)
            if delta.text:
                yield event({"content": delta.text})
            if delta.finish_reason is not None:
                ended = True
                yield event({}, delta.finish_reason)
        if include_usage:
            yield _event({**completion.document("chat.completion.chunk", []), "usage": completion.usage()})
        yield b"data: [DONE]\n\n"
    except TunewrightError as error:
        ended = True
        yield _event(from_engine(error).body())
    finally:
        if not ended:
            completion.metrics.disconnects.inc()
        await answer.aclose()


async def _read(answer: Answer, completion: Completion) -> tuple[str, str | None]:
    pieces: list[str] = []
    reason: str | None = None
    async for delta in answer:
        completion.count(delta)
        pieces.append(delta.text)
        reason = delta.finish_reason
    return "".join(pieces), reason


async def _departure(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _event(document: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(document, ensure_ascii=False)}\n\n".encode()
