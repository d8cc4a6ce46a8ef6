"""The FastAPI app round an engine. The same app runs under uvicorn, inside BentoML, and in process in the tests."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response, StreamingResponse

from components.errors import TunewrightError
from deploy.engines.engine import Engine, Generation
from deploy.openai_api.completion import Completion, collect, stream_events
from deploy.openai_api.envelope import Envelope
from deploy.openai_api.errors import ApiError, from_engine, respond
from deploy.openai_api.metrics import Metrics
from deploy.openai_api.schema import ChatRequest, parse_request

__all__ = ["create_app"]


def create_app(
    engine: Engine,
    *,
    model_name: str,
    digest: str,
    token: str | None = None,
    other_names: Sequence[str] = (),
    created: int | None = None,
    default_temperature: float = 0.0,
    default_max_tokens: int | None = None,
    body_limit_bytes: int = 1_048_576,
) -> FastAPI:
    """Build the endpoint of one model.

    Args:
        engine: What generates; started and closed by the app's lifespan.
        model_name: The id that clients name.
        digest: Digest of the version; in the header `x-model-digest` of every answer.
        token: Bearer token that clients must send; None serves clients on this machine only.
        other_names: Further ids for the same model, such as `name:vN` or the alias that it is served by.
        created: Unix time that `/v1/models` states; the app's start when not given.
        default_temperature: Used where a request names none. Greedy, because that is how the model was measured.
        default_max_tokens: Longest answer where a request names no length, as the model was measured; None lets an
            answer run to the context's end.
        body_limit_bytes: Largest request body.

    Returns:
        The app.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await asyncio.to_thread(engine.close)

    app = FastAPI(title="Tunewright", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    metrics = Metrics(engine, model_name, digest)
    names = tuple(dict.fromkeys((model_name, *other_names, digest)))
    card: dict[str, Any] = {
        "id": model_name,
        "object": "model",
        "created": created or int(time.time()),
        "owned_by": "tunewright",
        "digest": digest,
        "default_max_tokens": default_max_tokens,
    }

    @app.exception_handler(ApiError)
    async def _refuse(_request: Request, error: ApiError) -> Response:
        return respond(error)

    @app.exception_handler(HTTPException)
    async def _unrouted(request: Request, error: HTTPException) -> Response:
        message = f"{error.detail}: {request.method} {request.url.path}"
        code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code)
        return respond(ApiError(error.status_code, message, code, headers=error.headers))

    @app.get("/livez")
    async def _livez() -> Response:
        status = engine.status()
        return JSONResponse({"status": "alive"}, status_code=503 if status.state == "closed" else 200)

    @app.get("/readyz")
    async def _readyz() -> Response:
        status = engine.status()
        document: dict[str, Any] = {"status": status.state, "model": model_name, "digest": digest}
        if status.reason:
            document["reason"] = status.reason
        if status.canary:
            document["canary"] = dict(status.canary)
        if status.exit_status:
            document["exit_status"] = status.exit_status
        return JSONResponse(document, status_code=200 if status.state == "ready" else 503)

    @app.get("/metrics")
    async def _metrics() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models")
    async def _models() -> Response:
        return JSONResponse({"object": "list", "data": [card]})

    @app.get("/v1/models/{model_id:path}")
    async def _model(model_id: str) -> Response:
        _require_known(model_id)
        return JSONResponse(card)

    @app.post("/v1/chat/completions")
    async def _chat(request: Request) -> Response:
        arrived = time.perf_counter()
        chat = parse_request(await request.body())
        _require_known(chat.model)
        try:
            generation = await _generation(chat)
            answer = engine.submit(generation)
        except TunewrightError as error:
            raise from_engine(error) from error
        metrics.prompt_tokens.inc(len(generation.prompt))
        completion = Completion(model_name, len(generation.prompt), arrived, metrics)
        if chat.stream:
            with_usage = bool(chat.stream_options and chat.stream_options.include_usage)
            events = stream_events(answer, completion, include_usage=with_usage)
            return StreamingResponse(
                events, media_type="text/event-stream", headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            )
        return await collect(answer, completion, request.receive)

    def _require_known(name: str) -> None:
        if name not in names:
            accepted = ", ".join(f"'{one}'" for one in names)
            message = f"The model '{name}' does not exist here; this server's model is {accepted}."
            raise ApiError(404, message, "model_not_found", "model")

    async def _generation(chat: ChatRequest) -> Generation:
        context = engine.context_tokens()
        prompt = await asyncio.to_thread(engine.encode, [message.as_message() for message in chat.messages])
        wanted = chat.limit()
        if len(prompt) + (wanted or 1) > context:
            answer = f" and {wanted} for the answer" if wanted else ""
            raise ApiError(
                400,
                f"This model's context is {context} tokens; the messages take {len(prompt)}{answer}.",
                "context_length_exceeded",
                "messages",
            )
        return Generation(
            prompt=tuple(prompt),
            max_tokens=wanted or min(default_max_tokens or context, context - len(prompt)),
            temperature=default_temperature if chat.temperature is None else chat.temperature,
            top_p=1.0 if chat.top_p is None else chat.top_p,
            seed=chat.seed,
            stop=chat.stops(),
        )

    app.add_middleware(Envelope, digest=digest, token=token, body_limit_bytes=body_limit_bytes, metrics=metrics)
    return app
