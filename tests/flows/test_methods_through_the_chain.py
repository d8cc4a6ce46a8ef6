"""Every kind of weights goes the whole way: trained, measured, registered with its base, promoted, served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.evaluation.generation import generate_ids, stop_ids
from components.models.load import load_as_served
from components.paths import home
from components.recipe import load_recipe
from deploy.engines.torch_engine import TorchEngine
from deploy.from_registry import version_files
from deploy.staging import stage_model
from flows.chain import exit_reason, run_chain
from flows.observer import TerminalObserver
from flows.open_job import open_job
from registry.store import Registry

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("method", "kind", "overrides"),
    [
        ("full", "full", ("finetune.learning_rate=0.002",)),
        ("bottleneck", "adapter", ("finetune.bottleneck_width=8",)),
        ("prefix_tuning", "adapter", ("finetune.virtual_tokens=4", "finetune.learning_rate=0.1")),
        ("prompt_tuning", "adapter", ("finetune.virtual_tokens=4", "finetune.learning_rate=0.1")),
        ("p_tuning", "adapter", ("finetune.virtual_tokens=4", "finetune.learning_rate=0.01")),
        ("lora", "adapter", ("finetune.lora_start=pissa", "finetune.rslora=true")),
        ("qlora", "adapter", ("finetune.lora_start=loftq",)),
    ],
)
def test_what_a_method_leaves_is_registered_and_served(
    project: Callable[..., Path], method: str, kind: str, overrides: tuple[str, ...]
) -> None:
    recipe = project()

    def run() -> dict[str, object]:
        job = open_job(load_recipe(recipe, None, (f"finetune.method={method}", *overrides)), home())
        return run_chain(job, TerminalObserver(), lambda function, *arguments: function(*arguments))

    found = run()
    assert exit_reason(found) is None
    assert found["plan"]["method"] == method  # type: ignore[index]
    with Registry.open(home() / "registry") as registry:
        version = registry.resolve("tiny@champion")
        base = registry.resolve(version.manifest.parents[0].digest)
        files = version_files(registry, version.digest)
    assert (version.kind, version.manifest.metadata["method"]) == (kind, method)
    assert files.quantization == ("nf4" if method == "qlora" else None)
    assert (version.base_fingerprint == base.base_fingerprint) == (kind == "adapter")
    staged = stage_model(files, out_home=home())
    staged.verify()
    model, tokenizer = load_as_served(files.base_folder, adapter=files.adapter_folder, quantization=files.quantization)
    prompt = tokenizer("How many rows are there?")["input_ids"]
    ((expected, _),) = generate_ids(model, [prompt], max_new_tokens=6, stops=stop_ids(model, tokenizer))
    answers = []
    engine = TorchEngine(staged.load, accept=lambda loaded: answers.append(loaded.continue_greedily(prompt, 6)) or {})
    engine.start()
    assert engine.wait_until_loaded().state == "ready"
    engine.close()
    assert answers == [expected]
    again = run()
    assert (again["trained"], again["digest"]) == (False, found["digest"])
