"""What the batched forward passes ask of a model's attention, and the mask of a prefill. Measured and served alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from components.models.forward import causal_model
from components.models.packed_attention import PACKED, sees_all_before

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["has_full_attention", "prefill_places"]


def has_full_attention(model: Any) -> bool:
    """Tell whether every layer sees all earlier tokens and takes an additive 4-d mask, which the caches rely on.

    Args:
        model: A causal language model, bare or wrapped by peft.
    """
    config = causal_model(model).config
    return sees_all_before(config) and config._attn_implementation in ("sdpa", "eager", *PACKED)


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
