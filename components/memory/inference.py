"""Simulate passes that train nothing: scoring with logits, and generation with its key-value cache.

Evaluation runs the function behind the suites' likelihoods, generation the prefill and decoding passes of
`components.evaluation.generation` at the moments at which the cache is laid out, grown and full.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.memory.settings import StepSettings, StepShape, check_settings, check_shape
from components.memory.simulate import Simulation
from components.memory.storages import Moment
from components.memory.tracked_model import TrackedModel

__all__ = ["GenerationShape", "InferenceModel"]


@dataclass(frozen=True)
class GenerationShape:
    """What is generated at once.

    Attributes:
        batch_size: Prompts decoded at once.
        prompt_tokens: Tokens of each prompt.
        new_tokens: Tokens that each answer may have.
    """

    batch_size: int
    prompt_tokens: int
    new_tokens: int


class InferenceModel:
    """A frozen model without data, in evaluation mode.

    Args:
        config: A transformers config, or the folder that holds one.
        settings: dtype and quantization; what belongs to training is passed over.

    Raises:
        InputError: Unknown settings, or an architecture without a causal language model.
    """

    def __init__(self, config: Path | Any, settings: StepSettings) -> None:
        check_settings(settings)
        self._tracked = TrackedModel(config, settings, training=False)
        self._model, self._log = self._tracked.model, self._tracked.log

    def evaluate(self, shape: StepShape) -> Simulation:
        """Score every token of a batch, as the suites do.

        Args:
            shape: The batch; checkpointing and accumulation mean nothing here.

        Returns:
            Peak, breakdown and floating-point operations.
        """
        check_shape(StepSettings(), shape)
        import torch

        from components.models.forward import token_log_probs

        rows, tokens = shape.micro_batch_size, shape.sequence_tokens
        started = self._restart()
        with self._tracked.running(), torch.no_grad():
            whole = (torch.zeros(rows, tokens, dtype=torch.int64) for _ in range(3))
            batch: dict[str, Any] = dict(zip(("input_ids", "position_ids", "labels"), whole, strict=True))
            batch["weights"] = torch.ones(rows, tokens)
            batch["attention_mask"] = torch.ones(rows, 1, tokens, tokens, dtype=torch.bool)
            self._log.add(batch.values(), "other")
            self._log.phase = "evaluation"
            token_log_probs(self._model, batch)
        return self._simulation(("evaluation",), started)

    def generate(self, shape: GenerationShape) -> Simulation:
        """Prefill prompts and decode behind them up to the last token.

        Args:
            shape: Prompts at once and their lengths.

        Returns:
            Peak, breakdown (the cache is a category of its own, `cache`) and floating-point operations of the passes
            that were simulated: one prefill of the whole batch and three decoding passes.

        Raises:
            InputError: A shape without prompts or tokens.
        """
        if min(shape.batch_size, shape.prompt_tokens, shape.new_tokens) < 1:
            raise InputError(
                f"{shape.new_tokens} tokens behind {shape.batch_size} prompts of {shape.prompt_tokens}",
                allowed="one or more of each",
            )
        import torch

        from components.evaluation.generation import has_full_attention

        started = self._restart()
        with self._tracked.running(), torch.no_grad():
            if has_full_attention(self._model):
                self._in_slots(shape)
            else:
                self._with_own_cache(shape)
        return self._simulation(("prefill", "decode"), started)

    def moments(self) -> Iterator[Moment]:
        """Yield what was alive after each change of the last run."""
        return self._log.moments()

    def _in_slots(self, shape: GenerationShape) -> None:
        import torch

        from components.evaluation.generation import decode, prefill
        from components.evaluation.kv_cache import GROWTH_TOKENS, PrefillCache, SlotCache
        from components.models.batches import PREFILL_TOKENS

        slots = SlotCache(shape.batch_size)
        at_once = max(1, min(shape.batch_size, PREFILL_TOKENS // shape.prompt_tokens))
        self._log.phase = "prefill"
        while slots.active < shape.batch_size:
            rows = min(at_once, shape.batch_size - slots.active)
            cache = PrefillCache([])
            states = prefill(self._model, torch.zeros(rows, shape.prompt_tokens, dtype=torch.int64), cache)
            self._log.add((tensor for pair in cache.added for tensor in pair), "cache")
            self._choose(states[:, -1])
            for row in range(rows):
                added = [(keys[row : row + 1], values[row : row + 1]) for keys, values in cache.added]
                slots.admit([], added, shape.prompt_tokens)
            self._note(slots)
        # the first new token comes from the prefill pass; its last batch stays alive while others decode
        if shape.new_tokens == 1:
            return
        self._log.phase = "decode"
        last = shape.prompt_tokens + shape.new_tokens - 1
        # the passes before and behind the last growth of the slots, and the last one
        grown = (last - 1) // GROWTH_TOKENS * GROWTH_TOKENS
        for length in sorted({max(shape.prompt_tokens, at) for at in (grown - 1, grown, last - 1)}):
            slots.lengths = [length] * shape.batch_size
            position_ids, mask = slots.begin_step()
            self._note(slots)
            newest = torch.zeros(shape.batch_size, 1, dtype=torch.int64)
            self._choose(decode(self._model, newest, position_ids, mask, slots)[:, -1])

    def _with_own_cache(self, shape: GenerationShape) -> None:
        """Models whose layers see less than all earlier tokens are decoded one by one, by transformers itself."""
        import torch

        self._log.phase = "prefill"
        tokens = torch.zeros(1, shape.prompt_tokens + shape.new_tokens - 1, dtype=torch.int64)
        output = self._model(tokens, use_cache=True, logits_to_keep=1)
        cache = output.past_key_values
        self._note(cache)
        self._log.phase = "decode"
        self._model(tokens[:, :1], past_key_values=cache, use_cache=True, logits_to_keep=1)
        self._note(cache)

    def _note(self, cache: Any) -> None:
        # transformers' caches have layers with keys and values, ours have pairs
        pairs = (layer if isinstance(layer, tuple) else (layer.keys, layer.values) for layer in cache.layers)
        self._log.add((tensor for pair in pairs for tensor in pair), "cache")

    def _choose(self, states: Any) -> None:
        self._model.get_output_embeddings()(states).argmax(dim=-1)

    def _restart(self) -> float:
        self._log.restart()
        return time.perf_counter()

    def _simulation(self, phases: tuple[str, ...], started: float) -> Simulation:
        seconds = time.perf_counter() - started
        return Simulation(self._log.peak(phases), self._log.flops, self._tracked.parameters, 0, seconds)
