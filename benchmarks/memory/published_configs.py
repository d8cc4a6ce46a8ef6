"""The configs behind published figures, written out: no weights and no hub are needed to simulate them."""

from __future__ import annotations

from typing import Any

__all__ = ["llama_7b", "llama_31_8b", "llama_65b"]


def llama_7b() -> Any:
    """Llama 2 7B: 6.74 billion parameters (Touvron et al. 2023, arXiv:2307.09288)."""
    return _llama(hidden=4096, inner=11008, blocks=32, heads=32, groups=32, vocabulary=32000)


def llama_31_8b() -> Any:
    """Llama 3.1 8B: 8.03 billion parameters, grouped-query attention (arXiv:2407.21783)."""
    return _llama(hidden=4096, inner=14336, blocks=32, heads=32, groups=8, vocabulary=128256)


def llama_65b() -> Any:
    """LLaMA 65B: 65.3 billion parameters (Touvron et al. 2023, arXiv:2302.13971)."""
    return _llama(hidden=8192, inner=22016, blocks=80, heads=64, groups=64, vocabulary=32000)


def _llama(*, hidden: int, inner: int, blocks: int, heads: int, groups: int, vocabulary: int) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        max_position_embeddings=4096,
        tie_word_embeddings=False,
        dtype="bfloat16",
    )
