from __future__ import annotations

from importlib.metadata import version

from packaging.requirements import Requirement

from deploy.requirements import SERVING_PACKAGES, pinned_requirements, serving_packages


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


def test_what_computes_with_quantized_weights_is_pinned_with_them() -> None:
    pins = {
        how: {Requirement(line).name for line in pinned_requirements(serving_packages(how))}
        for how in (None, "nf4", "int8", "int4")
    }
    assert pins["nf4"] - pins[None] == {"bitsandbytes"}
    assert pins["int8"] - pins[None] == pins["int4"] - pins[None] == {"torchao"}
