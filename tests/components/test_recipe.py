"""A recipe is parsed once, strictly, and every value knows where it came from."""

from __future__ import annotations

from pathlib import Path

import jsonschema
import pytest
import yaml

from components.errors import InputError
from components.recipe import json_schema, load_recipe
from components.recipe_errors import allowed_values

MINIMAL = {"name": "sql", "base": "b", "data": {"train": "a.jsonl", "dev": "b.jsonl", "test": "c.jsonl"}}

RANKS = "a whole number from 1 to 512, or auto"


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


def test_settings_are_left_to_the_tactics_unless_they_are_set_and_keep_their_kind(tmp_path: Path) -> None:
    section = load_recipe(write(tmp_path)).recipe.finetune
    left = ("rank", "targets", "learning_rate", "epochs", "prompt_loss_weight")
    assert {getattr(section, key) for key in left} == {"auto"}
    # a content key holds the value as it is: 3 and 3.0 must not be two trainings
    given = load_recipe(write(tmp_path, finetune={"epochs": 3, "prompt_loss_weight": 0, "rank": 8})).recipe.finetune
    assert [repr(value) for value in (given.epochs, given.prompt_loss_weight, given.rank)] == ["3.0", "0.0", "8"]


def test_dotted_keys_change_a_mapping_where_a_mapping_replaces_it(tmp_path: Path) -> None:
    path = write(tmp_path, evaluation={"test_rows": {"one": 5, "two": 6}})
    for overrides, rows in (
        (("evaluation.test_rows.two=9",), {"one": 5, "two": 9}),
        (("evaluation.test_rows={two: 9}",), {"two": 9}),
        (("evaluation.test_rows.three=1", "evaluation.test_rows.one=2"), {"one": 2, "two": 6, "three": 1}),
    ):
        found = load_recipe(path, None, overrides)
        assert found.recipe.evaluation.test_rows == rows
        assert found.sources["evaluation.test_rows"] == "command line"


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
        ({"decision": {"target_score": 0}}, "decision.target_score can't be 0"),
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
        ({"decision": {"bases": ["a", "a"]}}, "named twice"),
        ({"traffic": {"hosting_requests_per_hour": 5, "hosting_hours_per_month": 0}}, "answers no request"),
        ({"traffic": {"price_per_million_input_tokens": -1}}, "traffic.price_per_million_input_tokens"),
        ({"traffic": {"hosting_hours_per_month": 745}}, "traffic.hosting_hours_per_month"),
        ({"traffic": {"requests_per_month": 0}}, "traffic.requests_per_month"),
        ({"decision": {"candidates": ["rag", "champion"]}}, "no prompt without passages to compare with: add one of"),
        ({"decision": {"candidates": ["zero-shot", "zero-shot"]}}, "decision.candidates: 'zero-shot' is named twice"),
        ({"seed": True}, "seed can't be true"),
        ({"base": {"version": None}}, "base can't be"),
        ({"finetune": {"epochs": True}}, "finetune.epochs can't be true"),
        ({"evaluation": {"test_rows": {"joined": True}}}, "evaluation.test_rows can't be"),
        ({"gate": {"max_suite_drop": False}}, "gate.max_suite_drop can't be false"),
        ({"gate": {"required_signature": "ada"}}, "the 64 hex digits of a key's id, or nothing"),
        ({"finetune": {"dropout": 1}}, "finetune.dropout can't be 1"),
        ({"memory": {"budget": True}}, "memory.budget can't be true"),
        ({"memory": {"budget": -3}}, "'-3' is not a size; allowed: auto, or a number of bytes or a size with a unit"),
        ({"memory": {"budget": []}}, r"memory.budget can't be \[\]"),
        (
            {"finetune": {"early_stopping": 3}},
            "early_stopping 3 can't come true with dev_passes 4: .* raise dev_passes",
        ),
        (
            {"finetune": {"early_stopping": 1, "dev_loss_rows": 0}},
            "early_stopping needs dev losses, and dev_loss_rows is 0",
        ),
        ({"finetune": {"method": "features", "keep_best": False}}, "the dev loss chooses a head's epoch"),
        ({"finetune": {"method": "features", "rope_scaling": "yarn:2"}}, "rope_scaling is for methods that train"),
        ({"finetune": {"method": "features", "compile": True}}, "compile is for methods that train"),
        ({"finetune": {"attention": "flash"}}, "can't show one prefix to several rows"),
        ({"finetune": {"attention": "flex", "method": "p_tuning"}}, "laid before a mask"),
        ({"finetune": {"targets": []}}, r"finetune.targets can't be \[\]"),
        ({"finetune": {"processes": 0}}, "finetune.processes"),
        ({"finetune": {"parallel": "tp"}}, "finetune.parallel"),
        ({"finetune": {"processes": 2, "compile": True}}, "compile with several processes was not tried"),
        ({"finetune": {"processes": 3}}, "3 processes can't share a step of 4 sequences"),
        ({"finetune": {"processes": 2, "method": "features"}}, "processes is for methods that train through the base"),
        (
            {"finetune": {"processes": 2, "parallel": "fsdp", "method": "qlora"}},
            "weights in 4 bits are bytes .* set finetune.parallel to ddp",
        ),
        (
            {"finetune": {"processes": "auto", "parallel": "fsdp", "method": "full", "quantization_aware": "int8"}},
            "quantization_aware int8 with finetune.parallel fsdp",
        ),
    ],
)
def test_wrong_and_contradictory_values_are_refused(tmp_path: Path, section: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(write(tmp_path, **section))
    assert caught.value.exit_status == 2


def test_what_the_decision_takes_the_recipe_takes_too(tmp_path: Path) -> None:
    section = {"few_shot": 0, "candidates": ["zero-shot"], "target_score": 1}
    assert load_recipe(write(tmp_path, decision=section)).recipe.decision.few_shot == 0


@pytest.mark.parametrize(
    ("overrides", "section", "problem", "allowed"),
    [
        (("finetune.rank=x",), {}, "--set finetune.rank=x: finetune.rank can't be 'x'", RANKS),
        ((), {"finetune": {"rank": 2.5}}, "{path}: finetune.rank can't be 2.5", RANKS),
        ((), {"finetune": {"alpha": 0}}, "{path}: finetune.alpha can't be 0", "a number above 0"),
        (("seed=",), {}, "--set seed=: seed can't be empty", "a whole number from 0 to 2147483647"),
        (("release.bundle=maybe",), {}, "--set release.bundle=maybe: release.bundle can't be 'maybe'", "true or false"),
        (
            (),
            {"finetune": {"method": "magic"}},
            "{path}: finetune.method can't be 'magic'",
            "auto, full, lora, qlora, bottleneck, prefix_tuning, prompt_tuning, p_tuning or features",
        ),
        ((), {"gate": {"subset": 3}}, "{path}: gate.subset can't be 3", "text, or nothing"),
        (
            ("evaluation.test_rows.joined=x",), {},
            "--set evaluation.test_rows.joined=x: evaluation.test_rows can't be {{\"joined\": \"x\"}}",
            "a whole number of at least 0, or a mapping of names, each to a whole number of at least 0",
        ),
        (
            ("gate.min_rows=0",), {"decision": {"candidates": ["guess"]}},
            "{path}: decision.candidates can't be [\"guess\"]; --set gate.min_rows=0: gate.min_rows can't be 0",
            "decision.candidates: a list of one or more of zero-shot, prompt, few-shot, few-shot-retrieved, rag, "
            "rag-few-shot, oracle, oracle-few-shot or champion; "
            "gate.min_rows: a whole number of at least 1",
        ),
        (
            ("finetune.effective_rows=10",), {},
            "{path} with --set finetune.effective_rows=10: finetune: effective_rows 10 is not a multiple of "
            "rows_per_sequence 4: an optimizer step takes whole sequences",
            None,
        ),
    ],
)  # fmt: skip
def test_a_refused_value_is_told_in_words_where_it_was_written(
    overrides: tuple[str, ...], section: dict[str, object], problem: str, allowed: str | None, tmp_path: Path
) -> None:
    path = write(tmp_path, **section)
    with pytest.raises(InputError) as caught:
        load_recipe(path, None, overrides)
    assert caught.value.problem == problem.format(path=path)
    assert caught.value.allowed == allowed
    assert caught.value.next_step


def test_a_profile_and_a_misspelt_override_are_named(tmp_path: Path) -> None:
    path = write(tmp_path, profiles={"smoke": {"finetune": {"rank": 0}}})
    with pytest.raises(InputError, match=r"recipe\.yaml, profile smoke: finetune\.rank can't be 0"):
        load_recipe(path, "smoke")
    with pytest.raises(InputError, match=r"^--set finetune\.rnk=1: unknown key finetune\.rnk"):
        load_recipe(path, None, ("finetune.rnk=1",))
    with pytest.raises(InputError, match=r"^--set finetune=1: finetune must be a mapping"):
        load_recipe(path, None, ("finetune=1",))


def test_every_key_can_say_what_it_takes() -> None:
    for section in json_schema()["$defs"].values():
        for key, schema in section["properties"].items():
            assert "schema" not in allowed_values(schema), key


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
    (tmp_path / "shadowed.yaml").write_text("name: a\nprofiles: {full: {seed: 3}}\n")
    with pytest.raises(InputError, match="a profile is named 'full'"):
        load_recipe(tmp_path / "shadowed.yaml", "full")
    with pytest.raises(InputError, match="key=value"):
        load_recipe(write(tmp_path), None, ("rank",))
    with pytest.raises(InputError, match=r"data\.test"):
        load_recipe(write(tmp_path, data={"train": "a", "dev": "b"}))


def test_the_schema_accepts_what_the_loader_accepts(tmp_path: Path) -> None:
    schema = json_schema()
    jsonschema.validate({**MINIMAL, "profiles": {"smoke": {}}}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**MINIMAL, "finetune": {"learning_rte": 1}}, schema)


def test_a_budget_may_be_a_number_of_bytes_and_targets_a_list(tmp_path: Path) -> None:
    sections = {"memory": {"budget": 8_000_000_000}, "finetune": {"targets": ["q_proj", "v_proj"]}}
    recipe = load_recipe(write(tmp_path, **sections)).recipe
    assert (recipe.memory.budget, recipe.finetune.targets) == ("8000000000", "q_proj,v_proj")
    assert load_recipe(write(tmp_path, memory={"budget": 1.5e9})).recipe.memory.budget == "1500000000.0"
    jsonschema.validate({**MINIMAL, **sections}, json_schema())
    # a metric's own options may be true or false
    assert load_recipe(write(tmp_path, task={"metric_options": {"ignore_case": True}}))


def test_a_budget_or_targets_of_another_kind_say_all_that_is_taken(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="allowed: auto, a number of bytes, or a size with its unit, such as 8GiB"):
        load_recipe(write(tmp_path, memory={"budget": [12]}))
    with pytest.raises(InputError, match=r"as a list such as \[q_proj\]"):
        load_recipe(write(tmp_path, finetune={"targets": 3}))


def test_processes_are_a_number_or_left_to_the_machine(tmp_path: Path) -> None:
    for value in (1, 4, "auto"):
        found = load_recipe(write(tmp_path, finetune={"processes": value, "parallel": "fsdp"})).recipe.finetune
        assert (found.processes, found.parallel) == (value, "fsdp")
    # one process has all of whatever there is
    load_recipe(write(tmp_path, finetune={"parallel": "fsdp", "method": "qlora"}))


def test_rope_scaling_is_a_mapping_or_its_short_form(tmp_path: Path) -> None:
    whole = load_recipe(write(tmp_path, finetune={"rope_scaling": {"type": "yarn", "factor": 2}}))
    short = load_recipe(write(tmp_path), None, ("finetune.rope_scaling=yarn:2",))
    assert whole.recipe.finetune.rope_scaling == short.recipe.finetune.rope_scaling
    rows = {row["key"]: row for row in short.rows()}
    found = rows["finetune.rope_scaling"]
    assert (found["value"], found["source"]) == ({"type": "yarn", "factor": 2.0}, "command line")
    assert load_recipe(write(tmp_path)).recipe.finetune.rope_scaling is None
    for value in ({"type": "yarn", "factor": 2}, "yarn:2", None):
        jsonschema.validate({**MINIMAL, "finetune": {"rope_scaling": value}}, json_schema())


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"type": "spin", "factor": 2}, "yarn:2"),
        ({"type": "yarn", "factor": 1}, "above 1"),
        ({"type": "yarn", "factor": True}, "above 1"),
        ({"type": "yarn"}, "both of them"),
        ({"type": "yarn", "factor": 2, "beta_fast": 32}, "both of them"),
        ("yarn", "such as yarn:2"),
        (2, "yarn:2"),
        (["yarn", 2], "yarn:2"),
    ],
)
def test_rope_scaling_that_is_none_is_refused(tmp_path: Path, value: object, problem: str) -> None:
    with pytest.raises(InputError, match=problem) as raised:
        load_recipe(write(tmp_path, finetune={"rope_scaling": value}))
    assert "finetune.rope_scaling" in str(raised.value)


def test_dynamic_scaling_with_packed_rows_is_refused(tmp_path: Path) -> None:
    dynamic = {"type": "dynamic", "factor": 2}
    with pytest.raises(InputError, match="set rows_per_sequence to 1"):
        load_recipe(write(tmp_path, finetune={"rope_scaling": dynamic}))
    assert load_recipe(write(tmp_path, finetune={"rope_scaling": dynamic, "rows_per_sequence": 1}))


@pytest.mark.parametrize("method", ["auto", "lora", "qlora"])
def test_training_for_integers_wants_whole_weights(method: str, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "name: a\nbase: b\ndata: {train: t.jsonl, dev: d.jsonl, test: e.jsonl}\n"
        f"finetune: {{method: {method}, quantization_aware: int4}}\n"
    )
    with pytest.raises(InputError, match="quantization_aware 'int4' is for method 'full'"):
        load_recipe(path)
