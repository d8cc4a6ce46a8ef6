"""`tunewright evaluate` on a real registry: a version is measured as it is served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import components.evaluation.suites as suites
from components.evaluation.suites import Suite, SuiteItem, SuiteResult
from components.models.fingerprint import fingerprint, write_binding
from components.models.tiny import make_tiny
from flows.commands.evaluation import command
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry


def files_of(folder: Path) -> dict[str, Path]:
    return {path.name: path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".jinja")}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A base with one adapter, registered as trained on plain weights and as trained on weights in 4 bits."""
    import torch
    from peft import LoraConfig, get_peft_model

    from components.models.load import load_model

    base, adapter = make_tiny(tmp_path / "base"), tmp_path / "adapter"
    torch.manual_seed(0)
    settings = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(load_model(base), settings).save_pretrained(str(adapter))
    prints = fingerprint(base)
    write_binding(adapter, prints)
    common: dict[str, Any] = {
        "base_fingerprint": prints.base,
        "tokenizer_digest": prints.tokenizer,
        "template_digest": prints.template,
    }
    with Registry.open(tmp_path / "state" / "registry") as registry:
        files = files_of(base)
        found = registry.register("base", Manifest(kind="base", files=describe_files(files), **common), files)
        files = files_of(adapter)
        for name, quantization in (("lora", None), ("qlora", {"method": "nf4"})):
            manifest = Manifest(
                kind="adapter",
                files=describe_files(files),
                parents=(Parent(found.digest, "base"),),
                quantization=quantization,
                **common,
            )
            registry.register(name, manifest, files)
    return tmp_path / "state"


def test_a_version_is_measured_with_the_weights_that_it_is_served_with(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[set[str]] = []
    run_suite = suites.run_suite

    def watched(model: Any, *arguments: Any, **options: Any) -> SuiteResult:
        measured.append({type(module).__name__ for module in model.modules()})
        return run_suite(model, *arguments, **options)

    items = tuple(SuiteItem(f"item-{n}", "How many?", ("one", "two"), n % 2) for n in range(4))
    small = Suite("piqa", "0" * 64, 1, "accuracy", "none", items, len(items), 17)
    monkeypatch.setattr(suites, "load_suite", lambda *_: small)
    monkeypatch.setattr(suites, "run_suite", watched)
    arguments = ["qlora", "--baseline", "lora", "--suite", "piqa", "--home", str(home), "--json"]
    outcome = CliRunner().invoke(command, arguments, catch_exceptions=False)
    document = json.loads(outcome.stdout)
    assert (document["model"], document["baseline"]) == ("qlora:v1", "lora:v1")
    four_bits, plain = measured
    assert {"Linear4bit", "PeftModel"} <= four_bits  # the adapter stays apart
    assert not {"Linear4bit", "PeftModel"} & plain  # and is merged into plain weights
