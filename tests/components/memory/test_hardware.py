"""Sizes, cgroup limits, and named GPUs."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from components.errors import InputError
from components.memory.gpus import GPUS
from components.memory.hardware import (
    Gpus,
    cgroup_headroom_bytes,
    detect_budget,
    gpu_budget,
    machine,
    parse_size,
)
from components.memory.process import CUDA_CONTEXT_BYTES, cuda_overhead


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * 2**30),
        ("8 gib", 8 * 2**30),
        ("512MiB", 512 * 2**20),
        ("8e9", 8_000_000_000),
        ("1.5GB", 1_500_000_000),
        ("2Gi", 2 * 2**30),
        ("4g", 4_000_000_000),
        ("123", 123),
    ],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "8 apples", "-3GiB", "8GiB extra", "0", "0.2", "1e40", "nan", "inf"])
def test_what_isnt_a_size_is_refused_with_examples(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_size(text)
    assert "8GiB" in str(caught.value)
    assert caught.value.exit_status == 2


@given(st.integers(min_value=1, max_value=2**40))
def test_a_number_of_bytes_is_itself(size: int) -> None:
    assert parse_size(str(size)) == size
    assert parse_size(f"{size}KiB") == size * 1024


def test_a_named_gpu_has_less_than_its_name_says_and_an_unknown_one_lists_them() -> None:
    assert 70 * 2**30 < gpu_budget("a100-80").budget_bytes < 80 * 2**30
    assert gpu_budget("a100-80").device == "cuda"
    with pytest.raises(InputError) as caught:
        gpu_budget("gtx-1")
    assert all(name in str(caught.value) for name in GPUS)


def write_group(folder: Path, **values: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in values.items():
        (folder / name.replace("__", ".")).write_text(value + "\n")


def test_the_least_headroom_on_the_way_to_the_root_counts(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/outer/inner\n")
    write_group(root / "outer" / "inner", memory__max="max", memory__current="100")
    write_group(
        root / "outer", memory__max="1000", memory__current="700", memory__stat="anon 5\ninactive_file 200\nfile 300"
    )
    assert cgroup_headroom_bytes(root, own) == 500
    write_group(root / "outer" / "inner", memory__max="400", memory__current="100")
    assert cgroup_headroom_bytes(root, own) == 300


def test_version_one_limits_are_read_and_no_limit_is_none(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("5:cpu:/\n4:memory:/job\n")
    write_group(root / "memory" / "job", memory__limit_in_bytes="5000", memory__usage_in_bytes="4500")
    write_group(root / "memory", memory__limit_in_bytes="9223372036854771712", memory__usage_in_bytes="100")
    assert cgroup_headroom_bytes(root, own) == 500
    write_group(root / "memory" / "job", memory__limit_in_bytes="9223372036854771712")
    assert cgroup_headroom_bytes(root, own) is None
    assert cgroup_headroom_bytes(root, tmp_path / "missing") is None


def test_a_container_whose_path_isnt_mounted_uses_the_mount(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/on/the/host\n")
    write_group(root, memory__max="800", memory__current="300")
    assert cgroup_headroom_bytes(root, own) == 500


def test_this_machine_has_cores_memory_and_a_budget_within_it() -> None:
    found, budget = machine(), detect_budget()
    assert found.cores >= 1
    assert found.cpu
    assert budget.budget_bytes > 0
    if budget.device == "cpu":
        assert budget.budget_bytes <= found.memory_bytes


def test_a_gpu_is_part_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="a card", total_memory=80_000_000_000, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: card)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert machine().gpus == Gpus("a card", 80_000_000_000, "9.0", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert machine().gpus is None


def test_what_torch_keeps_of_a_gpu_is_free_and_its_context_is_paid_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "is_available": True, "mem_get_info": (60_000, 80_000), "memory_reserved": 9_000, "memory_allocated": 2_000,
        "get_device_name": "a card",
    }.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    found = detect_budget()
    assert (found.budget_bytes, found.device) == (67_000, "cuda")
    assert cuda_overhead(1_000, beside_context=found.beside_context).baseline_bytes == 0
    whole = gpu_budget("a100-80")
    assert cuda_overhead(1_000, beside_context=whole.beside_context).baseline_bytes == CUDA_CONTEXT_BYTES
