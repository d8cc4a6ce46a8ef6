"""A recipe is parsed once, strictly, and every value knows where it came from."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from components.errors import InputError
from components.recipe import json_schema, load_recipe

MINIMAL = {"name": "sql", "base": "b", "data": {"train": "a.jsonl", "dev": "b.jsonl", "test": "c.jsonl"}}


def write(tmp_path: Path, **sections: object) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**MINIMAL, **sections}))
    return path


def test_values_carry_their_source(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        finetune={"rank": 8, "alpha": 4.0},
        profiles={"smoke": {"finetune": {"rank": 2}, "evaluation": {"test_rows": 5}}},
    )
    found = load_recipe(path, "smoke", ("finetune.learning_rate=1e-4",))
    rows = {row["key"]: row for row in found.rows()}
    assert found.recipe.finetune.rank == 2
    assert rows["finetune.rank"]["source"] == "profile smoke"
    assert rows["finetune.alpha"]["source"] == "recipe"
    assert rows["finetune.learning_rate"] == {"key": "finetune.learning_rate", "value": 1e-4, "source": "command line"}
    assert rows["finetune.dropout"]["source"] == "default"
    assert rows["evaluation.test_rows"]["value"] == 5
    assert load_recipe(path).recipe.finetune.rank == 8
    assert load_recipe(path, "full").profile is None


def test_the_recipe_is_frozen(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path)).recipe
    with pytest.raises(ValueError, match="frozen"):
        recipe.finetune.rank = 3  # type: ignore[misc]


def test_an_unknown_key_names_the_nearest_known_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"did you mean finetune\.learning_rate\?"):
        load_recipe(write(tmp_path, finetune={"learning_rte": 1e-3}))
    with pytest.raises(InputError, match=r"did you mean evaluation\?"):
        load_recipe(write(tmp_path, evalution={}))


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"finetune": {"effective_rows": 10, "rows_per_sequence": 4}}, "not a multiple"),
        ({"decision": {"few_shot": 0, "candidates": ["few-shot"]}}, "few_shot is 0"),
        ({"decision": {"candidates": ["prompt"]}}, "no decision.prompt"),
        ({"decision": {"candidates": ["zero-shot", "rag"]}}, "no data.corpus"),
        ({"decision": {"candidates": ["zero-shot", "zero-shot"]}}, "named twice"),
        ({"decision": {"probe": [0.0]}}, "probe"),
        ({"finetune": {"prompt_loss_weight": 1.5}}, "prompt_loss_weight"),
        ({"finetune": {"method": "magic"}}, "finetune.method"),
        ({"name": "No Spaces"}, "name"),
        ({"seed": -1}, "seed"),
        ({"finetune": {"rank": "many"}}, r"finetune.rank.*'many'"),
        ({"finetune": []}, "must be a mapping"),
        ({"finetune": {"epochs": float("inf")}}, "finetune.epochs"),
        ({"memory": {"budget": "banana"}}, "banana"),
        ({"evaluation": {"suites": ["piqa", "piqa"]}}, "named twice"),
    ],
)
def test_wrong_and_contradictory_values_are_refused(tmp_path: Path, section: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(write(tmp_path, **section))
    assert caught.value.exit_status == 2


def test_what_is_not_a_recipe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no recipe at"):
        load_recipe(tmp_path / "absent.yaml")
    (tmp_path / "list.yaml").write_text("- a\n")
    with pytest.raises(InputError, match="not a mapping"):
        load_recipe(tmp_path / "list.yaml")
    (tmp_path / "broken.yaml").write_text("a: [1,\n")
    with pytest.raises(InputError, match="not YAML"):
        load_recipe(tmp_path / "broken.yaml")
    (tmp_path / "twice.yaml").write_text("name: a\nname: b\n")
    with pytest.raises(InputError, match="'name' stands twice"):
        load_recipe(tmp_path / "twice.yaml")
    with pytest.raises(InputError, match="no profile 'fast'"):
        load_recipe(write(tmp_path), "fast")
    with pytest.raises(InputError, match="key=value"):
        load_recipe(write(tmp_path), None, ("rank",))
    with pytest.raises(InputError, match=r"data\.test"):
        load_recipe(write(tmp_path, data={"train": "a", "dev": "b"}))


def test_the_schema_accepts_what_the_loader_accepts(tmp_path: Path) -> None:
    schema = json_schema()
    jsonschema.validate({**MINIMAL, "profiles": {"smoke": {}}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**MINIMAL, "finetune": {"learning_rte": 1}}, schema)
