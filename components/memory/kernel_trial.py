"""Try kernels on the device at hand before a run is planned with them: the same loss and gradients as without them?

What suits a machine by its description may still not be right on it: a head size that a kernel hasn't, a compiler that
fails, a release that miscounts. Two blocks of the base's class at its widths, with random weights, tell in seconds.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from components.models.kernels import Kernels, Rows

__all__ = ["failure"]

BLOCKS, VOCABULARY = 2, 512
# Longer than a block of FlexAttention's mask, and no multiple of it.
PREFIX_TOKENS, ROW_TOKENS = 150, (40, 90, 7)
# Relative to the norm of what they are compared with. A mask that is wrong is wrong by tenths of it.
TOLERANCES = {"float32": 1e-3, "bfloat16": 0.05, "float16": 0.02}


def failure(
    config: Any, kernels: Kernels, rows: Rows, *, dtype: str, backend: str | Callable[..., Any] = "inductor"
) -> str | None:
    """Compare a packed batch's loss and gradients with and without some kernels.

    Args:
        config: The base's config.
        kernels: What is tried.
        rows: What the rows of a sequence share.
        dtype: dtype of computation.
        backend: torch.compile's.

    Returns:
        None where they are the same but for rounding, else what is wrong, in a clause.
    """
    import torch

    from components.data.packing import collate
    from components.models.block_kernels import batch_layout, kernels_in_use

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = _shallow(config).to(device).train()
        sequences = _sequences(rows)
    try:
        with torch.random.fork_rng():
            expected = _gradients(model, collate(sequences, 0), dtype)
            with kernels_in_use(model, kernels, backend):
                found = _gradients(model, collate(sequences, 0, batch_layout(model, kernels)), dtype)
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[0]
        return f"it fails on this device: {type(error).__name__}: {reason}"
    worst = max(
        float((own - other).norm() / other.norm().clamp_min(1e-12)) for own, other in zip(found, expected, strict=True)
    )
    if not worst <= TOLERANCES[dtype]:
        return f"loss or gradients differ by {worst:.2g} of their size on this device"
    return None


def _shallow(config: Any) -> Any:
    """Build two blocks with random weights; large ones, so that attention isn't the same for every token."""
    import torch
    from transformers import AutoModelForCausalLM

    small = copy.deepcopy(config)
    for name, value in list(vars(small).items()):
        if isinstance(value, list) and len(value) == config.num_hidden_layers:
            setattr(small, name, value[:BLOCKS])
    small.num_hidden_layers = min(BLOCKS, config.num_hidden_layers)
    small.vocab_size = VOCABULARY
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(small, name, None)
    model = AutoModelForCausalLM.from_config(small, dtype=torch.float32, attn_implementation="sdpa")
    with torch.no_grad():
        model.get_input_embeddings().weight.normal_()
    return model


def _sequences(rows: Rows) -> Sequence[Any]:
    import torch

    from components.data.packing import pack_branches
    from components.finetuning.text_schedule import pack_texts

    def drawn(count: int) -> list[int]:
        return torch.randint(0, VOCABULARY, (count,)).tolist()

    if rows == "documents":
        return [sequence for sequence, _ in pack_texts([drawn(count) for count in ROW_TOKENS * 2], PREFIX_TOKENS)]
    lengths = [ROW_TOKENS, ROW_TOKENS[:2]] if rows == "prefix" else [(count,) for count in ROW_TOKENS]
    return [pack_branches(drawn(PREFIX_TOKENS), [(drawn(n), [1.0] * n) for n in of_one]) for of_one in lengths]


def _gradients(model: Any, batch: dict[str, Any], dtype: str) -> list[Any]:
    """Return a batch's loss and its gradients by the weights.

    Those by biases are left out: a key's bias moves no attention, so that its gradient is rounding alone.
    """
    import torch

    from components.finetuning.loss import forward_loss

    device = model.get_input_embeddings().weight.device
    batch = {name: value.to(device) for name, value in batch.items()}
    model.zero_grad(set_to_none=True)
    # a base may have dropout of its own
    torch.manual_seed(0)
    with torch.autocast(device.type, dtype=getattr(torch, dtype), enabled=dtype != "float32"):
        loss = forward_loss(model, batch, float(batch["weights"].sum()))
    loss.backward()  # type: ignore[no-untyped-call]
    return [
        loss.detach(),
        *(weight.grad for weight in model.parameters() if weight.dim() > 1 and weight.grad is not None),
    ]
