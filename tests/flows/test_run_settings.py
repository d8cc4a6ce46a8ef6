"""What a run and a probe train with, and which kernels are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import InputError
from components.finetuning.lora import LoraSettings
from components.models.kernels import Kernels
from components.paths import home
from components.recipe import load_recipe
from flows.job import Job
from flows.open_job import open_job
from flows.run_settings import check_kernel_wishes, probe_settings, rows_of_a_sequence, run_settings

Project = Callable[..., Path]


def job(project: Project, *overrides: str) -> Job:
    return open_job(load_recipe(project(), None, overrides), home())


@pytest.mark.parametrize(
    "overrides",
    [
        ("finetune.method=prompt_tuning", "finetune.learning_rate=auto"),
        ("finetune.method=full", "finetune.learning_rate=auto"),
        ("finetune.method=full", "finetune.learning_rate=1e-5"),
        ("finetune.method=qlora", "finetune.lora_start=loftq", "finetune.learning_rate=auto"),
    ],
)
def test_a_probe_takes_loras_own_rate_and_start(project: Project, overrides: tuple[str, ...]) -> None:
    expected = probe_settings(job(project, "finetune.method=lora", "finetune.learning_rate=auto"))
    found = probe_settings(job(project, *overrides))
    assert (found.method, found.learning_rate) == ("lora", expected.learning_rate)
    assert isinstance(found.attachment, LoraSettings)
    assert found.attachment.start == "zero"


@pytest.mark.parametrize("epochs", ["auto", "200"])
def test_a_probe_beside_a_head_makes_loras_passes_not_the_heads(project: Project, epochs: str) -> None:
    auto = ("finetune.learning_rate=auto", "finetune.epochs=auto")
    expected = probe_settings(job(project, "finetune.method=lora", *auto))
    path = project()
    # rows that no head learns: the settings alone are looked at
    given = Job(load_recipe(path, None, ("finetune.method=features", f"finetune.epochs={epochs}")), path.parent, home())
    assert probe_settings(given).epochs == expected.epochs
    assert probe_settings(given).epochs < given.tactics.epochs


def test_a_probe_of_a_lora_recipe_trains_as_the_recipe_does(project: Project) -> None:
    given = job(project, "finetune.method=lora", "finetune.learning_rate=3e-4", "finetune.lora_start=pissa")
    assert probe_settings(given) == run_settings(given, {"method": "lora"})
    assert probe_settings(given).learning_rate == 3e-4


def test_kernels_that_this_machine_has_not_are_refused_at_the_door(project: Project) -> None:
    check_kernel_wishes(job(project))
    with pytest.raises(InputError, match=r"finetune\.attention flex: FlexAttention has no backward pass"):
        check_kernel_wishes(job(project, "finetune.attention=flex"))
    with pytest.raises(InputError, match=r"finetune\.liger true"):
        check_kernel_wishes(job(project, "finetune.liger=true"))


def test_kernels_are_those_of_the_plan(project: Project) -> None:
    chosen = {"attention": "flex", "compile": True, "liger": False, "reasons": {}}
    assert run_settings(job(project), {"kernels": chosen}).kernels == Kernels("flex", compile=True)
    # a probe is too short to win back what compiling takes
    assert probe_settings(job(project, "finetune.compile=true")).kernels == Kernels()


def test_what_the_rows_of_a_sequence_share(project: Project) -> None:
    assert rows_of_a_sequence(job(project)) == "prefix"
    assert rows_of_a_sequence(job(project, "finetune.rows_per_sequence=1")) == "alone"
