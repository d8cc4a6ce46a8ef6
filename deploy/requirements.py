"""The packages that a bundle needs, pinned to what is installed here: nothing is resolved anew, nothing is fetched."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution

__all__ = ["SERVING_PACKAGES", "pinned_requirements", "serving_packages"]

# What deploy and the components that it uses import.
SERVING_PACKAGES = (
    "bentoml",
    "fastapi",
    "filelock",
    "jinja2",
    "peft",
    "platformdirs",
    "prometheus-client",
    "pydantic",
    "safetensors",
    "torch",
    "transformers",
    "uvicorn",
)
# What a version's quantized weights are computed by.
QUANTIZATION_PACKAGES = {"nf4": "bitsandbytes", "int8": "torchao", "int4": "torchao"}


def serving_packages(quantization: str | None, *, signed: bool = False) -> tuple[str, ...]:
    """Return the packages that serve a version whose weights are quantized so, or not at all.

    Args:
        quantization: How, as manifests call it.
        signed: The bundle carries signatures that a server may be told to check.
    """
    more = [] if quantization is None else [QUANTIZATION_PACKAGES[quantization]]
    return (*SERVING_PACKAGES, *more, *(["cryptography"] if signed else []))


def pinned_requirements(packages: tuple[str, ...] = SERVING_PACKAGES) -> list[str]:
    """Return `name==version` of the packages and of everything that they need, as installed.

    Args:
        packages: Distributions to start from.

    Returns:
        Sorted lines. A local version label such as `+cpu` is left out: an index may not have that build.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name
    from packaging.version import Version

    found: dict[str, str] = {}
    waiting: list[tuple[str, frozenset[str]]] = [(name, frozenset()) for name in packages]
    visited: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = waiting.pop()
        key = (canonicalize_name(name), extras)
        if key in visited:
            continue
        visited.add(key)
        try:
            installed = distribution(name)
        except PackageNotFoundError:
            # an optional need that this environment does without, such as a GPU library in a CPU build
            continue
        found[key[0]] = Version(installed.version).public
        for line in installed.requires or []:
            need = Requirement(line)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
                waiting.append((need.name, frozenset(need.extras)))
    return [f"{name}=={version}" for name, version in sorted(found.items())]
