"""A registered version measured as `run` measures what it trained: on a recipe's test rows and general suites."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import InputError
from components.files import sha256_tree
from components.models.quantize import stored_quantization
from flows import measure_steps
from flows.job import Job
from flows.observer import Observer

if TYPE_CHECKING:
    from deploy.from_registry import VersionFiles
    from registry.entities import Version

__all__ = ["MEASURABLE_KINDS", "MeasuredVersion", "check_measurable", "check_of_base", "measure_version"]

# What answers prompts with weights of its own, or with those beside its base.
MEASURABLE_KINDS = ("base", "adapter", "full", "merged", "quantized")


@dataclass(frozen=True)
class MeasuredVersion:
    """A version, where its files lie, and what it scored."""

    version: Version
    files: VersionFiles
    document: dict[str, Any]


def check_measurable(version: Version) -> None:
    """Refuse a version that can't be measured so.

    Raises:
        InputError: A kind that has no weights to answer a recipe's rows with.
    """
    if version.kind not in MEASURABLE_KINDS:
        raise InputError(
            f"{version.label} is of kind {version.kind!r}, which a recipe's rows and suites can't be asked of",
            allowed=", ".join(MEASURABLE_KINDS),
            next_step="leave it out",
        )


def check_of_base(job: Job, version: Version) -> None:
    """Refuse a version of another base than the recipe's: scores are told against that one.

    Raises:
        InputError: Another base, tokenizer or chat template.
    """
    bound = version.manifest
    mine = (job.binding.tokenizer, job.binding.template)
    other_base = version.kind in ("base", "adapter") and bound.base_fingerprint != job.binding.base
    if other_base or (bound.tokenizer_digest, bound.template_digest) != mine:
        raise InputError(
            f"{version.label} is not of the recipe's base {job.recipe.base}: "
            f"{'the weights' if other_base else 'the tokenizer or the chat template'} are others",
            allowed="versions of the base that the recipe names",
            next_step="name the recipe that the version was made by with --recipe",
        )


def measure_version(
    job: Job, data: dict[str, Any], version: Version, files: VersionFiles, observer: Observer
) -> MeasuredVersion:
    """Score a version with the plain prompt on the held-out rows, and on the general suites.

    Args:
        job: The recipe on this machine.
        data: Document of the step `data`.
        version: A version that `check_measurable` and `check_of_base` let pass.
        files: Its files, verified.
        observer: Who watches.

    Returns:
        The measurement; kept by content, so that the same weights are measured once.
    """
    if version.kind == "base":
        step = measure_steps.measure_weights(job, data, None, None, observer, version.label)
        return MeasuredVersion(version, files, step.document)
    folder = files.adapter_folder or files.base_folder
    weights = {"weights": str(folder), "weights_digest": sha256_tree(folder), "kind": _kind(files)}
    quantization = files.quantization if files.adapter_folder else None
    step = measure_steps.measure_weights(job, data, weights, quantization, observer, version.label)
    return MeasuredVersion(version, files, step.document)


def _kind(files: VersionFiles) -> str:
    if files.adapter_folder is not None:
        return "adapter"
    return "full" if stored_quantization(files.base_folder) is None else "quantized"
