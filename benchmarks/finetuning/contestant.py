"""One contestant in a process of its own: `python -m benchmarks.finetuning.contestant SPEC`, SPEC being JSON.

Trains on the rows it is given and prints one JSON line: seconds, peak of resident memory, the loss of each step. What
is timed is the training, from its beginning to the end of its last step; the peak is taken from loading on. All see the
same rows, tokens, loss weights, learning rate and rank; who shuffles nothing sees them in the same order.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.finetuning.workloads import ROWS_PER_STEP
from components.data.chat import Encoded, encode
from components.data.rows import Row, read_rows
from components.finetuning.full import FullSettings
from components.finetuning.lora import LoraSettings
from components.finetuning.settings import FinetuneSettings

__all__ = ["CONTESTANTS", "SEED", "Spec", "our_settings"]

RANK, ALPHA, LEARNING_RATE, SEED = 16, 32, 1e-4, 17


@dataclass(frozen=True)
class Spec:
    """What a contestant is told.

    Attributes:
        name: A key of `CONTESTANTS`.
        method: lora, qlora or full.
        dtype: float32 or bfloat16.
        base: Folder of the base.
        rows: JSONL of the rows.
        threads: CPU threads.
    """

    name: str
    method: str
    dtype: str
    base: str
    rows: str
    threads: int


def our_settings(method: str, dtype: str, rows_per_sequence: int) -> FinetuneSettings:
    """Return the settings of our runs: a sequence in a pass, `ROWS_PER_STEP` rows in a step, every row once."""
    return FinetuneSettings(
        method=method,
        attachment=FullSettings() if method == "full" else LoraSettings(RANK, ALPHA, seed=SEED),
        dtype=dtype,
        learning_rate=LEARNING_RATE,
        schedule="constant",
        warmup_fraction=0.0,
        epochs=1.0,
        rows_per_sequence=rows_per_sequence,
        micro_batch_size=1,
        gradient_accumulation_steps=ROWS_PER_STEP // rows_per_sequence,
        max_tokens=4096,
        seed=SEED,
    )


def ours(spec: Spec, rows: list[Row], rows_per_sequence: int) -> dict[str, Any]:
    """Train as `tunewright finetune` does, checkpoints and the check of what was saved included."""
    from components.finetuning.finetune import finetune

    settings = our_settings(spec.method, spec.dtype, rows_per_sequence)
    with tempfile.TemporaryDirectory() as folder:
        found = finetune(Path(spec.base), rows, [], settings, run_folder=Path(folder), identity={})
    return {
        "seconds": found.seconds,
        "peak_bytes": found.peak_bytes,
        "losses": [entry["loss"] for entry in found.losses],
    }


def plain(spec: Spec, rows: list[Row]) -> dict[str, Any]:
    """Train with transformers and peft alone: padded batches, the model's own loss."""
    import torch

    from components.finetuning.memory_watch import MemoryWatch

    encoded = _encoded(spec, rows)
    with MemoryWatch() as memory:
        model = _attached(spec)
        model.train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], LEARNING_RATE, weight_decay=0)
        losses = []
        began = time.perf_counter()
        for start in range(0, len(encoded), ROWS_PER_STEP):
            batch = _padded(encoded[start : start + ROWS_PER_STEP])
            with torch.autocast("cpu", torch.bfloat16, enabled=spec.dtype == "bfloat16"):
                loss = model(**batch).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(float(loss.detach()))
        seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak_bytes": memory.peak_bytes, "losses": losses}


def trl(spec: Spec, rows: list[Row], *, bfloat16_weights: bool = False, **settings: Any) -> dict[str, Any]:
    """Train with TRL's SFTTrainer.

    Args:
        spec: What is trained.
        rows: The rows.
        bfloat16_weights: Keep frozen weights in bfloat16 where the dtype is that; TRL keeps float32 and casts.
        settings: Of `trl.SFTConfig`, in place of TRL's own.
    """
    import datasets
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    from components.finetuning.memory_watch import MemoryWatch

    class Clock(TrainerCallback):
        began = ended = 0.0

        def on_train_begin(self, *given: Any, **rest: Any) -> None:
            self.began = time.perf_counter()

        def on_step_end(self, *given: Any, **rest: Any) -> None:
            self.ended = time.perf_counter()

    encoded = _encoded(spec, rows)
    labels = [
        [token if weight else -100 for token, weight in zip(row.input_ids, row.weights, strict=True)] for row in encoded
    ]
    data = datasets.Dataset.from_dict({"input_ids": [row.input_ids for row in encoded], "labels": labels})
    options: dict[str, Any] = {"dtype": "bfloat16" if bfloat16_weights and spec.dtype == "bfloat16" else "float32"}
    if spec.method == "qlora":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=spec.dtype,
        )
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder, MemoryWatch() as memory:
        config = SFTConfig(
            **{
                "output_dir": folder,
                "per_device_train_batch_size": ROWS_PER_STEP,
                "train_sampling_strategy": "sequential",
                "num_train_epochs": 1,
                "max_length": 4096,
                "learning_rate": LEARNING_RATE,
                "lr_scheduler_type": "constant",
                "bf16": spec.dtype == "bfloat16",
                "logging_steps": 1,
                "save_strategy": "no",
                "report_to": "none",
                "use_cpu": True,
                "disable_tqdm": True,
                **settings,
            }
        )
        trainer = SFTTrainer(
            AutoModelForCausalLM.from_pretrained(spec.base, **options),
            args=config,
            train_dataset=data,
            processing_class=AutoTokenizer.from_pretrained(spec.base),
            peft_config=None
            if spec.method == "full"
            else LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"),
            callbacks=[clock],
        )
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"seconds": clock.ended - clock.began, "peak_bytes": memory.peak_bytes, "losses": losses}


def _encoded(spec: Spec, rows: list[Row]) -> list[Encoded]:
    from components.models.load import load_tokenizer

    tokenizer = load_tokenizer(Path(spec.base))
    return [encode(tokenizer, row.messages, prompt_loss_weight=0.0) for row in rows]


def _attached(spec: Spec) -> Any:
    from components.finetuning.methods import METHODS
    from components.models.load import load_model

    method = METHODS[spec.method]
    dtype = "float32" if method.kind == "full" else spec.dtype
    base = load_model(Path(spec.base), dtype=dtype, quantization=method.quantization)
    return method.attach(base, FullSettings() if spec.method == "full" else LoraSettings(RANK, ALPHA, seed=SEED))


def _padded(rows: list[Encoded]) -> dict[str, Any]:
    import torch

    longest = max(len(row.input_ids) for row in rows)
    ids = torch.zeros(len(rows), longest, dtype=torch.long)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for place, row in enumerate(rows):
        length = len(row.input_ids)
        ids[place, :length] = torch.tensor(row.input_ids)
        mask[place, :length] = 1
        trained = torch.tensor(row.weights) > 0
        labels[place, :length][trained] = ids[place, :length][trained]
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


Run = Callable[[Spec, list[Row]], dict[str, Any]]
CONTESTANTS: dict[str, Run] = {
    "TRL as it comes": trl,
    "TRL, no checkpointing": lambda spec, rows: trl(spec, rows, bfloat16_weights=True, gradient_checkpointing=False),
    "TRL, grouped by length": lambda spec, rows: trl(
        spec,
        rows,
        bfloat16_weights=True,
        gradient_checkpointing=False,
        train_sampling_strategy="group_by_length",
    ),
    "TRL, one row at a time": lambda spec, rows: trl(
        spec,
        rows,
        bfloat16_weights=True,
        gradient_checkpointing=False,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=ROWS_PER_STEP,
    ),
    "transformers and peft": plain,
    "Tunewright, one row a sequence": lambda spec, rows: ours(spec, rows, 1),
    "Tunewright, half a step a sequence": lambda spec, rows: ours(spec, rows, ROWS_PER_STEP // 2),
    "Tunewright": lambda spec, rows: ours(spec, rows, ROWS_PER_STEP),
}
# as it comes it has no settings of the process either
BARE = ("TRL as it comes",)


def main() -> None:
    """Train as told, print what it took."""
    spec = Spec(**json.loads(sys.argv[1]))
    if spec.name not in BARE:
        from components.runtime import prepare_process

        prepare_process(spec.threads)
    import torch

    torch.set_num_threads(spec.threads)
    torch.manual_seed(SEED)
    print(json.dumps(CONTESTANTS[spec.name](spec, read_rows(Path(spec.rows)))))


if __name__ == "__main__":
    main()
