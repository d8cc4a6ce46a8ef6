"""`tunewright compare-methods`: a row for each method, measured on the same rows, kept for the next call."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from components.errors import InputError
from components.finetuning.methods import METHODS
from components.recipe import load_recipe
from flows.method_comparison import overrides_of
from tests.flows.conftest import call_command

Project = Callable[..., Path]

pytestmark = pytest.mark.integration


def test_methods_are_trained_measured_and_drawn_once(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    recipe, plot = str(project()), tmp_path / "methods.svg"
    call = ("compare-methods", recipe, "--methods", "full,lora+dora,prompt_tuning")
    status, out, _ = call_command(monkeypatch, capsys, *call, "--plot", str(plot), "--json")
    document = json.loads(out)
    assert status == 0
    assert [row["name"] for row in document["methods"]] == ["full", "lora+dora", "prompt_tuning"]
    full, dora, prompt = document["methods"]
    assert full["trainable_fraction"] == 1.0
    assert full["trainable_parameters"] > dora["trainable_parameters"] > prompt["trainable_parameters"] > 0
    assert full["bytes"] > dora["bytes"] > prompt["bytes"]
    assert (full["merges"], dora["merges"], prompt["merges"]) == (False, True, False)
    assert full["latency"] is None
    assert dora["latency"]["base_seconds"] > 0 < prompt["latency"]["turns"]
    for row in document["methods"]:
        assert 0 <= row["low"] <= row["score"] <= row["high"] <= 1
        assert row["peak_bytes"] > 10**8
    drawn = ElementTree.parse(plot).getroot()
    names = {text.text for text in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {"full", "lora+dora", "prompt_tuning"} <= names

    monkeypatch.setattr("flows.method_comparison._train", None)  # nothing may be trained again
    status, page, _ = call_command(monkeypatch, capsys, *call)
    assert status == 0
    assert all(name in page for name in ("lora+dora", "none when merged", "none: whole weights"))


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--methods", "magic"), "unknown method 'magic'"),
        (("--methods", "full+dora"), "variants that can't be in 'full+dora'"),
        (("--methods", "lora+pissa+loftq"), "variants that can't be in"),
        (("--methods", "qlora+pissa"), "PiSSA"),
        (("--methods", "lora,lora"), "named twice"),
        (("--methods", " , "), "names none"),
        (("--plot", "methods.png"), "is no .svg"),
    ],
)
def test_bad_input_is_told_before_anything_is_trained(
    project: Project,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    options: tuple[str, ...],
    problem: str,
) -> None:
    status, _, err = call_command(monkeypatch, capsys, "compare-methods", str(project()), *options)
    assert (status, problem in err) == (2, True)
    assert not (tmp_path / "home" / "runs").exists()


def test_full_finetuning_for_integers_has_a_name_of_its_own() -> None:
    assert "finetune.quantization_aware=int4" in overrides_of("full+int4")
    for name in ("lora+int4", "full+int8+int4", "full+dora"):
        with pytest.raises(InputError, match="variants that can't be in"):
            overrides_of(name)


@pytest.mark.parametrize(
    "written",
    [
        {"method": "features", "head": "classification", "head_width": 8},
        {"method": "lora", "dora": True, "dev_metric_rows": 4, "report_to": ["tensorboard"], "rope_scaling": "yarn:2"},
        {"method": "qlora", "lora_start": "loftq", "teacher": "tiny", "temperature": 3.0},
        {"method": "full", "quantization_aware": "int8"},
        {"method": "lora", "processes": 2, "parallel": "fsdp"},
    ],
)
def test_what_a_recipe_sets_for_one_method_does_not_keep_it_from_the_others(
    project: Project, written: dict[str, object]
) -> None:
    path = project(finetune=written)
    for name in (*METHODS, "lora+rslora+dora", "qlora+loftq", "full+int8"):
        found = load_recipe(path, None, overrides_of(name)).recipe.finetune
        assert found.method == name.partition("+")[0]
        assert (found.rslora, found.dora) == ("rslora" in name, "dora" in name)
        assert (found.head_width == 8) == ("head_width" in written and name == "features")
        assert (found.teacher is None) == ("teacher" not in written or name == "features")
