"""Features of prompts: hidden states of a frozen decoder, pooled to one vector each. Between a base and a head.

Which layer and which tokens hold what a task needs is measured by such heads themselves, "probes" (Alain & Bengio 2016,
arXiv:1610.01644). In a decoder only the last token has seen the whole prompt, and it is where the answer would begin:
sequence classification takes its state (Radford et al. 2018, "Improving Language Understanding by Generative
Pre-Training"); the mean over all tokens is what sentence embeddings take.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from components.errors import InputError
from components.models.batches import length_batches
from components.models.forward import causal_model

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["POOLINGS", "check_layer", "check_prompts", "layers_of", "pool", "pooled_states", "prompt_features"]

POOLINGS = ("last", "mean")


def layers_of(config: Any) -> int:
    """Return the number of a decoder's blocks."""
    return int(config.get_text_config().num_hidden_layers)


def check_layer(config: Any, layer: int | str) -> None:
    """Refuse a layer that the base hasn't.

    Raises:
        InputError: With the layers that there are.
    """
    count = layers_of(config)
    if layer != "last" and not (type(layer) is int and 1 <= layer <= count):
        raise InputError(
            f"features of layer {layer!r} of a base with {count} layers",
            allowed=f"1 to {count}, or last",
            next_step="set finetune.head_layer to one of these",
        )


def check_prompts(lengths: Sequence[int], positions: int | None) -> None:
    """Refuse prompts that a base has no positions for.

    Args:
        lengths: Tokens of each prompt.
        positions: What the base knows; None where it has no limit.

    Raises:
        InputError: A prompt is empty or too long.
    """
    for number, length in enumerate(lengths):
        if length < 1:
            raise InputError(f"prompt {number} has no tokens")
        if positions is not None and length > positions:
            raise InputError(
                f"prompt {number} has {length} tokens, and the base has {positions} positions",
                allowed=f"prompts of at most {positions} tokens",
                next_step="shorten the prompt",
            )


def pooled_states(model: Any, ids: Tensor, lengths: Tensor, pooling: str, layer: int | str) -> Tensor:
    """Run one batch through the decoder and pool.

    Args:
        model: A causal language model.
        ids: Token ids [B, T]; what stands behind a prompt's end is padding, which no real token sees.
        lengths: Tokens of each prompt [B].
        pooling: "last", the state of the prompt's last token; "mean", of all its tokens.
        layer: "last", behind the final norm, or the number of a block from 1.

    Returns:
        Features [B, H] float32.
    """
    decoder = causal_model(model).get_decoder()
    # "last" is asked for without the others: a pass that keeps every layer's states takes more memory
    output = decoder(input_ids=ids, use_cache=False, output_hidden_states=layer != "last")
    states = output.last_hidden_state if layer == "last" else output.hidden_states[layer]
    return pool(states, lengths, pooling)


def pool(states: Tensor, lengths: Tensor, pooling: str) -> Tensor:
    """Pool hidden states [B, T, H] of prompts with these lengths [B] to [B, H] float32."""
    import torch

    if pooling == "last":
        return states[torch.arange(states.shape[0], device=states.device), lengths - 1].float()
    inside = torch.arange(states.shape[1], device=states.device)[None, :] < lengths[:, None]
    # float16 has no room for sums
    return (states.float() * inside[..., None]).sum(dim=1) / lengths[:, None]


def prompt_features(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    pooling: str,
    layer: int | str,
    batch_size: int,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Compute the features of prompts, those of like length together.

    Args:
        model: A causal language model in evaluation mode.
        prompts: Token ids of each, none empty.
        pooling: One of `POOLINGS`.
        layer: As `pooled_states` takes it.
        batch_size: Most prompts in one pass.
        progress: Called with (finished, all) after each pass.

    Returns:
        Features [prompts, H] float32 on the CPU, in the order given.
    """
    import torch

    inner = causal_model(model)
    device = inner.get_input_embeddings().weight.device
    lengths = [len(prompt) for prompt in prompts]
    found = torch.empty(len(prompts), inner.config.get_text_config().hidden_size)
    done = 0
    with torch.inference_mode():
        for batch in length_batches(sorted(range(len(prompts)), key=lengths.__getitem__), lengths, batch_size):
            longest = max(lengths[index] for index in batch)
            # any token will do as padding: under the causal mask no real token sees it
            rows = [[*prompts[index], *[prompts[index][-1]] * (longest - lengths[index])] for index in batch]
            sizes = torch.tensor([lengths[index] for index in batch], device=device)
            found[batch] = pooled_states(model, torch.tensor(rows, device=device), sizes, pooling, layer).cpu()
            done += len(batch)
            if progress:
                progress(done, len(prompts))
    return found
