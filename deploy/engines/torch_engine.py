"""The embedded engine: transformers on CPU or GPU with continuous batching, in one worker thread.

Between two decoding steps of everything that runs, one piece of one waiting prompt is prefilled, so a long prompt
slows the running answers but doesn't halt them (Yu et al. 2022, "Orca"; Agrawal et al. 2023, "Sarathi"). The caches
are those of the evaluation, so that what is served is computed as what was measured.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from components.data.rows import Message
from deploy.engines.engine import (
    Delta,
    EngineBusyError,
    EngineFailureError,
    EngineNotReadyError,
    EngineStatus,
    Generation,
)
from deploy.engines.sampling import make_generator, sample
from deploy.engines.text_stream import TextStream
from deploy.engines.threads import wait_politely

if TYPE_CHECKING:
    from torch import Tensor

    from components.evaluation.kv_cache import Layers

__all__ = ["Job", "TorchEngine"]

logger = logging.getLogger(__name__)

# Tokens of a waiting prompt that are computed between two decoding steps.
PREFILL_TOKENS = 512


class Job:
    """One request on its way; the worker thread owns it, only `cancelled` and `deliver` cross threads."""

    def __init__(self, request: Generation, tokenizer: Any, deliver: Callable[[Delta | Exception], None]) -> None:
        self.request = request
        self.deliver = deliver
        self.cancelled = False
        self.generated: list[int] = []
        self.generator = make_generator(request.seed) if request.temperature > 0 else None
        self.text = TextStream(tokenizer, request.stop)
        self.prefilled: Layers = []
        self.prefilled_tokens = 0


class _Answer:
    """The asynchronous side of a job."""

    def __init__(self, withdraw: Callable[[Job], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Delta | Exception] = asyncio.Queue()
        self._withdraw = withdraw
        self._ended = False
        self.job: Job | None = None

    def deliver(self, piece: Delta | Exception) -> None:
        """Hand a piece over from the worker thread."""
        try:
            self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)
        except RuntimeError:  # the loop has closed: nobody listens any more
            if self.job is not None:
                self.job.cancelled = True

    def __aiter__(self) -> _Answer:
        return self

    async def __anext__(self) -> Delta:
        if self._ended:
            raise StopAsyncIteration
        piece = await self._pieces.get()
        if isinstance(piece, Exception):
            self._ended = True
            raise piece
        self._ended = piece.finish_reason is not None
        return piece

    async def aclose(self) -> None:
        if not self._ended and self.job is not None:
            self._ended = True
            self._withdraw(self.job)


class TorchEngine:
    """Serve a causal language model with full attention.

    Args:
        load: Returns (model, tokenizer); called in the worker thread, so that the endpoint is alive meanwhile.
        accept: Called with the loaded engine before it becomes ready; returns what it found, raises to refuse.
        slots: Answers generated at once.
        waiting_limit: Requests that may wait for a slot.
    """

    def __init__(
        self,
        load: Callable[[], tuple[Any, Any]],
        *,
        accept: Callable[[TorchEngine], Mapping[str, Any]] | None = None,
        slots: int = 8,
        waiting_limit: int = 64,
    ) -> None:
        self._load = load
        self._accept = accept
        self._slots = slots
        self._waiting_limit = waiting_limit
        self._wake = threading.Condition()
        self._status = EngineStatus("loading", "the model is being loaded")
        self._waiting: deque[Job] = deque()
        self._prefilling: Job | None = None
        self._active: list[Job] = []
        self._forward: Any = None
        self._cache: Any = None
        self._empty_cache: Callable[[], Any] = lambda: None
        self._closing = False
        self._loaded = threading.Event()
        self._worker: threading.Thread | None = None
        self.model: Any = None
        self.tokenizer: Any = None
        self._stops: frozenset[int] = frozenset()
        self._positions = 0
        # a tokenizer may not be used by two threads at once: the worker decodes with one, clients encode with another
        self._encoder: Any = None
        self._encoding = threading.Lock()

    # the endpoint's side -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin loading in the worker thread; a second call does nothing."""
        if self._worker is None:
            self._worker = threading.Thread(target=self._run, name="engine", daemon=True)
            self._worker.start()

    def close(self) -> None:
        """Stop the worker, failing what still runs."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        if self._worker is not None:
            self._worker.join()

    def wait_until_loaded(self) -> EngineStatus:
        """Wait until the model is ready or refused, or the engine is closed."""
        self._loaded.wait()
        return self.status()

    def status(self) -> EngineStatus:
        """Return the present state."""
        base = self._status
        return replace(base, running=len(self._begun()), waiting=len(self._waiting))

    def context_tokens(self) -> int:
        """Return how many tokens prompt and answer may have together."""
        self._require_ready()
        return self._positions

    def encode(self, messages: Sequence[Message]) -> list[int]:
        """Render turns with the chat template into token ids."""
        self._require_ready()
        from components.data.chat import prompt_ids

        with self._encoding:
            return prompt_ids(self._encoder, messages)

    def submit(self, request: Generation) -> _Answer:
        """Accept a request; iterate over what is returned inside the same event loop."""
        answer = _Answer(self._withdraw)
        answer.job = job = Job(request, self.tokenizer, answer.deliver)
        with self._wake:
            self._require_ready()
            if len(self._waiting) >= self._waiting_limit:
                raise EngineBusyError(
                    f"{len(self._waiting)} requests wait already", next_step="try again in a few seconds"
                )
            self._waiting.append(job)
            self._wake.notify_all()
        return answer

    def _require_ready(self) -> None:
        if self._status.state != "ready":
            raise EngineNotReadyError(f"the model is not ready: {self._status.reason}")

    def _withdraw(self, job: Job) -> None:
        with self._wake:
            job.cancelled = True
            self._wake.notify_all()

    # the worker's side ---------------------------------------------------------------------------------------------

    def continue_greedily(self, prompt: Sequence[int], tokens: int) -> list[int]:
        """Generate in the calling thread, for the acceptance check before the engine is ready.

        Args:
            prompt: Token ids.
            tokens: Most tokens to generate.

        Returns:
            The generated ids, the one that ends the turn included.

        Raises:
            EngineFailureError: The generation broke off, or logits were not finite.
        """
        pieces: list[Delta | Exception] = []
        job = Job(Generation(tuple(prompt), tokens), self.tokenizer, pieces.append)
        self._waiting.append(job)
        while self._turn():
            pass
        for piece in pieces:
            if isinstance(piece, Exception):
                raise piece
        return job.generated

    def _run(self) -> None:
        wait_politely()
        import torch

        with torch.inference_mode():
            try:
                self.model, self.tokenizer = self._load()
                self._prepare()
                found = self._accept(self) if self._accept else {}
            except Exception as error:
                logger.error("the model was refused: %s", error)
                details, status = getattr(error, "details", {}), getattr(error, "exit_status", 1)
                self._end(EngineStatus("failed", str(error), details, exit_status=status), str(error))
                self._loaded.set()
                return
            self._status = EngineStatus("ready", canary=found)
            self._loaded.set()
            try:
                self._work()
            except Exception as error:
                # what can't be pinned on one request may have left the slots in any state
                logger.exception("the engine broke down")
                reason = f"the engine broke down: {type(error).__name__}"
                self._end(EngineStatus("failed", f"{reason}; restart the server", exit_status=1), reason)
            else:
                self._end(EngineStatus("closed", "the engine has been closed"), "the server is stopping")

    def _work(self) -> None:
        """Answer requests until the engine is closed."""
        while not self._closing:
            if not self._turn():
                with self._wake:
                    if not self._closing and not self._waiting:
                        self._wake.wait()

    def _end(self, status: EngineStatus, reason: str) -> None:
        """Accept nothing more and fail all that was accepted, in one hold of the lock: nobody slips in between."""
        with self._wake:
            self._status = status
            jobs = [*self._begun(), *self._waiting]
            self._waiting.clear()
            self._prefilling, self._active = None, []
            self._fail(jobs, EngineFailureError(reason))

    def _prepare(self) -> None:
        from components.evaluation.generation import stop_ids
        from components.evaluation.kv_cache import SlotCache
        from deploy.engines.forward import Forward

        self._forward = Forward(self.model)
        self._positions = self._forward.positions
        self._stops = stop_ids(self.model, self.tokenizer)
        self._encoder = copy.deepcopy(self.tokenizer)
        self._empty_cache = lambda: SlotCache(self._slots)
        self._cache = self._empty_cache()

    def _begun(self) -> list[Job]:
        # another thread may ask at any moment: an answer must not seem gone, or double, on its way into a slot
        prefilling, active = self._prefilling, list(self._active)
        return active + ([prefilling] if prefilling and prefilling not in active else [])

    def _turn(self) -> bool:
        """Prefill one piece of one prompt and decode one token of everything that runs; False when nothing is left."""
        with self._wake:
            self._waiting = deque(job for job in self._waiting if not job.cancelled)
            if self._prefilling is None and self._waiting and len(self._active) < self._slots:
                self._prefilling = self._waiting.popleft()
        for slot in reversed(range(len(self._active))):
            if self._active[slot].cancelled:
                self._leave(slot)
        if self._prefilling is not None:
            self._prefill(self._prefilling)
        if self._active:
            self._decode()
        if not self._begun():
            self._cache = self._empty_cache()
        return bool(self._begun() or self._waiting)

    def _prefill(self, job: Job) -> None:
        if job.cancelled:
            self._prefilling = None
            return
        prompt = job.request.prompt
        try:
            piece = prompt[job.prefilled_tokens : job.prefilled_tokens + PREFILL_TOKENS]
            logits, job.prefilled = self._forward.prefill(piece, job.prefilled)
            job.prefilled_tokens += len(piece)
            if job.prefilled_tokens < len(prompt):
                return
            layers, job.prefilled = job.prefilled, []
            if not self._advance_or_fail(job, logits):
                self._cache.admit([], layers, layers[0][0].shape[2])
                self._active.append(job)
            self._prefilling = None
        except Exception as error:
            logger.exception("a prompt of %d tokens could not be read", len(prompt))
            self._prefilling = None
            self._fail([job], EngineFailureError(f"the prompt could not be computed: {type(error).__name__}"))

    def _decode(self) -> None:
        try:
            logits = self._forward.decode([job.generated[-1] for job in self._active], self._cache)
        except Exception as error:
            logger.exception("a decoding step of %d answers failed", len(self._active))
            failed, self._active = self._active, []
            self._cache = self._empty_cache()
            self._fail(failed, EngineFailureError(f"the answer broke off: {type(error).__name__}"))
            return
        for slot in reversed(range(len(self._active))):
            if self._advance_or_fail(self._active[slot], logits[slot]):
                self._leave(slot)

    def _advance_or_fail(self, job: Job, logits: Tensor) -> bool:
        """Advance a job; one whose token or text can't be made is failed and over, and the others go on."""
        try:
            return self._advance(job, logits)
        except Exception as error:
            logger.exception("an answer could not be continued after %d tokens", len(job.generated))
            self._fail([job], EngineFailureError(f"the answer broke off: {type(error).__name__}"))
            return True

    def _advance(self, job: Job, logits: Tensor) -> bool:
        """Choose a job's next token and deliver its text; True when the job is over."""
        import torch

        if not bool(torch.isfinite(logits).all()):
            self._fail([job], EngineFailureError("the model's logits are not finite (NaN or infinite)"))
            return True
        request, text = job.request, job.text
        if job.generator is None:
            token = int(logits.argmax().item())
        else:
            token = sample(logits, request.temperature, request.top_p, job.generator)
        job.generated.append(token)
        ended = token in self._stops
        piece = text.push(token)
        over = ended or text.stopped or len(job.generated) >= request.max_tokens
        if over:
            piece += text.finish()
            job.deliver(Delta(piece, len(job.generated), "stop" if ended or text.stopped else "length"))
        else:
            job.deliver(Delta(piece, len(job.generated)))
        return over

    def _leave(self, slot: int) -> None:
        self._cache.release(slot)
        active = list(self._active)
        active[slot] = active[-1]
        self._active = active[:-1]

    def _fail(self, jobs: Sequence[Job], error: Exception) -> None:
        for job in jobs:
            job.deliver(error)
