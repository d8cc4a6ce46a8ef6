"""One model's forward passes as the torch engine needs them: a piece of a prompt, or one token of every answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from components.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from components.evaluation.kv_cache import Layers, SlotCache

__all__ = ["Forward", "known_positions"]


def known_positions(model: Any) -> int:
    """Return how many positions a prompt and its answer may take together.

    Args:
        model: A transformers model.

    Raises:
        InputError: Its config doesn't say.
    """
    from components.models.rope import cached_positions

    positions = cached_positions(model.config)
    if positions is None:
        raise InputError(
            f"the config of {type(model).__name__} doesn't say how many positions it knows",
            allowed="a config with max_position_embeddings",
            next_step="serve this model with another engine",
        )
    return positions


class Forward:
    """Run a causal language model, bare or wrapped by peft, whose layers all see every earlier token.

    Args:
        model: The model.

    Raises:
        InputError: Some layers see less, which the caches here can't express, or nothing says how far positions go.
    """

    def __init__(self, model: Any) -> None:
        from components.evaluation.attention import has_full_attention
        from components.models.forward import causal_model
        from components.models.soft_prompt import virtual_layers

        inner = causal_model(model)
        if not has_full_attention(model):
            raise InputError(
                f"this engine can't serve {type(inner).__name__} with a sliding or mixed attention, or one that "
                "takes no additive mask",
                allowed="models in which every layer sees all earlier tokens, loaded with sdpa or eager attention",
                next_step="serve this model with another engine",
            )
        model.eval()
        self._model = inner
        self._decoder = inner.get_decoder()
        weight = inner.get_input_embeddings().weight
        self._device, self._dtype = weight.device, weight.dtype
        # what a soft prompt leaves in every layer stands before each prompt, and takes its positions
        self._prefix = virtual_layers(model)
        self._prefix_tokens = self._prefix[0][0].shape[2] if self._prefix else 0
        self.positions = known_positions(inner) - self._prefix_tokens

    def prefill(self, piece: Sequence[int], before: Layers) -> tuple[Tensor, Layers]:
        """Compute one piece of one prompt.

        Args:
            piece: Token ids.
            before: Keys and values of the prompt up to the piece; empty at its beginning.

        Returns:
            Logits [V] float32 after the piece's last token, and the keys and values of all so far, a soft prompt's
            included.
        """
        import torch

        from components.evaluation.attention import prefill_places
        from components.evaluation.kv_cache import PrefillCache, join
        from components.models.forward import logits

        before = before or self._prefix
        cache = PrefillCache(before)
        ids = torch.tensor([list(piece)], device=self._device)
        places, mask = prefill_places(cache.get_seq_length(), len(piece), dtype=self._dtype, device=self._device)
        states = self._states(ids, places, mask, cache)
        return logits(self._model, states[0, -1]), join(before, cache.added)

    def decode(self, newest: Sequence[int], cache: SlotCache) -> Tensor:
        """Compute one more token of every active slot.

        Args:
            newest: The newest token id of each slot.
            cache: Its active slots; they grow by one token.

        Returns:
            Logits [active, V] float32.
        """
        import torch

        from components.models.forward import logits

        position_ids, mask = cache.begin_step()
        ids = torch.tensor(newest, device=self._device)[:, None]
        return logits(self._model, self._states(ids, position_ids, mask, cache)[:, -1])

    def _states(self, ids: Tensor, position_ids: Tensor, mask: Tensor, cache: Any) -> Tensor:
        output = self._decoder(
            input_ids=ids, position_ids=position_ids, attention_mask=mask, past_key_values=cache, use_cache=True
        )
        states: Tensor = output.last_hidden_state
        return states
