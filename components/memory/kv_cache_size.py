"""Bytes of a key-value cache, from the config alone: layers, key-value heads, head size, and windows of layers.

A layer with full attention keeps every token; one with a sliding window or in chunks keeps the window; one without
attention (linear attention, state space) keeps a state of fixed size, which is not counted here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from components.errors import InputError

__all__ = ["KeyValueCache", "read_cache"]

_WINDOWED = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
_FULL = "full_attention"


@dataclass(frozen=True)
class KeyValueCache:
    """What one request keeps.

    Attributes:
        values_per_token: For each layer that attends, keys and values of one token.
        windows: For each of these layers the tokens that it keeps at most; None for all.
        stateful_layers: Layers that keep a state of fixed size instead, which isn't counted.
    """

    values_per_token: tuple[int, ...]
    windows: tuple[int | None, ...]
    stateful_layers: int

    def values(self, tokens: int) -> int:
        """Return the values that a request of some tokens keeps."""
        layers = zip(self.values_per_token, self.windows, strict=True)
        return sum(values * (tokens if window is None else min(tokens, window)) for values, window in layers)

    @property
    def window(self) -> int | None:
        """The smallest window of a layer, None where every layer keeps all tokens."""
        return min((window for window in self.windows if window is not None), default=None)


def read_cache(config: Any) -> KeyValueCache:
    """Read the shapes of a cache from a config.

    Args:
        config: A transformers config of a decoder, or of a model with one inside.

    Returns:
        The shapes.

    Raises:
        InputError: A model without attention, which keeps no cache.
    """
    config = config.get_text_config()
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        raise InputError(
            f"{config.model_type} has no attention heads, and so no key-value cache",
            allowed="decoders with attention in some of their layers",
        )
    size = getattr(config, "head_dim", None) or config.hidden_size // heads
    # multi-head latent attention: transformers keeps keys and values unpacked, in sizes of their own
    key, value = getattr(config, "qk_head_dim", None) or size, getattr(config, "v_head_dim", None) or size
    key_value_heads = _key_value_heads(config, heads)
    kinds = _kinds(config)
    attending = [kind for kind in kinds if kind == _FULL or kind in _WINDOWED]
    windows = tuple(getattr(config, _WINDOWED[kind], None) if kind in _WINDOWED else None for kind in attending)
    return KeyValueCache((key_value_heads * (key + value),) * len(attending), windows, len(kinds) - len(attending))


def _key_value_heads(config: Any, heads: int) -> int:
    """Return the heads that keys and values are kept in, by the names of transformers' architectures."""
    if getattr(config, "new_decoder_architecture", False):
        # Falcon's later models share keys and values within groups, and repeat them before they are kept
        return heads
    if getattr(config, "multi_query", False):
        return 1
    found = getattr(config, "num_key_value_heads", None) or getattr(config, "num_kv_heads", None)
    return int(found or heads)


def _kinds(config: Any) -> list[str]:
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return list(kinds)
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return ["sliding_attention" if windowed else _FULL] * config.num_hidden_layers
