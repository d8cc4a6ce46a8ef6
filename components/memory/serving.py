"""The serving plan: base, key-value caches at a concurrency, adapters; how many users or adapters a budget holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.memory.hardware import Budget
from components.memory.kv_cache_size import KeyValueCache, read_cache
from components.memory.process import CUDA_CONTEXT_BYTES
from components.memory.quantized_layers import scale_tensors
from components.memory.search import HEADROOM_FRACTION
from components.memory.settings import StepSettings
from components.memory.tracked_model import TrackedModel
from components.models.base_config import read_config
from components.models.rope import RopeScaling, cached_positions, scale_config

__all__ = ["ServingPlan", "plan_serving"]

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# peft keeps the factors of an adapter in float32 beside a base in 16 bits
ADAPTER_VALUE_BYTES = 4
# interpreter, torch, transformers and the server, as resident memory of a process that has loaded no model
CPU_PROCESS_BYTES = 700_000_000
QUANTIZATIONS = ("none", "nf4", "int8")


@dataclass(frozen=True)
class ServingPlan:
    """What serving takes; sizes in bytes.

    Attributes:
        concurrency: Requests at once.
        context_tokens: Tokens of a request, prompt and answer.
        adapters: Adapters that are loaded at once.
        rank: Their rank.
        dtype: dtype of weights, computation and cache.
        quantization: none, nf4 or int8.
        weights_bytes: The base.
        kv_bytes_per_user: The cache of one request of full length.
        adapter_bytes: One adapter.
        logits_bytes_per_user: The logits of one request in a step.
        activation_bytes: One block's activations for a prompt of full length.
        process_bytes: Frameworks, or the CUDA context.
        budget: The budget.
        cache: The cache's shapes.
    """

    concurrency: int
    context_tokens: int
    adapters: int
    rank: int
    dtype: str
    quantization: str
    weights_bytes: int
    kv_bytes_per_user: int
    adapter_bytes: int
    logits_bytes_per_user: int
    activation_bytes: int
    process_bytes: int
    budget: Budget
    cache: KeyValueCache

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self._fixed_bytes + self.concurrency * self._user_bytes + self.adapters * self.adapter_bytes

    @property
    def working_bytes(self) -> int:
        """Logits of a step, and activations of one prompt of full length."""
        return self.concurrency * self.logits_bytes_per_user + self.activation_bytes

    @property
    def fits(self) -> bool:
        """Whether the head-room stays free."""
        return self.total_bytes <= self._limit_bytes

    @property
    def most_users(self) -> int:
        """Requests at once that fit beside the adapters."""
        return self._how_many(self.adapters * self.adapter_bytes, self._user_bytes)

    @property
    def most_adapters(self) -> int:
        """Adapters that fit beside the requests."""
        return self._how_many(self.concurrency * self._user_bytes, self.adapter_bytes)

    @property
    def _fixed_bytes(self) -> int:
        return self.weights_bytes + self.activation_bytes + self.process_bytes

    @property
    def _user_bytes(self) -> int:
        return self.kv_bytes_per_user + self.logits_bytes_per_user

    @property
    def _limit_bytes(self) -> int:
        return round(self.budget.budget_bytes * (1 - HEADROOM_FRACTION))

    def _how_many(self, taken: int, each: int) -> int:
        return max(0, (self._limit_bytes - self._fixed_bytes - taken) // each)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document of `plan --serve`."""
        per_token = self.cache.values(1) * BYTES[self.dtype]
        return {
            "concurrency": self.concurrency,
            "context_tokens": self.context_tokens,
            "adapters": self.adapters,
            "rank": self.rank,
            "dtype": self.dtype,
            "quantization": self.quantization,
            "weights_bytes": self.weights_bytes,
            "kv_bytes_per_token": per_token,
            "kv_bytes_per_user": self.kv_bytes_per_user,
            "kv_bytes": self.kv_bytes_per_user * self.concurrency,
            "kv_window_tokens": self.cache.window,
            "stateful_layers": self.cache.stateful_layers,
            "adapter_bytes": self.adapter_bytes,
            "adapters_bytes": self.adapter_bytes * self.adapters,
            "logits_bytes_per_user": self.logits_bytes_per_user,
            "working_bytes": self.working_bytes,
            "process_bytes": self.process_bytes,
            "total_bytes": self.total_bytes,
            "budget_bytes": self.budget.budget_bytes,
            "budget_source": self.budget.source,
            "headroom_fraction": HEADROOM_FRACTION,
            "fits": self.fits,
            "most_users": self.most_users,
            "most_adapters": self.most_adapters,
            "device": self.budget.device,
        }


def plan_serving(
    base_folder: Path,
    *,
    concurrency: int,
    context_tokens: int,
    adapters: int,
    rank: int,
    targets: str,
    dtype: str,
    quantization: str,
    budget: Budget,
    rope_scaling: RopeScaling | None = None,
) -> ServingPlan:
    """Count what serving a base takes.

    Args:
        base_folder: Folder of the base; only config.json is read.
        concurrency: Requests at once, 1 or more.
        context_tokens: Tokens of each, prompt and answer.
        adapters: LoRA adapters that are loaded at once, 0 or more.
        rank: Their rank.
        targets: Their targets.
        dtype: dtype of weights, computation and cache.
        quantization: none, or nf4 or int8 for linear layers in 4 or 8 bits.
        budget: What the server may take.
        rope_scaling: How the base's positions are scaled, which reaches further.

    Returns:
        The plan.

    Raises:
        InputError: Values out of range or unknown, or a base whose config can't be used or scaled.
    """
    for what, value, allowed in (
        ("dtype", dtype, tuple(BYTES)),
        ("quantization", quantization, QUANTIZATIONS),
    ):
        if value not in allowed:
            raise InputError(f"unknown {what} {value!r}", allowed=", ".join(allowed))
    for what, number, least in (
        ("--concurrency", concurrency, 1),
        ("--context", context_tokens, 1),
        ("--adapters", adapters, 0),
        ("--rank", rank, 1),
    ):
        if number < least:
            raise InputError(f"{what} {number}", allowed=f"{least} or more")
    config = read_config(base_folder)
    if rope_scaling is not None:
        scale_config(config, rope_scaling)
    text = config.get_text_config()
    positions = cached_positions(config)
    if positions is not None and context_tokens > positions:
        raise InputError(
            f"requests of {context_tokens} tokens", allowed=f"at most the {positions} positions that the base knows"
        )
    settings = StepSettings("lora", rank, targets, dtype, quantization=None if quantization == "none" else quantization)
    cache, size = read_cache(config), BYTES[dtype]
    return ServingPlan(
        concurrency=concurrency,
        context_tokens=context_tokens,
        adapters=adapters,
        rank=rank,
        dtype=dtype,
        quantization=quantization,
        weights_bytes=_weights_bytes(config, settings),
        kv_bytes_per_user=cache.values(context_tokens) * size,
        adapter_bytes=_adapter_values(config, settings) * ADAPTER_VALUE_BYTES,
        # as they are computed, and once more as they are chosen from
        logits_bytes_per_user=2 * text.vocab_size * 4,
        activation_bytes=_activation_bytes(text, context_tokens, size),
        process_bytes=_process_bytes(budget),
        budget=budget,
        cache=cache,
    )


def _weights_bytes(config: Any, settings: StepSettings) -> int:
    """Return the bytes of the base as it is served, with the scales of quantized layers.

    Preparing a quantized base for training puts what isn't quantized into float32, which a server doesn't do.
    """
    model = TrackedModel(config, settings, training=False).model
    return sum(tensor.numel() * tensor.element_size() for tensor in (*model.parameters(), *scale_tensors(model)))


def _adapter_values(config: Any, settings: StepSettings) -> int:
    model = TrackedModel(config, settings, training=True).model
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def _process_bytes(budget: Budget) -> int:
    if budget.device == "cpu":
        return CPU_PROCESS_BYTES
    return 0 if budget.beside_context else CUDA_CONTEXT_BYTES


def _activation_bytes(config: Any, context_tokens: int, size: int) -> int:
    inner = getattr(config, "intermediate_size", None) or 4 * config.hidden_size
    return int(context_tokens * (3 * inner + 6 * config.hidden_size) * size)
