"""Self-supervised finetuning on raw text, and a task on what it left behind."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.errors import InputError
from components.paths import home
from components.recipe import load_recipe
from flows.chain import exit_reason, run_chain
from flows.observer import TerminalObserver
from flows.open_job import open_job
from registry.store import Registry
from tests.flows.conftest import call_command

Project = Callable[..., Path]

# every plan starts a process that imports what training imports
pytestmark = pytest.mark.integration

ANIMALS = ("fox", "dog", "singer", "student", "stadium", "concert")


def write_texts(path: Path, count: int = 60) -> None:
    lines = [
        f"The quick brown {ANIMALS[i % 6]} number {i} jumps over the lazy {ANIMALS[i % 5]}. " * (1 + i % 3)
        for i in range(count)
    ]
    path.write_text("".join(json.dumps({"text": line, "url": "not read"}) + "\n" for line in lines))


def domain_recipe(project: Project, tmp_path: Path, **finetune: Any) -> Path:
    """Write the recipe of the domain step beside that of the task."""
    write_texts(tmp_path / "texts.jsonl")
    document = yaml.safe_load(project().read_text())
    document |= {"name": "domain", "data": {"text": "texts.jsonl", "text_held_out": 0.2}}
    del document["task"]
    document["decision"] = {"dev_rows": 8, "min_train_rows": 10}
    document["finetune"] |= {"objective": "text", "max_tokens": 64, "learning_rate": 1e-2, "epochs": 2, **finetune}
    document["gate"] = {"min_rows": 5}
    path = tmp_path / "domain.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


def run(recipe: Path, *overrides: str) -> dict[str, Any]:
    job = open_job(load_recipe(recipe, None, overrides), home())
    return run_chain(job, TerminalObserver(), lambda function, *arguments: function(*arguments))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_task_is_trained_on_the_version_that_raw_text_left(project: Project, tmp_path: Path, method: str) -> None:
    domain = run(domain_recipe(project, tmp_path, method=method))
    assert exit_reason(domain) is None
    task = domain["task"]
    assert task["metric"] == "inverse_perplexity"
    assert task["perplexity"]["tuned"] < task["perplexity"]["base"]
    assert task["low"] > 0
    assert 0 < task["base"] < task["tuned"] < 1
    assert "inverse_perplexity" in Path(domain["report"]).read_text()

    found = run(project(base="version:domain@champion"))
    assert found["version"] == "tiny:v1"
    with Registry.open(home() / "registry") as registry:
        version, named = registry.resolve("tiny@champion"), registry.resolve("domain@champion")
        parents = {parent.role: registry.resolve(parent.digest) for parent in version.manifest.parents}
        assert parents["original_base"].label == "tiny-base:v1"
        assert parents["base"].manifest.base_fingerprint == version.manifest.base_fingerprint
        assert version.manifest.base_fingerprint != named.manifest.base_fingerprint or method == "full"
        if method == "lora":
            assert parents["domain"].digest == named.digest
            assert (parents["base"].label, parents["base"].kind) == ("domain-merged:v1", "merged")
        else:
            assert parents["base"].digest == named.digest
        labels = {node.label for node in registry.lineage("tiny@champion").nodes}
        assert {"domain:v1", "tiny-base:v1", "texts.jsonl", "train.jsonl"} <= labels
        assert registry.verify().intact
    if method == "full":
        return
    # what was merged once is found again, and nothing is trained
    assert run(domain_recipe(project, tmp_path))["trained"] is False
    again = run(project(base="version:domain@champion"))
    assert (again["trained"], again["digest"]) == (False, found["digest"])
    with Registry.open(home() / "registry") as registry:
        assert len([v for v in registry.versions() if v.name == "domain-merged"]) == 1


def test_other_documents_train_anew_and_leave_the_split_of_the_others(project: Project, tmp_path: Path) -> None:
    recipe = domain_recipe(project, tmp_path)
    before = open_job(load_recipe(recipe), home()).texts
    write_texts(tmp_path / "texts.jsonl", 80)
    after = open_job(load_recipe(recipe), home()).texts
    for split, rows in before.items():
        assert {row.answer for row in rows} <= {row.answer for row in after[split]}
    assert sum(map(len, after.values())) == 80


def test_too_few_documents_are_a_verdict(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = domain_recipe(project, tmp_path)
    status, out, _ = call_command(monkeypatch, capsys, "decide", str(recipe))
    assert status == 0
    assert "perplexity" in out
    found = run(recipe, "decision.min_train_rows=1000")
    assert found["decision"]["verdict"] == "more_data"
    assert "too few documents" in str(exit_reason(found))
    assert found["decision"]["candidates"][0]["perplexity"] > math.e


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("data.train=train.jsonl",), "data.train is for objective answers"),
        (("finetune.objective=answers",), "data.train is missing"),
        (("data.text=null",), "belong together"),
        (("task.metric=exact_match",), "task is for tasks with questions"),
        (("decision.candidates=[few-shot]",), "decision.candidates is for tasks"),
        (("finetune.dev_metric_rows=4",), "finetune.dev_metric_rows is for tasks"),
        (("data.text=nothing.jsonl",), "no text at"),
        (("data.text_held_out=0.0001",), "none falls to"),
        (("gate.min_rows=1000",), "gate.min_rows is 1000"),
        (("base=version:nobody@champion",), "there is no registry"),
    ],
)
def test_what_raw_text_cannot_be_is_told_at_the_door(
    project: Project, tmp_path: Path, overrides: tuple[str, ...], said: str
) -> None:
    recipe = domain_recipe(project, tmp_path)
    with pytest.raises(InputError, match=said):
        open_job(load_recipe(recipe, None, overrides), home())


def test_an_adapter_that_does_not_merge_is_no_base(project: Project, tmp_path: Path) -> None:
    run(domain_recipe(project, tmp_path, method="bottleneck"), "gate.task_interval_excludes_zero=false",
        "gate.min_task_delta=-1")  # fmt: skip
    with pytest.raises(InputError, match="BOTTLENECK adapter"):
        open_job(load_recipe(project(base="version:domain:v1")), home())
    with pytest.raises(InputError, match="the base's own"):
        open_job(load_recipe(project(base="version:tiny-base:v1", name="tiny-base")), home())
