from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from components.decision.delivery import plan_delivery
from components.errors import InputError

GIB = 2**30


def plan(folder: Path, tasks: int, budget_bytes: int = GIB, **changed: Any) -> dict[str, Any]:
    settings = {"rank": 8, "targets": "all-linear", "dtype": "float32", **changed}
    return plan_delivery(folder, base="tiny", tasks=tasks, budget_bytes=budget_bytes, **settings)


def way(found: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in found["ways"] if one["name"] == name)


def test_sizes_are_those_of_the_files_and_a_config_is_enough(tiny_folder: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    from components.finetuning.lora import LoraSettings, attach

    shutil.copy(tiny_folder / "config.json", tmp_path)
    found = plan(tmp_path, 3)
    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    attach(model, LoraSettings(rank=8)).save_pretrained(tmp_path / "adapter")
    header = 16 * 1024
    adapter = (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert 0 <= adapter - found["adapter_bytes"] < header
    stored = (tiny_folder / "model.safetensors").stat().st_size
    assert 0 <= stored - found["base_bytes"] < header


def test_each_way_is_so_many_bases_and_adapters(tiny_folder: Path) -> None:
    found = plan(tiny_folder, 5)
    base, adapter = found["base_bytes"], found["adapter_bytes"]
    assert [one["name"] for one in found["ways"]] == [
        "one multitask model", "sequential finetuning", "one adapter a task", "separate models",
    ]  # fmt: skip
    assert way(found, "one multitask model")["storage_bytes"] == base + adapter
    assert way(found, "one adapter a task")["storage_bytes"] == base + 5 * adapter
    assert way(found, "one adapter a task")["serving_bytes"] == round(1.2 * base) + 5 * adapter
    assert way(found, "separate models")["storage_bytes"] == 5 * base
    assert way(found, "separate models")["serving_bytes"] == 5 * round(1.2 * base)
    assert way(found, "separate models")["models"] == 5
    half = plan(tiny_folder, 5, dtype="bfloat16")
    assert (half["base_bytes"], half["adapter_bytes"]) == (base // 2, adapter)


def test_adapters_on_a_shared_base_are_recommended_for_several_tasks_and_one_model_for_one(tiny_folder: Path) -> None:
    assert plan(tiny_folder, 4)["recommended"] == "one adapter a task"
    assert plan(tiny_folder, 1)["recommended"] == "one multitask model"


def test_adapters_that_are_too_many_for_memory_are_counted(tiny_folder: Path) -> None:
    roomy = plan(tiny_folder, 4)
    served, adapter = round(1.2 * roomy["base_bytes"]), roomy["adapter_bytes"]
    found = plan(tiny_folder, 100, budget_bytes=served + 7 * adapter + adapter // 2)
    assert found["adapters_that_fit"] == 7
    assert found["recommended"] == "one adapter a task"
    assert not way(found, "one adapter a task")["fits"]
    assert "7 of 100 adapters" in found["reasons"][-1]
    none = plan(tiny_folder, 100, budget_bytes=served + adapter // 2)
    assert (none["fits"], none["recommended"]) == (True, "one multitask model")
    assert way(none, none["recommended"])["fits"], "merged, one adapter for all takes no memory of its own"
    assert not way(none, "one adapter a task")["fits"]


def test_base_that_does_not_fit_says_so(tiny_folder: Path) -> None:
    found = plan(tiny_folder, 2, budget_bytes=1024)
    assert found["fits"] is False
    assert "smaller base" in found["reasons"][0]


def test_nonsense_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 tasks"):
        plan(tiny_folder, 0)
    with pytest.raises(InputError, match="dtype"):
        plan(tiny_folder, 2, dtype="int3")
    with pytest.raises(InputError, match="match no module"):
        plan(tiny_folder, 2, targets="no_such_layer")
    with pytest.raises(InputError, match=r"no config\.json"):
        plan(tmp_path, 2)
