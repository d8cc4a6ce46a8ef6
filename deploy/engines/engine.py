"""The contract between the endpoint and an engine. The app above knows nothing of torch, an engine nothing of HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from components.data.rows import Message
from components.errors import TunewrightError

__all__ = [
    "Answer",
    "Delta",
    "Engine",
    "EngineBusyError",
    "EngineFailureError",
    "EngineNotReadyError",
    "EngineStatus",
    "FinishReason",
    "Generation",
]

FinishReason = Literal["stop", "length"]


class EngineBusyError(TunewrightError):
    """As many requests wait as the engine is willing to hold."""


class EngineNotReadyError(TunewrightError):
    """The engine is loading, has refused its model, or has been closed."""


class EngineFailureError(TunewrightError):
    """The engine could not finish a request that it had accepted."""


@dataclass(frozen=True)
class Generation:
    """One request, in tokens.

    Attributes:
        prompt: Token ids, at least one.
        max_tokens: Most tokens to generate, at least 1.
        temperature: 0 is greedy; above, logits are divided by it before sampling.
        top_p: Sample among the fewest tokens whose probabilities reach this sum.
        seed: Seed of this request's own random stream; None draws one.
        stop: Texts that end the answer; they are not part of it.
    """

    prompt: tuple[int, ...]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True)
class Delta:
    """A piece of an answer.

    Attributes:
        text: New text, whole characters only; may be empty.
        tokens: Tokens generated so far, the one that ends the turn included.
        finish_reason: Set on the last piece.
    """

    text: str
    tokens: int
    finish_reason: FinishReason | None = None


@dataclass(frozen=True)
class EngineStatus:
    """What an engine can do right now.

    Attributes:
        state: "loading", "ready", "failed" (it refused its model or broke down, and will not become ready) or
            "closed".
        reason: Why it is not ready; empty when it is.
        canary: What the acceptance check found, as plain JSON.
        running: Requests being generated.
        waiting: Requests accepted and not begun.
        exit_status: Where it failed, what a command that was to serve it ends with.
    """

    state: Literal["loading", "ready", "failed", "closed"]
    reason: str = ""
    canary: Mapping[str, Any] = field(default_factory=dict)
    running: int = 0
    waiting: int = 0
    exit_status: int = 0


class Answer(Protocol):
    """The pieces of one answer. Iterating raises EngineFailureError when the generation breaks off."""

    def __aiter__(self) -> AsyncIterator[Delta]:
        """Return itself."""

    async def __anext__(self) -> Delta:
        """Wait for the next piece; the last one has a finish reason."""

    async def aclose(self) -> None:
        """Stop the generation if it still runs."""


class Engine(Protocol):
    """What the endpoint needs of an engine."""

    def start(self) -> None:
        """Begin loading in the background; a second call does nothing."""

    def close(self) -> None:
        """Stop, failing what still runs; may be called more than once."""

    def status(self) -> EngineStatus:
        """Return the present state without blocking."""

    def context_tokens(self) -> int:
        """Return how many tokens prompt and answer may have together. Raises EngineNotReadyError."""

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Render turns with the chat template into token ids. Raises EngineNotReadyError, InputError."""

    def submit(self, request: Generation) -> Answer:
        """Accept a request and return its answer piece by piece; to be called inside a running event loop.

        Raises:
            EngineBusyError: Too many requests wait already.
            EngineNotReadyError: The engine is not ready.
        """
