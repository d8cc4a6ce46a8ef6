from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.models.tiny import make_tiny


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"), seed=3)


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_folder)


@pytest.fixture
def tiny_model(tiny_folder: Path) -> Any:
    """A tiny model with large weights in its layers: as initialised it only repeats the last token."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "proj" in name:
                parameter *= 12
    return model


@pytest.fixture
def reference_flex(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """FlexAttention by torch's own reference on a CPU, its refusal of gradients there lifted.

    The reference lays out all scores and applies the mask's function to each; its kernels are for GPUs.
    """
    from torch.nn.attention import flex_attention
    from transformers.integrations import flex_attention as integration

    def uncompiled(query: Any, key: Any, value: Any, training: bool = False, **named: Any) -> Any:
        return flex_attention.flex_attention(query, key, value, **named)

    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setattr(flex_attention, "_WARNINGS_SHOWN", {"flex_attention_performance"})
    monkeypatch.setattr(integration, "compile_friendly_flex_attention", uncompiled)
    yield
    import torch

    torch._dynamo.reset()
