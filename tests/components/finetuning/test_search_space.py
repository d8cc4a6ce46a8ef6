"""What a sweep may set: ranges and choices are held against their keys before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from components.errors import InputError
from components.finetuning.search_space import applicable, check_combinations, search_space
from components.recipe import ResolvedRecipe, load_recipe, with_values

RATES = {"low": 1e-4, "high": 1e-2, "log": True}


def resolved(tmp_path: Path, parameters: Any, **finetune: Any) -> ResolvedRecipe:
    path = tmp_path / "recipe.yaml"
    data = {"train": "train.jsonl", "dev": "dev.jsonl", "test": "test.jsonl"}
    document = {
        "name": "swept",
        "base": "a-base",
        "data": data,
        "finetune": finetune,
        "sweep": {"parameters": parameters},
    }
    path.write_text(yaml.safe_dump(document))
    return load_recipe(path)


def test_base_and_method_are_drawn_before_what_depends_on_them(tmp_path: Path) -> None:
    parameters = {
        "finetune.learning_rate": RATES,
        "finetune.rank": {"low": 2, "high": 9, "step": 2},
        "finetune.method": {"choices": ["lora", "full"]},
        "finetune.targets": {"choices": ["all-linear", ["q_proj", "v_proj"]]},
        "base": {"choices": ["one", "two"]},
    }
    space = search_space(resolved(tmp_path, parameters).recipe)
    assert [swept.key for swept in space][:2] == ["base", "finetune.method"]
    by_key = {swept.key: swept for swept in space}
    assert by_key["finetune.rank"].ends == (2, 8)  # 9 is never reached
    assert by_key["finetune.learning_rate"].value(0.00123456) == 0.001235
    assert by_key["finetune.targets"].value('["q_proj","v_proj"]') == ["q_proj", "v_proj"]


@pytest.mark.parametrize(
    ("key", "values", "problem"),
    [
        ("finetune.rnak", {"low": 1, "high": 2}, "unknown key finetune.rnak.*\n.*\n.*did you mean finetune.rank"),
        ("data.train", {"choices": ["a", "b"]}, "unknown key data.train"),
        ("rank", {"low": 1, "high": 2}, "unknown key rank"),
        ("finetune.dev_passes", {"low": 1, "high": 2}, "can't be swept"),
        ("finetune.rank", {"low": 5, "high": 2}, "low 5 is above high 2"),
        ("finetune.rank", {"low": 4, "high": 4}, "nothing to choose"),
        ("finetune.rank", {"low": 4, "high": 4000}, "finetune.rank can't be 4000"),
        ("finetune.rank", {"low": 4, "high": 8.5}, "takes whole numbers"),
        ("finetune.rank", {"low": 4, "high": 8, "step": 5}, "step 5 is wider"),
        ("finetune.rank", {"low": 4}, "neither choices nor both"),
        ("finetune.rank", {}, "neither choices nor both"),
        ("finetune.rank", {"choices": []}, "empty list"),
        ("finetune.rank", {"choices": [4, 4]}, "named twice"),
        ("finetune.rank", {"choices": [4, "many"]}, "finetune.rank can't be 'many'"),
        ("finetune.rank", {"choices": [4, 8], "low": 1}, "choices and a range"),
        ("finetune.rank", {"low": 4, "high": 8, "hihg": 1}, "sweep.parameters can't be"),
        ("finetune.learning_rate", {"low": 0, "high": 0.1, "log": True}, "log with low 0"),
        ("finetune.learning_rate", {"low": -1, "high": 0.1, "log": True}, "log with low -1"),
        ("finetune.learning_rate", {"low": 0.1, "high": 2}, "can't be 2"),
        ("finetune.learning_rate", {**RATES, "step": 1e-3}, "both log and step"),
        ("finetune.dora", {"low": 0, "high": 1}, "takes no numbers"),
        ("base", {"low": 0, "high": 1}, "takes no numbers"),
        ("base", {"choices": ["a-base", 3]}, "base can't be 3"),
    ],
)
def test_what_a_key_does_not_take_is_refused_when_the_recipe_is_read(
    tmp_path: Path, key: str, values: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        resolved(tmp_path, {key: values})


@pytest.mark.parametrize(
    ("key", "method"),
    [("rank", "full"), ("rank", "bottleneck"), ("bottleneck_width", "auto"), ("virtual_tokens", "lora")],
)
def test_a_key_that_no_method_reads_is_refused_by_the_sweep_alone(tmp_path: Path, key: str, method: str) -> None:
    recipe = resolved(tmp_path, {f"finetune.{key}": {"low": 2, "high": 8}}, method=method).recipe
    with pytest.raises(InputError, match=f"finetune.{key} is not read by method {method}"):
        search_space(recipe)


def test_heads_are_not_swept(tmp_path: Path) -> None:
    recipe = resolved(tmp_path, {"finetune.learning_rate": RATES}, method="features").recipe
    with pytest.raises(InputError, match="a sweep of method features"):
        search_space(recipe)
    with pytest.raises(InputError, match="unknown key"):
        resolved(tmp_path, {"finetune.head_width": {"choices": [0, 8]}})


def test_a_key_of_one_of_the_swept_methods_is_drawn_for_that_one(tmp_path: Path) -> None:
    parameters = {"finetune.method": {"choices": ["full", "lora"]}, "finetune.rank": {"choices": [4, 8]}}
    assert len(search_space(resolved(tmp_path, parameters).recipe)) == 2
    assert applicable("finetune.rank", "lora")
    assert not applicable("finetune.rank", "full")
    assert applicable("finetune.epochs", "full")


def test_a_sweep_without_parameters_says_how_to_write_some(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no parameters"):
        search_space(resolved(tmp_path, {}).recipe)


def test_a_space_is_refused_when_every_corner_contradicts_the_recipe(tmp_path: Path) -> None:
    recipe = resolved(tmp_path, {"finetune.rows_per_sequence": {"choices": [3, 5]}}, effective_rows=16)
    check = lambda values: with_values(recipe, values, "sweep")  # noqa: E731
    with pytest.raises(InputError, match="effective_rows 16 is not a multiple of rows_per_sequence 3"):
        check_combinations(search_space(recipe.recipe), check)
    some = resolved(tmp_path, {"finetune.rows_per_sequence": {"choices": [3, 4]}}, effective_rows=16)
    check_combinations(search_space(some.recipe), lambda values: with_values(some, values, "sweep"))


def test_values_laid_over_a_recipe_are_what_set_would_give(tmp_path: Path) -> None:
    recipe = resolved(tmp_path, {"finetune.learning_rate": RATES})
    laid = with_values(recipe, {"finetune.learning_rate": 1e-05, "finetune.targets": ["q_proj"], "base": "b"}, "sweep")
    typed = load_recipe(recipe.path, None, ("finetune.learning_rate=1.0e-05", "finetune.targets=[q_proj]", "base=b"))
    assert laid.recipe == typed.recipe
    assert laid.sources["finetune.learning_rate"] == "sweep"
