"""A recipe whose rows are longer than its base: scaled from the plan to the endpoint, and never without it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import InputError
from components.models.forward import causal_model
from components.models.load import load_as_served
from components.models.rope import RopeScaling, read_scaling
from components.models.tiny import make_tiny
from components.paths import home
from components.recipe import load_recipe
from deploy.from_registry import version_files
from deploy.staging import stage_model
from flows.chain import exit_reason, run_chain
from flows.job import Job
from flows.long_context import task_scaling
from flows.observer import TerminalObserver
from flows.open_job import open_job
from registry.store import Registry
from tests.flows.conftest import SPLITS, call_command

YARN = RopeScaling("yarn", 4)

Project = Callable[..., Path]


@pytest.fixture(scope="module")
def short_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("base") / "short-base", positions=64)


@pytest.fixture
def long_rows(tmp_path: Path, project: Project) -> Path:
    """The project's rows, each longer than the base."""
    for split in SPLITS:
        path = tmp_path / f"{split}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        for row in rows:
            row["messages"][0]["content"] += " x" * 30
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def job_of(recipe: Path, *overrides: str) -> Job:
    return open_job(load_recipe(recipe, None, overrides), home())


@pytest.mark.integration
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_scaling_goes_from_the_recipe_to_the_endpoint(
    project: Project, short_base: Path, long_rows: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], method: str,
) -> None:  # fmt: skip
    recipe = project(base=str(short_base))
    rate = "finetune.learning_rate=0.002"
    job = job_of(recipe, "finetune.rope_scaling=yarn:4", f"finetune.method={method}", rate)
    assert task_scaling(job) == YARN
    found = run_chain(job, TerminalObserver(), lambda function, *arguments: function(*arguments))
    assert exit_reason(found) is None
    with Registry.open(home() / "registry") as registry:
        version = registry.resolve("tiny@champion")
        files = version_files(registry, version.digest)
    assert version.manifest.metadata["rope_scaling"] == {"type": "yarn", "factor": 4.0}
    model, _ = load_as_served(files.base_folder, adapter=files.adapter_folder, quantization=None)
    assert read_scaling(causal_model(model).config) == YARN
    staged = stage_model(files, out_home=home())
    staged.verify()
    assert staged.rope_scaling == YARN
    status, out, _ = call_command(
        monkeypatch, capsys, "long-context", "tiny@champion", "--texts", "0", "--lengths", "400", "--depths", "1",
        "--json", *(("--rope", "none") if method == "lora" else ()),
    )  # fmt: skip
    measured = json.loads(out)["measured"]
    assert status == 0
    names = {"lora": [("base", None), ("tiny:v1", "yarn:4")], "full": [("tiny:v1", "yarn:4")]}
    assert [(one["model"], one["rope_scaling"]) for one in measured] == names[method]
    assert [len(one["passkey"]) for one in measured] == [1] * len(measured)


@pytest.mark.integration
def test_a_plan_refuses_rows_past_the_positions_and_names_the_scaling(
    project: Project, short_base: Path, long_rows: Path
) -> None:
    from flows import steps

    job = job_of(project(base=str(short_base)))
    data = steps.data(job, TerminalObserver())
    with pytest.raises(InputError, match="at most the base's 64") as raised:
        steps.plan(job, data, TerminalObserver())
    assert "finetune.rope_scaling" in str(raised.value.next_step)


def test_a_base_that_takes_the_tasks_prompts_is_measured_as_it_is(
    project: Project, short_base: Path, tiny_base: Path, long_rows: Path
) -> None:
    assert task_scaling(job_of(project(base=str(tiny_base)), "finetune.rope_scaling=yarn:4")) is None
    assert task_scaling(job_of(project(base=str(short_base)))) is None
