"""Memory runs out in a step: the run goes on with smaller parts, and its losses are those of a run that had enough."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from components.data.rows import Message, Row
from components.errors import InputError, VerdictError
from components.finetuning import loss
from components.finetuning.finetune import DevSettings, FinetuneResult, FinetuneSettings, finetune
from components.finetuning.lora import LoraSettings
from components.finetuning.out_of_memory import (
    EffectiveBatch,
    Split,
    is_out_of_memory,
    random_states,
    restore_random,
    smaller,
    told_clearly,
)
from components.models.tiny import make_tiny

Allocate = Callable[[int, int], None]
TOO_MUCH = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to ..."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def run(base: Path, folder: Path, said: list[str], **changes: Any) -> FinetuneResult:
    rows = [
        Row(
            (
                Message("system", f"table{number % 3}(id, name)"),
                Message("user", f"How many rows in table {number}?"),
                Message("assistant", f"SELECT count(*) FROM table{number % 3}"),
            ),
            {"subset": "single-table"},
            number + 1,
        )
        for number in range(12)
    ]
    settings: dict[str, Any] = {
        "micro_batch_size": 4, "gradient_accumulation_steps": 1, "learning_rate": 5e-3, "epochs": 4.0,
        "rows_per_sequence": 2,
    }  # fmt: skip
    chosen = FinetuneSettings("lora", LoraSettings(rank=4), **(settings | changes))
    # no other checkpoints than those of every second step
    return finetune(
        base, rows, rows[:4], chosen, run_folder=folder, identity={"data": "d"}, checkpoint_steps=2,
        dev=DevSettings(keep_best=False), say=said.append,
    )  # fmt: skip


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Callable[[Allocate], list[int]]:
    """Let every training pass ask `allocate(pass, sequences)` first; return the list of its micro-batch sizes."""

    def install(allocate: Allocate) -> list[int]:
        from components.finetuning import trainer

        seen: list[int] = []
        real = loss.forward_loss

        def watched(model: Any, batch: dict[str, torch.Tensor], normaliser: float, teacher: Any = None) -> torch.Tensor:
            seen.append(batch["input_ids"].shape[0])
            found = real(model, batch, normaliser, teacher)
            # the forward pass is done: gradients of the parts before this one are there, and must be dropped
            allocate(len(seen), seen[-1])
            return found

        monkeypatch.setattr(trainer, "forward_loss", watched)
        return seen

    return install


def losses(result: FinetuneResult) -> list[float]:
    return [entry["loss"] for entry in result.losses]


@pytest.mark.parametrize("error", [RuntimeError(TOO_MUCH), MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_one_failed_allocation_changes_no_loss(
    base: Path, tmp_path: Path, allocator: Callable[[Allocate], list[int]], error: Exception
) -> None:
    said: list[str] = []
    whole = run(base, tmp_path / "whole", said)
    assert whole.splits == []
    raised: list[int] = []

    def once(number: int, sequences: int) -> None:
        if number == 3 and not raised:
            raised.append(number)
            raise error

    sizes = allocator(once)
    found = run(base, tmp_path / "split", said)
    assert raised
    assert losses(found) == pytest.approx(losses(whole), abs=1e-6, rel=0)
    assert [entry["gradient_norm"] for entry in found.losses] == pytest.approx(
        [entry["gradient_norm"] for entry in whole.losses], rel=1e-4
    )
    step = {"step": 3, "micro_batch_size": 2, "gradient_checkpointing": False, "gradient_accumulation_steps": 2}
    assert found.splits == [step]
    assert sizes[:5] == [4, 4, 4, 2, 2]
    assert max(sizes[3:]) == 2
    assert any("micro-batch 2 x accumulation 2" in line for line in said)


def test_a_failure_late_in_an_effective_batch_sees_all_of_it_again(
    base: Path, tmp_path: Path, allocator: Callable[[Allocate], list[int]]
) -> None:
    shape = {"micro_batch_size": 2, "gradient_accumulation_steps": 2}
    whole = run(base, tmp_path / "whole", [], **shape)

    def second_of_step_2(number: int, sequences: int) -> None:
        if number == 4:
            raise RuntimeError(TOO_MUCH)

    sizes = allocator(second_of_step_2)
    found = run(base, tmp_path / "split", [], **shape)
    assert sizes[:8] == [2, 2, 2, 2, 1, 1, 1, 1]
    assert losses(found) == pytest.approx(losses(whole), abs=1e-6, rel=0)


def test_at_micro_batch_1_checkpointing_is_switched_on(
    base: Path, tmp_path: Path, allocator: Callable[[Allocate], list[int]]
) -> None:
    whole = run(base, tmp_path / "whole", [])
    failures = iter([2, 3, 4])
    next_failure = [next(failures)]

    def thrice(number: int, sequences: int) -> None:
        if number == next_failure[0]:
            next_failure[0] = next(failures, 0)
            raise MemoryError

    allocator(thrice)
    said: list[str] = []
    found = run(base, tmp_path / "split", said)
    assert [(s["micro_batch_size"], s["gradient_checkpointing"]) for s in found.splits] == [
        (2, False), (1, False), (1, True)
    ]  # fmt: skip
    assert losses(found) == pytest.approx(losses(whole), abs=1e-6, rel=0)
    assert any("gradient checkpointing" in line for line in said)


def test_when_nothing_helps_the_verdict_says_what_would(
    base: Path, tmp_path: Path, allocator: Callable[[Allocate], list[int]]
) -> None:
    def after_some_steps(number: int, sequences: int) -> None:
        if number > 4:
            raise RuntimeError(TOO_MUCH)

    sizes = allocator(after_some_steps)
    with pytest.raises(VerdictError, match="out of memory in step 5, with one sequence") as caught:
        run(base, tmp_path, [])
    assert "finetune.max_tokens" in str(caught.value)
    assert sizes[4:] == [4, 2, 1, 1]
    assert (tmp_path / "checkpoint-4").is_dir()


def test_a_resumed_run_keeps_the_smaller_micro_batch(
    base: Path, tmp_path: Path, allocator: Callable[[Allocate], list[int]]
) -> None:
    whole = run(base, tmp_path / "whole", [])

    def first_then_killed(number: int, sequences: int) -> None:
        if sequences == 4:
            raise MemoryError
        if number == 8:
            raise KeyboardInterrupt

    sizes = allocator(first_then_killed)
    with pytest.raises(KeyboardInterrupt):
        run(base, tmp_path / "split", [])
    kept = json.loads((tmp_path / "split" / "checkpoint-2" / "splits.json").read_text())
    assert kept[0]["micro_batch_size"] == 2
    before = len(sizes)
    found = run(base, tmp_path / "split", [])
    assert found.resumed_from == 2
    assert max(sizes[before:]) == 2
    assert len(found.splits) == 1
    assert losses(found) == pytest.approx(losses(whole), abs=1e-6, rel=0)


def test_other_errors_pass(base: Path, tmp_path: Path, allocator: Callable[[Allocate], list[int]]) -> None:
    def broken(number: int, sequences: int) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    sizes = allocator(broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(base, tmp_path, [])
    assert sizes == [4]


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported",
        "CUDA out of memory. Tried to allocate 2.00 GiB.",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "MPS backend out of memory (MPS allocated: 9.00 GB, other allocations: 1.00 GB).",
        "XPU out of memory. Tried to allocate 2.00 GiB",
    ],
)
def test_every_device_says_it_in_its_own_words(text: str) -> None:
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(ValueError(text))


def test_other_errors_of_a_device_are_not_about_memory() -> None:
    assert not is_out_of_memory(RuntimeError("CUDA error: device-side assert triggered"))
    assert not is_out_of_memory(RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED"))


def test_generators_of_all_devices_go_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = random_states()
    drawn = torch.rand(3)
    restore_random(before)
    assert torch.equal(torch.rand(3), drawn)
    cards = [torch.tensor([1]), torch.tensor([2])]
    restored: list[Any] = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_rng_state_all", lambda: list(cards))
    monkeypatch.setattr("torch.cuda.set_rng_state_all", restored.extend)
    restore_random(random_states())
    assert restored == cards


def test_the_accumulation_that_is_told_is_the_number_of_parts() -> None:
    sequence: Any = None
    said: list[str] = []
    # 5 + 5 sequences in parts of at most 2 are six parts, since no part reaches over two micro-batches
    steps = [[[sequence] * 5, [sequence] * 5], [[sequence] * 3]]
    batch = EffectiveBatch(steps, Split(5, False), 0, "mask", lambda: None, said.append)
    batch._make_smaller(0)
    assert batch.splits[-1]["gradient_accumulation_steps"] == 6
    assert "micro-batch 2 x accumulation 6" in said[-1]
    batch._make_smaller(1)
    assert batch.splits[-1]["gradient_accumulation_steps"] == 3


def test_halves_down_to_one_then_checkpointing_then_nothing() -> None:
    assert smaller(Split(5, False)) == Split(2, False)
    assert smaller(Split(2, True)) == Split(1, True)
    assert smaller(Split(1, False)) == Split(1, True)
    assert smaller(Split(1, True)) is None
    assert smaller(Split(2, False, recomputes=False)) == Split(1, False, recomputes=False)
    assert smaller(Split(1, False, recomputes=False)) is None


def test_a_cause_counts_and_a_wrapped_error_becomes_a_verdict() -> None:
    wrapped = InputError("the base can't be loaded")
    wrapped.__cause__ = RuntimeError(TOO_MUCH)
    assert is_out_of_memory(wrapped)
    assert not is_out_of_memory(RuntimeError("other"))
    with pytest.raises(VerdictError, match="out of memory while loading"), told_clearly("while loading"):
        raise MemoryError
    with pytest.raises(ValueError, match="other"), told_clearly("while loading"):
        raise ValueError("other")
