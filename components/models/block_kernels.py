"""Put the chosen kernels under a model while it trains, and take them away again. Between kernels.py and the trainer.

What is measured, saved and served afterwards runs as it would have without them: the forward passes of the blocks are
compiled in training alone, and what Liger puts into transformers' modules is taken out again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from components.data.packing import Layout
from components.models.blocks import decoder_blocks
from components.models.forward import causal_model
from components.models.kernels import Kernels
from components.models.packed_attention import takes_packed_attention, use_attention
from components.models.soft_prompt import soft_prompt_of

__all__ = ["batch_layout", "kernels_in_use"]

# Ours is the loss: weighted, and over the places that count. Liger's fused one would see none of that.
LIGER_PARTS = {
    "rope": True,
    "rms_norm": True,
    "swiglu": True,
    "cross_entropy": False,
    "fused_linear_cross_entropy": False,
}


def batch_layout(model: Any, kernels: Kernels) -> Layout:
    """Return how batches say which token sees which, for `collate`.

    Args:
        model: The model in training, with what is attached to it.
        kernels: What computes it.
    """
    # virtual tokens are laid before a mask, and some layers' windows are in none but a mask of transformers' own
    if soft_prompt_of(model) is not None or not takes_packed_attention(causal_model(model)):
        return "mask"
    return "rows" if kernels.attention == "sdpa" else "segments"


@contextmanager
def kernels_in_use(model: Any, kernels: Kernels, backend: str | Callable[..., Any] = "inductor") -> Iterator[None]:
    """Let a model compute by some kernels while the block runs.

    Args:
        model: A causal language model, bare or wrapped by peft.
        kernels: What computes it; checked before (`choose_kernels`).
        backend: torch.compile's.

    Raises:
        InputError: Kernels that this model can't use.
    """
    inner = causal_model(model)
    device = inner.get_input_embeddings().weight.device.type
    with ExitStack() as stack:
        if soft_prompt_of(model) is None and use_attention(inner, kernels.attention, device):
            stack.callback(inner.set_attn_implementation, "sdpa")
        if kernels.liger:
            stack.enter_context(_liger(inner))
        if kernels.compile:
            stack.enter_context(_compiled(inner, backend))
        yield


@contextmanager
def _liger(model: Any) -> Iterator[None]:
    """Put Liger's norms, gated layers and rotary positions into a model and into the module of its class."""
    from transformers.integrations.liger import apply_liger_kernel

    # FSDP2 makes a class of its own of a parted model's
    own = next((kind for kind in type(model).__mro__ if kind.__module__.startswith("transformers.")), type(model))
    module = sys.modules[own.__module__]
    of_module = dict(vars(module))
    of_parts = [(part, dict(vars(part))) for part in model.modules()]
    try:
        apply_liger_kernel(model, LIGER_PARTS)
        yield
    finally:
        for holder, before in ((module, of_module), *of_parts):
            now = vars(holder)
            for name in [name for name in now if name not in before]:
                del now[name]
            now.update({name: value for name, value in before.items() if now.get(name) is not value})


@contextmanager
def _compiled(model: Any, backend: str | Callable[..., Any]) -> Iterator[None]:
    """Compile a model's blocks: one graph serves all of them, whose code is the same."""
    import torch
    from torch._inductor import config

    blocks = decoder_blocks(model)
    on_processor = model.get_input_embeddings().weight.device.type == "cpu"
    before = [block.__dict__.get("forward") for block in blocks]
    try:
        for block in blocks:
            eager = block.forward
            # lengths change from batch to batch: with fixed ones each would be compiled anew
            block.forward = _in_training(block, torch.compile(eager, backend=backend, dynamic=True), eager)
        # dropout draws what it would draw uncompiled
        changes: dict[str, Any] = {"fallback_random": True}
        if on_processor:
            # a pool of processes that compile would take memory that nobody planned
            changes["compile_threads"] = 1
        with config.patch(changes):
            yield
    finally:
        for block, own in zip(blocks, before, strict=True):
            block.__dict__.pop("forward", None)
            if own is not None:
                block.forward = own
        # torch keeps eight graphs of a function; a process that trains again and again would then compile no more
        torch.compiler.reset()


def _in_training(block: Any, compiled: Callable[..., Any], eager: Callable[..., Any]) -> Callable[..., Any]:
    """Run the compiled pass where a backward pass goes through the block; measurements in between stay as they are.

    None goes through the first block's input where only adapters are trained: that would be a graph of its own.
    """
    import torch

    def forward(*arguments: Any, **named: Any) -> Any:
        states = arguments[0] if arguments else named["hidden_states"]
        through = block.training and torch.is_grad_enabled() and states.requires_grad
        return (compiled if through else eager)(*arguments, **named)

    return forward
