"""What the batched forward passes ask of a model's attention, and the mask of a prefill. Measured and served alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.models.forward import causal_model

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["has_full_attention", "prefill_places"]


def has_full_attention(model: Any) -> bool:
    """Tell whether every layer sees all earlier tokens and takes an additive 4-d mask, which the caches rely on.

    Args:
        model: A causal language model, bare or wrapped by peft.
    """
    config = causal_model(model).config
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    sliding = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return kinds == {"full_attention"} and not sliding and config._attn_implementation in ("sdpa", "eager")


def prefill_places(seen: int, tokens: int, *, dtype: Any, device: Any) -> tuple[Tensor, Tensor]:
    """Return where a prompt's next tokens stand and what each may see: itself and everything before it.

    Args:
        seen: Tokens before these, already in the cache.
        tokens: New tokens T.
        dtype: The model's dtype.
        device: Where it computes.

    Returns:
        Position ids [1, T], and the additive mask [1, 1, T, seen + T].
    """
    import torch

    places = torch.arange(seen, seen + tokens, device=device)
    hidden = torch.arange(seen + tokens, device=device)[None, :] > places[:, None]
    mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, torch.finfo(dtype).min)
    return places[None], mask[None, None]
