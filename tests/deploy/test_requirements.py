from __future__ import annotations

from importlib.metadata import version

from packaging.requirements import Requirement

from deploy.requirements import SERVING_PACKAGES, pinned_requirements


def test_everything_needed_is_pinned_to_what_is_installed() -> None:
    lines = pinned_requirements()
    pins = {Requirement(line).name: line for line in lines}
    assert list(pins) == sorted(pins)
    for name in SERVING_PACKAGES:
        assert pins[name] == f"{name}=={version(name).partition('+')[0]}"
    # what is needed through others comes along; what only training or development needs stays out
    assert {"starlette", "tokenizers", "huggingface-hub"} <= set(pins)
    assert not {"prefect", "dvc", "pytest", "sqlalchemy"} & set(pins) - set(_needed_by_bentoml())


def _needed_by_bentoml() -> set[str]:
    return {Requirement(line).name.lower() for line in pinned_requirements(("bentoml",))}
