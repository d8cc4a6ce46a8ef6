"""Soft prompts: learned positions that stand before every input (prompt tuning, prefix tuning, p-tuning). Behind
forward.py in training and scoring; generation and serving begin their caches with what they leave in each layer.

peft's own forward knows padding masks only. Here rows are packed behind shared prefixes, so that the virtual tokens
are laid before the packed mask: every token sees all of them, and its position counts them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SOFT_PROMPTS", "prompted_states", "soft_prompt_of", "virtual_layers", "virtual_tokens"]

# The methods that leave one.
SOFT_PROMPTS = ("prefix_tuning", "prompt_tuning", "p_tuning")


def soft_prompt_of(model: Any) -> Any | None:
    """Return the peft model whose active adapter is a soft prompt, or None.

    Args:
        model: A causal language model, bare or wrapped by peft or accelerate.
    """
    wrapped = getattr(model, "module", model)
    if not hasattr(wrapped, "peft_config"):
        return None
    return wrapped if wrapped.active_peft_config.is_prompt_learning else None


def virtual_tokens(model: Any) -> int:
    """Return how many positions a soft prompt takes before every input; 0 where there is none."""
    prompt = soft_prompt_of(model)
    return 0 if prompt is None else int(prompt.active_peft_config.num_virtual_tokens)


def prompted_states(prompt: Any, decoder: Any, batch: dict[str, Tensor]) -> Tensor:
    """Run a decoder behind a soft prompt.

    Args:
        prompt: What `soft_prompt_of` returned.
        decoder: The decoder of its base.
        batch: `input_ids`, `position_ids` [B, T] and `attention_mask` [B, 1, T, T] bool, as `collate` gives them.

    Returns:
        Hidden states [B, T, H] of the real tokens.
    """
    import torch

    ids, mask = batch["input_ids"], batch["attention_mask"]
    rows, tokens = ids.shape
    count = virtual_tokens(prompt)
    places = batch["position_ids"] + count
    seen = mask.new_ones(rows, 1, tokens, count)
    if _is_prefix(prompt):
        output = decoder(
            input_ids=ids,
            position_ids=places,
            attention_mask=torch.cat((seen, mask), dim=3),
            past_key_values=prompt.get_prompt(rows),
            use_cache=False,
        )
        return cast("Tensor", output.last_hidden_state)
    own = mask.new_ones(count, count).tril().expand(rows, 1, -1, -1)
    unseen = mask.new_zeros(rows, 1, count, tokens)
    embedded = prompt.get_base_model().get_input_embeddings()(ids)
    output = decoder(
        inputs_embeds=torch.cat((prompt.get_prompt(rows).to(embedded.dtype), embedded), dim=1),
        position_ids=torch.cat((torch.arange(count, device=ids.device).expand(rows, -1), places), dim=1),
        attention_mask=torch.cat((torch.cat((own, unseen), dim=3), torch.cat((seen, mask), dim=3)), dim=2),
        use_cache=False,
    )
    return cast("Tensor", output.last_hidden_state[:, count:])


def virtual_layers(model: Any) -> list[tuple[Tensor, Tensor]]:
    """Return what a soft prompt leaves in the key-value cache: the same for every input, so computed once.

    Args:
        model: A causal language model, bare or wrapped by peft.

    Returns:
        Keys and values [1, key-value heads, virtual tokens, head size] of every layer; empty without a soft prompt.
    """
    prompt = soft_prompt_of(model)
    if prompt is None:
        return []
    found = prompt.get_prompt(1)
    if not _is_prefix(prompt):
        base = prompt.get_base_model()
        embedded = found.to(base.get_input_embeddings().weight.dtype)
        found = base.get_decoder()(inputs_embeds=embedded, use_cache=True).past_key_values
    return [(layer.keys.detach(), layer.values.detach()) for layer in found.layers]


def _is_prefix(prompt: Any) -> bool:
    return str(prompt.active_peft_config.peft_type.value) == "PREFIX_TUNING"
