"""Errors as OpenAI's clients expect them: `{"error": {"message", "type", "param", "code"}}` with a fitting status."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from starlette.responses import JSONResponse

from components.errors import InputError, TunewrightError
from deploy.engines.engine import EngineBusyError, EngineNotReadyError

__all__ = ["ApiError", "from_engine", "from_validation", "respond"]

RETRY_SECONDS = 2


class ApiError(Exception):
    """A refusal on its way to the client.

    Args:
        status: HTTP status.
        message: What is wrong, for a person.
        code: What is wrong, for a program.
        param: The request field that it is about.
        headers: Further headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})

    def body(self) -> dict[str, Any]:
        """Return the JSON document of this error."""
        return {"error": {"message": self.message, "type": _type(self.status), "param": self.param, "code": self.code}}


def _type(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def respond(error: ApiError) -> JSONResponse:
    """Return the HTTP answer of an error."""
    return JSONResponse(error.body(), status_code=error.status, headers=error.headers)


def from_engine(error: TunewrightError) -> ApiError:
    """Translate what an engine raised."""
    wait = {"Retry-After": str(RETRY_SECONDS)}
    if isinstance(error, EngineBusyError):
        return ApiError(429, error.problem, "engine_overloaded", headers=wait)
    if isinstance(error, EngineNotReadyError):
        return ApiError(503, error.problem, "model_not_ready", headers=wait)
    if isinstance(error, InputError):
        return ApiError(400, error.problem, "invalid_value", "messages")
    return ApiError(500, error.problem, "engine_failure")


def from_validation(error: ValidationError) -> ApiError:
    """Translate the innermost problem that pydantic found in a request: a union's other branches say less."""
    first = max(error.errors(include_url=False, include_context=False), key=lambda found: len(found["loc"]))
    param = _path(first["loc"])
    kind = first["type"]
    if kind == "missing":
        return ApiError(400, f"Missing required parameter: '{param}'.", "missing_required_parameter", param)
    if kind == "extra_forbidden":
        return ApiError(400, f"Unknown parameter: '{param}'.", "unknown_parameter", param)
    code = "invalid_type" if kind.endswith("_type") or kind in ("int_from_float", "int_parsing") else "invalid_value"
    where = f" for '{param}'" if param else ""
    return ApiError(400, f"Invalid value{where}: {first['msg']}.", code, param)


def _path(location: tuple[int | str, ...]) -> str | None:
    # names in a path come from the request's fields; the tags of a union's branches ('str', 'list[...]') don't
    parts = [part for part in location if isinstance(part, int) or part.isidentifier()]
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts if part != "str")
    return text.lstrip(".") or None
