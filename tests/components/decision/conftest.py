from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.data.rows import Message

QUESTIONS = [f"the quick brown fox number {n} jumps over the lazy dog" for n in range(16)]
WORDS = ("red", "blue", "nine", "over")


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))


def pair(n: int) -> tuple[Message, Message]:
    return Message("user", f"What goes with {WORDS[n % 4]}?"), Message("assistant", WORDS[(n + 1) % 4])


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """A tiny model that has learnt the questions by heart, and the answer word that goes with each word."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from components.data.chat import encode
    from components.models.tiny import make_tiny

    folder: Path = make_tiny(tmp_path_factory.mktemp("trained"), seed=1)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    texts = [encode(tokenizer, pair(n)).input_ids for n in range(16)]
    texts += [tokenizer(text, add_special_tokens=False)["input_ids"] for text in QUESTIONS]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(50):
        for ids in texts:
            batch = torch.tensor([ids])
            model(input_ids=batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), tokenizer
