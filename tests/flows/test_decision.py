"""The decide step and what a run makes of its verdict."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from components.errors import InputError
from components.paths import home
from components.recipe import load_recipe
from flows import steps
from flows.chain import exit_reason, run_chain
from flows.job import Job
from flows.observer import TerminalObserver
from flows.open_job import open_job
from registry.store import Registry

Project = Callable[..., Path]


def job_of(recipe: Path) -> Job:
    job = open_job(load_recipe(recipe), home())
    job.check_rows()
    return job


def decide(recipe: Path) -> Any:
    job, observer = job_of(recipe), TerminalObserver()
    return steps.decide(job, steps.data(job, observer), observer)


def run(recipe: Path) -> dict[str, Any]:
    return run_chain(job_of(recipe), TerminalObserver(), lambda function, *arguments: function(*arguments))


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A corpus of two texts, and an embedding that needs no download."""
    import torch

    from components.data import embeddings

    monkeypatch.setattr(embeddings, "embed", lambda texts: torch.ones(len(texts), 1))
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "tables.md").write_text("table 7 has many rows")
    (folder / "more.txt").write_text("table 9 has few rows")
    return folder


def test_corpus_and_written_prompt_of_the_recipe_are_tried_and_kept_by_content(
    project: Project, corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "prompt.md").write_text("Write one query.\n")
    recipe = project(
        data={"corpus": "handbook"},
        decision={"candidates": ["prompt", "rag", "rag-few-shot"], "prompt": "prompt.md", "passages": 1},
    )
    job = job_of(recipe)
    assert job.written_prompt == "Write one query."
    first = decide(recipe)
    assert [c["name"] for c in first.document["candidates"]] == ["prompt", "rag", "rag-few-shot"]
    assert first.document["best_simple"] == "prompt"
    assert decide(recipe).cached
    (corpus / "more.txt").write_text("table 9 has no rows")
    changed = decide(recipe)
    assert not changed.cached
    # rows name passages by their file
    (corpus / "more.txt").rename(corpus / "notes.txt")
    assert not decide(recipe).cached
    (tmp_path / "prompt.md").write_text("Answer with one query.\n")
    assert not decide(recipe).cached


def test_decide_command_prints_text_for_a_person_and_the_contract_as_json(project: Project) -> None:
    from flows.cli import cli

    recipe = str(project())
    text = CliRunner().invoke(cli, ["decide", recipe], standalone_mode=False)
    assert text.exception is None
    document = json.loads(CliRunner().invoke(cli, ["decide", recipe, "--json"], standalone_mode=False).stdout)
    assert document["verdict"] in ("prompt", "rag", "finetune", "rag_then_finetune", "other_base", "more_data")
    assert set(document["failures"]) == {"form", "facts", "capability"}
    lines = text.stdout.splitlines()
    assert f"verdict: {document['verdict']}" in lines
    assert [line.strip() for line in lines if re.match(r"  \d+\. ", line)] == [
        f"{number}. {reason}" for number, reason in enumerate(document["reasons"], start=1)
    ]
    for candidate in document["candidates"]:
        assert {"name", "score", "low", "high", "tokens_per_request"} <= set(candidate)
        assert any(line.startswith(candidate["name"]) for line in lines)
    assert sum(line.lstrip().startswith(("form:", "facts:", "capability:")) for line in lines) == len(
        document["failure_examples"]
    )


def test_probe_gives_a_learning_curve_where_the_verdict_needs_one(project: Project, monkeypatch: Any) -> None:
    from components.decision import decide as module
    from components.decision.word_order import WordOrder

    monkeypatch.setattr(module, "word_order", lambda *_: WordOrder(1.0, 24, 24, 3))
    recipe = project(decision={"candidates": ["zero-shot"], "probe": [0.5, 1.0]})
    document = decide(recipe).document
    assert [point["rows"] for point in document["learning_curve"]["points"]] == [12, 24]
    assert document["candidates"][-1]["kind"] == "probe"
    assert document["rules"][-1]["name"].startswith("a probe")


def test_verdict_other_than_finetune_ends_the_run_before_training(project: Project) -> None:
    found = run(project(decision={"override_reason": None}))
    assert found["decision"]["verdict"] != "finetune"
    reason = exit_reason(found)
    assert reason is not None
    assert found["decision"]["rules"][-1]["evidence"] in reason
    assert found["plan"] is None
    assert found["trained"] is False
    assert not (home() / "registry").exists()
    assert found["decision"]["rules"][-1]["would_change"] in Path(found["report"]).read_text().replace("\xa0", " ")


@pytest.mark.integration
def test_run_command_ends_with_3_and_retrieval_before_finetuning_is_no_finetuning(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.cli import cli

    recipe = str(project(decision={"override_reason": None}))
    original = steps.decide

    def as_rag_first(job: Job, data: dict[str, Any], observer: Any) -> Any:
        found = original(job, data, observer)
        found.document["verdict"] = "rag_then_finetune"
        return found

    monkeypatch.setattr(steps, "decide", as_rag_first)
    result = CliRunner().invoke(cli, ["run", recipe, "--no-prefect", "--json"], standalone_mode=False)
    assert getattr(result.exception, "exit_status", None) == 3
    assert json.loads(result.stdout)["decision"]["verdict"] == "rag_then_finetune"


@pytest.mark.integration
def test_override_goes_on_and_its_reason_is_in_manifest_and_lineage(project: Project) -> None:
    from registry.lineage import trace
    from registry.lookup import Lookup

    found = run(project(decision={"override_reason": "the board has decided"}))
    assert found["decision"]["verdict"] != "finetune"
    assert found["decision"]["override_reason"] == "the board has decided"
    with Registry.open(home() / "registry") as registry:
        manifest = registry.resolve(found["digest"]).manifest
    assert manifest.metadata["decision_override"] == "the board has decided"
    lookup = Lookup(home() / "registry")
    nodes = {node.label: node for node in trace(lookup.query, lookup.resolve(found["digest"])).nodes}
    assert nodes["tiny:v1"].decision_override == "the board has decided"
    assert nodes["tiny-base:v1"].decision_override is None

    again = decide(project(decision={"candidates": ["zero-shot", "champion"]}))
    assert again.document["champion"]["version"] == "tiny:v1"
    assert [c["kind"] for c in again.document["candidates"]] == ["simple", "champion"]


def test_what_the_recipe_names_must_be_there(project: Project) -> None:
    with pytest.raises(InputError, match="no corpus at"):
        job_of(project(data={"corpus": "absent.jsonl"}))
    with pytest.raises(InputError, match="cannot read the prompt"):
        job_of(project(data={"corpus": None}, decision={"prompt": "absent.md"}))


@pytest.mark.parametrize("prompt", ["  ", "empty.md"])
def test_empty_prompt_is_no_prompt(project: Project, tmp_path: Path, prompt: str) -> None:
    """A system message of nothing would be measured and paid for as if somebody had written one."""
    (tmp_path / "empty.md").write_text(" \n")
    with pytest.raises(InputError, match="is empty") as caught:
        job_of(project(decision={"prompt": prompt}))
    assert "decision.prompt" in str(caught.value.next_step)
