"""One way from tokens to logits for training, evaluation, decision and serving: what is measured is what is trained.

The decoder runs without its head, and the head runs only where it counts. The head is the model's own module (its bias
and an adapter on it included), with the scale and the cap that the model's class puts behind it; `check_logits` holds
this path against the class's own forward pass and refuses a model that it can't reproduce.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from components.errors import InputError
from components.models.packed_attention import attention_inputs
from components.models.soft_prompt import prompted_states, soft_prompt_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["causal_model", "check_logits", "hidden_states", "label_losses", "logits", "text_states", "token_log_probs"]

# Tokens that check_logits compares: the head does the same at every position.
CHECKED_TOKENS = 8


def causal_model(model: Any) -> Any:
    """Return the transformers model inside whatever wraps it (accelerate, peft)."""
    inner = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def hidden_states(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """Run the decoder without its output layer.

    Args:
        model: A causal language model, bare or wrapped by peft.
        batch: `input_ids`, `position_ids` [B, T] and what says which token sees which, as `collate` gives them.

    Returns:
        Hidden states [B, T, H]; those of a soft prompt's positions are left out.
    """
    inner = causal_model(model)
    decoder = inner.get_decoder()
    prompt = soft_prompt_of(model)
    if prompt is not None:
        return prompted_states(prompt, decoder, batch)
    output = decoder(
        input_ids=batch["input_ids"],
        position_ids=batch["position_ids"],
        **attention_inputs(inner, batch),
        use_cache=False,
    )
    states: Tensor = output.last_hidden_state
    return states


def text_states(model: Any, ids: Sequence[int]) -> Tensor:
    """Run the decoder over one whole text, without a mask of its square.

    Args:
        model: A causal language model, bare or wrapped by peft.
        ids: Token ids, T of them.

    Returns:
        Hidden states [T, H]; those of a soft prompt's positions are left out.
    """
    import torch

    device = causal_model(model).get_input_embeddings().weight.device
    tokens = torch.tensor([list(ids)], device=device)
    if soft_prompt_of(model) is not None:
        seen = torch.ones(len(ids), len(ids), dtype=torch.bool, device=device).tril()[None, None]
        places = torch.arange(len(ids), device=device)[None]
        return hidden_states(model, {"input_ids": tokens, "position_ids": places, "attention_mask": seen})[0]
    output = causal_model(model).get_decoder()(input_ids=tokens, use_cache=False)
    states: Tensor = output.last_hidden_state[0]
    return states


def logits(model: Any, states: Tensor) -> Tensor:
    """Put hidden states through the head as the model's class does.

    Args:
        model: A causal language model, bare or wrapped by peft.
        states: Hidden states [..., H].

    Returns:
        Logits [..., V] float32.
    """
    import torch

    inner = causal_model(model)
    head = inner.get_output_embeddings()
    dtype = head.weight.dtype
    # autocast chooses a dtype for both; without it norms kept in float32 may stand before a head in another dtype
    if dtype.is_floating_point and not torch.is_autocast_enabled(states.device.type):
        states = states.to(dtype)
    found: Tensor = head(states)
    config = inner.config.get_text_config()
    multiplier = getattr(config, "logit_scale", None)  # Cohere
    if multiplier is not None:
        found = found * multiplier
    divisor = getattr(config, "logits_scaling", None)  # Granite
    if divisor is not None:
        found = found / divisor
    cap = getattr(config, "final_logit_softcapping", None)  # Gemma
    if cap is not None:
        found = torch.tanh(found / cap) * cap
    return found.float()


def check_logits(model: Any) -> None:
    """Compare this module's logits with those of the model's own forward pass on a few tokens.

    Args:
        model: A causal language model, bare or wrapped by peft; it is put into evaluation mode and back.

    Raises:
        InputError: The model has no head, or its class does more to the logits than is known here.
    """
    import torch

    inner = causal_model(model)
    if inner.get_output_embeddings() is None:
        raise _not_reproduced(inner, "it has no output embeddings")
    embedding = inner.get_input_embeddings().weight
    device, count = embedding.device, min(CHECKED_TOKENS, embedding.shape[0])
    ids = torch.linspace(0, embedding.shape[0] - 1, count, device=device).round().long()[None]
    batch = {
        "input_ids": ids,
        "position_ids": torch.arange(count, device=device)[None],
        "attention_mask": torch.ones(count, count, dtype=torch.bool, device=device).tril()[None, None],
    }
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            expected = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False).logits.float()
            expected = expected[:, -count:]  # a soft prompt's own positions stand before them
            found = logits(model, hidden_states(model, batch))
    finally:
        model.train(was_training)
    # bfloat16 keeps 8 bits: two kernels may differ in the last of them
    relative = 1e-4 if embedding.dtype == torch.float32 and not getattr(inner, "is_quantized", False) else 2**-5
    tolerance = relative * max(1.0, float(expected.abs().max()))
    difference = float((found - expected).abs().max()) if found.shape == expected.shape else float("inf")
    if not difference <= tolerance:
        raise _not_reproduced(inner, f"its logits differ by {difference:.3g}, more than {tolerance:.3g}")


def _not_reproduced(inner: Any, reason: str) -> InputError:
    return InputError(
        f"the logits of {type(inner).__name__} can't be computed from its hidden states: {reason}",
        allowed="a decoder with a linear head, with logit_scale, logits_scaling or final_logit_softcapping at most",
        next_step="choose another base",
    )


def label_losses(model: Any, states: Tensor, labels: Tensor, chunk_tokens: int = 256) -> Tensor:
    """Return the cross-entropy of each label, a chunk of places at a time: logits of all would fill memory.

    Args:
        model: A causal language model, bare or wrapped by peft.
        states: Last hidden states [N, H].
        labels: Token to predict at each place [N].
        chunk_tokens: Places that go through the output layer at once.

    Returns:
        Losses [N] float32, in nats.
    """
    import torch

    found = []
    for start in range(0, len(labels), chunk_tokens):
        part = slice(start, start + chunk_tokens)
        found.append(torch.nn.functional.cross_entropy(logits(model, states[part]), labels[part], reduction="none"))
    return torch.cat(found) if found else states.new_zeros(0, dtype=torch.float32)


def token_log_probs(model: Any, batch: dict[str, Tensor], chunk_tokens: int = 256) -> Tensor:
    """Return the log probability of each label that carries weight.

    Args:
        model: A causal language model, bare or wrapped by peft.
        batch: As `collate` gives it.
        chunk_tokens: Places that go through the output layer at once.

    Returns:
        Log probabilities [B, T] float32, 0 where there is no weight.
    """
    import torch

    states = hidden_states(model, batch)
    chosen = (batch["weights"] > 0) & (batch["labels"] >= 0)
    result = torch.zeros(batch["labels"].shape, dtype=torch.float32, device=states.device)
    result[chosen] = -label_losses(model, states[chosen], batch["labels"][chosen], chunk_tokens)
    return result
