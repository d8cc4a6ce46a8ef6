"""What makes a bundle another one: everything that goes into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import deploy.bundle as bundles
from components.models.fingerprint import Fingerprint
from deploy.bundle import Bundle, build_bundle
from deploy.canary import Canary
from deploy.model import ServedModel


@pytest.fixture
def model(tmp_path: Path) -> ServedModel:
    return ServedModel(
        folder=tmp_path / "model",
        name="tiny",
        version=2,
        digest="d1" * 32,
        fingerprint=Fingerprint("a" * 64, "b" * 64, "c" * 64),
        files={},
        dtype="float32",
        quantization=None,
        canary=Canary((), (1, 2), (3, 4), 2, "text"),
        created=1,
    )


@pytest.fixture(autouse=True)
def no_building(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """BentoML takes half a minute for a bundle, and which one is taken is decided before it is asked."""

    def build(workspace: Path, *_: Any) -> Path:
        (workspace / "bento").mkdir()
        return workspace / "bento"

    monkeypatch.setattr(bundles, "_build", build)


def bundle(home: Path, model: ServedModel) -> Bundle:
    return build_bundle(model, out_home=home)


def test_bundle_with_other_pins_is_another_one(
    tmp_path: Path, model: ServedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bundle(tmp_path, model)
    assert bundle(tmp_path, model).reused
    monkeypatch.setattr(bundles, "pinned_requirements", lambda _packages: ["torch==99.0"])
    upgraded = bundle(tmp_path, model)
    assert (upgraded.reused, upgraded.tag == first.tag) == (False, False)
    assert bundle(tmp_path, model).reused


def test_bundle_of_another_description_is_another_one(tmp_path: Path, model: ServedModel) -> None:
    first = bundle(tmp_path, model)
    recorded_anew = replace(model, canary=replace(model.canary, compared=1))
    assert bundle(tmp_path, recorded_anew).path != first.path
    assert bundle(tmp_path, replace(model, dtype="bfloat16")).path != first.path
    staged_later = bundle(tmp_path, replace(model, created=2))
    assert (staged_later.path, staged_later.reused) == (first.path, True)
