"""A process that trains a few real steps and prints its peak: what the plan is held against.

`python real_step.py FOLDER METHOD DTYPE MICRO_BATCH TOKENS CHECKPOINTING RANK`
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

STEPS = 6


def peak_bytes() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


def main() -> None:
    folder, method, dtype = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    rows, tokens, checkpointing, rank = (int(text) for text in sys.argv[4:8])

    from components.runtime import prepare_process

    prepare_process(1)
    import torch
    from transformers import Trainer  # noqa: F401  (a training process has it)

    from components.finetuning import lora, qlora
    from components.finetuning.loss import forward_loss
    from components.models.load import load_model
    from components.models.packed_attention import use_attention

    model = load_model(folder, dtype=dtype, quantization="nf4" if method == "qlora" else None)
    use_attention(model, "sdpa", "cpu")
    model = (qlora if method == "qlora" else lora).attach(model, lora.LoraSettings(rank=rank))
    model.train()
    if checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4)
    vocabulary = model.get_input_embeddings().weight.shape[0]
    batch = {
        "input_ids": torch.randint(0, vocabulary, (rows, tokens)),
        "position_ids": torch.arange(tokens).expand(rows, tokens).contiguous(),
        "labels": torch.randint(0, vocabulary, (rows, tokens)),
        "weights": torch.ones(rows, tokens),
        "attention_mask": torch.ones(tokens, tokens, dtype=torch.bool).tril().expand(rows, 1, tokens, tokens).clone(),
    }

    def step() -> None:  # a function, so that the graph is gone before the next forward pass, as in the trainer
        with torch.autocast("cpu", dtype=getattr(torch, dtype), enabled=dtype != "float32"):
            loss = forward_loss(model, batch, float(rows * tokens))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(STEPS):
        step()
    print(json.dumps({"peak_bytes": peak_bytes()}))


main()
