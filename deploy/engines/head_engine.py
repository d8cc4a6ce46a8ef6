"""The engine of a base with a head: one pass for each request, those of like length together, and no decoding.

The answer goes out as a generation's does: the label's or number's tokens, cut at the request's length and at its stop
texts. With a temperature a class is drawn from the head's own probabilities; a number is always the same.
"""

from __future__ import annotations

import copy
import logging
from collections import deque
from typing import TYPE_CHECKING

from deploy.engines.engine import Delta, EngineFailureError
from deploy.engines.forward import known_positions
from deploy.engines.sampling import sample
from deploy.engines.torch_engine import Job, TorchEngine

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["HeadEngine"]

logger = logging.getLogger(__name__)


class HeadEngine(TorchEngine):
    """Serve a `HeadedModel`; what it is called with is what a `TorchEngine` is."""

    def _prepare(self) -> None:
        self._positions = known_positions(self.model.base)
        self._encoder = copy.deepcopy(self.tokenizer)

    def _turn(self) -> bool:
        """Answer as many waiting requests as there are slots; False when nothing is left."""
        with self._wake:
            waiting = deque(job for job in self._waiting if not job.cancelled)
            self._active = [waiting.popleft() for _ in range(min(self._slots, len(waiting)))]
            self._waiting = waiting
        jobs = self._active
        if jobs:
            try:
                outputs = self.model.outputs([job.request.prompt for job in jobs], self._slots)
            except Exception as error:
                logger.exception("%d prompts could not be computed", len(jobs))
                self._fail(jobs, EngineFailureError(f"the prompt could not be computed: {type(error).__name__}"))
            else:
                for job, output in zip(jobs, outputs, strict=True):
                    self._answer_or_fail(job, output)
        self._active = []
        return bool(self._waiting)

    def _answer_or_fail(self, job: Job, output: Tensor) -> None:
        try:
            self._answer(job, output)
        except Exception as error:
            logger.exception("an answer could not be made")
            self._fail([job], EngineFailureError(f"the answer broke off: {type(error).__name__}"))

    def _answer(self, job: Job, output: Tensor) -> None:
        import torch

        from components.models.head import answer_ids

        if not bool(torch.isfinite(output).all()):
            self._fail([job], EngineFailureError("the head's outputs are not finite (NaN or infinite)"))
            return
        head, request = self.model.head, job.request
        if job.generator is not None and head.config.task == "classification":
            answer = head.config.labels[sample(output, request.temperature, request.top_p, job.generator)]
        else:
            answer = head.text(output)
        tokens = answer_ids(self.tokenizer, answer)
        piece = ""
        for token in tokens[: request.max_tokens]:
            job.generated.append(token)
            piece += job.text.push(token)
            if job.text.stopped:
                break
        piece += job.text.finish()
        whole = job.text.stopped or len(job.generated) == len(tokens)
        job.deliver(Delta(piece, len(job.generated), "stop" if whole else "length"))
