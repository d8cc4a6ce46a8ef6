"""Key-value caches for batched generation: one to prefill behind a shared prefix, one of slots to decode in.

transformers' DynamicCache copies the whole cache for every new token and needs one length for all rows. A slot holds
one prompt of its own length in memory laid out in advance; a finished prompt's slot is taken over by the next one
(continuous batching, Yu et al. 2022, "Orca"). Both classes offer what decoder layers call: `update`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Layers", "PrefillCache", "SlotCache", "join"]

# keys and values [rows, key-value heads, tokens, head size] of every layer
Layers = list[tuple["Tensor", "Tensor"]]

# slots grow by this many tokens at a time
GROWTH_TOKENS = 64


def join(prefix: Layers, added: Layers) -> Layers:
    """Append one prompt's layers to its prefix's along the tokens."""
    import torch

    if not prefix:
        return added
    return [
        (torch.cat((one[0], two[0]), dim=2), torch.cat((one[1], two[1]), dim=2))
        for one, two in zip(prefix, added, strict=True)
    ]


class PrefillCache:
    """Let a batch of rows attend to one shared prefix and keep what the rows add.

    Args:
        prefix: The prefix's layers with one row, or an empty list.
    """

    def __init__(self, prefix: Layers) -> None:
        self.prefix = prefix
        self.added: Layers = []

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the number of tokens in the prefix."""
        return self.prefix[layer_idx][0].shape[2] if self.prefix else 0

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Keep a layer's new keys and values [B, heads, T, size]; return them behind the prefix's."""
        import torch

        self.added.append((key_states, value_states))
        if not self.prefix:
            return key_states, value_states
        keys, values = self.prefix[layer_idx]
        rows = key_states.shape[0]
        return (
            torch.cat((keys.expand(rows, -1, -1, -1), key_states), dim=2),
            torch.cat((values.expand(rows, -1, -1, -1), value_states), dim=2),
        )


class SlotCache:
    """Hold up to `slots` prompts of different lengths; the active ones are always slots 0 to `active - 1`.

    Args:
        slots: Most prompts at once.
    """

    def __init__(self, slots: int) -> None:
        self.slots = slots
        self.lengths: list[int] = []
        self._layers: list[tuple[Tensor, Tensor]] = []
        self._rows: Tensor | None = None
        self._places: Tensor | None = None
        self._seen = 0

    @property
    def active(self) -> int:
        """Return the number of prompts held."""
        return len(self.lengths)

    @property
    def layers(self) -> Layers:
        """Return the memory laid out for the slots, layer by layer."""
        return self._layers

    def get_seq_length(self, _layer_idx: int = 0) -> int:
        """Return the longest prompt's number of tokens."""
        return max(self.lengths, default=0)

    def admit(self, prefix: Layers, added: Layers, tokens: int) -> None:
        """Copy a prompt into the next free slot.

        Args:
            prefix: Layers of its prefix with one row, or an empty list.
            added: Layers of the rest with one row; places behind `tokens` are padding.
            tokens: Number of the rest's tokens.
        """
        shared = prefix[0][0].shape[2] if prefix else 0
        self._reserve(added, shared + tokens)
        slot = self.active
        for number, (keys, values) in enumerate(self._layers):
            if prefix:
                keys[slot, :, :shared] = prefix[number][0][0]
                values[slot, :, :shared] = prefix[number][1][0]
            keys[slot, :, shared : shared + tokens] = added[number][0][0, :, :tokens]
            values[slot, :, shared : shared + tokens] = added[number][1][0, :, :tokens]
        self.lengths.append(shared + tokens)

    def release(self, slot: int) -> None:
        """Free a slot; the last active prompt moves into it, so that the active ones stay side by side."""
        last = self.active - 1
        if slot != last:
            length = self.lengths[last]
            for keys, values in self._layers:
                keys[slot, :, :length] = keys[last, :, :length]
                values[slot, :, :length] = values[last, :, :length]
            self.lengths[slot] = length
        self.lengths.pop()

    def begin_step(self) -> tuple[Tensor, Tensor]:
        """Make room for one more token in every active slot.

        Returns:
            Position of the new token [active, 1], and the additive mask [active, 1, 1, seen] of the step in the
            cache's dtype.
        """
        import torch

        self._seen = self.get_seq_length() + 1
        self._reserve(self._layers, self._seen)
        device, dtype = self._layers[0][0].device, self._layers[0][0].dtype
        self._places = torch.tensor(self.lengths, device=device)
        self._rows = torch.arange(self.active, device=device)
        hidden = torch.arange(self._seen, device=device)[None, :] > self._places[:, None]
        mask = torch.zeros(hidden.shape, dtype=dtype, device=device).masked_fill_(hidden, torch.finfo(dtype).min)
        self.lengths = [length + 1 for length in self.lengths]
        return self._places[:, None], mask[:, None, None, :]

    def update(
        self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_args: object, **_kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Write one token's keys and values [active, heads, 1, size] in place; return all that the step may see."""
        keys, values = self._layers[layer_idx]
        keys[self._rows, :, self._places] = key_states[:, :, 0]
        values[self._rows, :, self._places] = value_states[:, :, 0]
        return keys[: self.active, :, : self._seen], values[: self.active, :, : self._seen]

    def _reserve(self, like: Layers, tokens: int) -> None:
        """Lay out, or lay out anew, memory for `tokens` in every slot."""
        if self._layers and self._layers[0][0].shape[2] >= tokens:
            return
        capacity = -(-tokens // GROWTH_TOKENS) * GROWTH_TOKENS
        grown = []
        for number, pair in enumerate(like):
            both = []
            for which, sample in enumerate(pair):
                # zeros, not empty: a masked place is multiplied by 0, and 0 times a stray NaN is NaN
                room = sample.new_zeros((self.slots, sample.shape[1], capacity, sample.shape[3]))
                if self._layers:
                    old = self._layers[number][which]
                    room[: self.active, :, : old.shape[2]] = old[: self.active]
                both.append(room)
            grown.append((both[0], both[1]))
        self._layers = grown
