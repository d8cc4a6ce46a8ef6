"""Bases for the benchmark: the 135M model from the cache, small random models of several architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.memory.cases import BASE

__all__ = ["folder_of", "small_config"]

HIDDEN, BLOCKS, HEADS, VOCABULARY = 256, 6, 8, 2000


def folder_of(base: str, scratch: Path) -> Path:
    """Return the folder of a base.

    Args:
        base: `BASE`, or an architecture of `small_config`.
        scratch: Where small models are written.
    """
    if base == BASE:
        from components.models.sources import locate_base

        return locate_base("smollm2-135m-instruct").folder
    folder = scratch / base
    if not folder.exists():
        import torch
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(small_config(base), dtype=torch.float32).save_pretrained(folder)
    return folder


def small_config(architecture: str) -> Any:
    """Return the config of a small model.

    Args:
        architecture: llama, mistral, qwen2 or gpt2.
    """
    from transformers import AutoConfig

    if architecture == "gpt2":
        shape = {"n_embd": HIDDEN, "n_layer": BLOCKS, "n_head": HEADS, "n_positions": 1024}
        return AutoConfig.for_model("gpt2", vocab_size=VOCABULARY, resid_pdrop=0.0, embd_pdrop=0.0, **shape)
    return AutoConfig.for_model(
        architecture,
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=3 * HIDDEN,
        num_hidden_layers=BLOCKS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS // 2,
        max_position_embeddings=1024,
    )
