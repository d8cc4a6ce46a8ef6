"""The chat completion request: what is supported, what is refused by name, and what may be there without effect."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from components.data.rows import Message
from deploy.openai_api.errors import ApiError, from_validation

__all__ = ["ChatRequest", "parse_request"]

# Fields that would change the answer and that no engine here honours, each with the values that ask for nothing.
UNSUPPORTED: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "moderation": (),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": (),
    "web_search_options": (),
}
# Fields that are for the provider's books and don't change an answer.
WITHOUT_EFFECT = frozenset(
    {
        "metadata",
        "parallel_tool_calls",
        "prompt_cache_key",
        "prompt_cache_options",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
    }
)


class TextPart(BaseModel):
    """One part of a message's content."""

    model_config = ConfigDict(extra="forbid", strict=True)
    type: Literal["text"]
    text: str


class ChatMessage(BaseModel):
    """One turn."""

    model_config = ConfigDict(extra="forbid", strict=True)
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]
    # sent back by clients that return an assistant's message as they got it
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    audio: None = None
    annotations: list[Any] | None = Field(default=None, max_length=0)

    def as_message(self) -> Message:
        """Return the turn with its text in one piece; a developer's turn is a system's."""
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return Message("system" if self.role == "developer" else self.role, content)


class StreamOptions(BaseModel):
    """How to stream."""

    model_config = ConfigDict(extra="forbid", strict=True)
    include_usage: bool = False
    include_obfuscation: bool | None = None


StopText = Annotated[str, Field(min_length=1, max_length=256)]


class ChatRequest(BaseModel):
    """The part of a chat completion request that is honoured."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    model: str
    messages: list[ChatMessage] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, gt=0, le=1)
    seed: int | None = None
    stop: list[StopText] | None = Field(default=None, max_length=4)

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    def limit(self) -> int | None:
        """Return the most tokens that the client wants, or None."""
        return self.max_completion_tokens or self.max_tokens

    def stops(self) -> tuple[str, ...]:
        """Return the stop texts."""
        return tuple(self.stop or ())


def parse_request(body: bytes) -> ChatRequest:
    """Read and check a request.

    Args:
        body: The HTTP body.

    Raises:
        ApiError: 400, naming the field: not JSON, a wrong type or value, an unsupported or unknown field.
    """
    try:
        document = json.loads(body, parse_constant=_no_constant)
        # a lone surrogate is valid JSON and no text
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The body is not valid JSON: {error}.", "invalid_json") from error
    if not isinstance(document, dict):
        raise ApiError(400, "The body is not a JSON object.", "invalid_type")
    for name, neutral in UNSUPPORTED.items():
        value = document.pop(name, None)
        if value is not None and not any(type(value) in _kinds(one) and value == one for one in neutral):
            allowed = "".join(f", or send {json.dumps(one)}" for one in neutral)
            message = f"'{name}' is not supported here. Leave it out{allowed}."
            raise ApiError(400, message, "unsupported_parameter", name)
    kept = {name: value for name, value in document.items() if name not in WITHOUT_EFFECT}
    try:
        request = ChatRequest.model_validate(kept)
    except ValidationError as error:
        raise from_validation(error) from error
    limits = {request.max_tokens, request.max_completion_tokens} - {None}
    if len(limits) > 1:
        raise ApiError(
            400, "'max_tokens' and 'max_completion_tokens' contradict each other.", "invalid_value", "max_tokens"
        )
    if request.stream_options is not None and not request.stream:
        raise ApiError(400, "'stream_options' needs 'stream': true.", "invalid_value", "stream_options")
    return request


def _kinds(value: Any) -> tuple[type, ...]:
    # 0.0 asks for as little as 0, but true is not 1
    return (int, float) if type(value) in (int, float) else (type(value),)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
