"""A registered version's weights as integers: made, measured against the version, registered as its child, judged.

Measured by the steps that `run` measures with: against the base for the gate, and against the parent for what the
rounding costs. Every step is kept by its content; a second call does nothing anew.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import ConflictError, InputError
from components.files import place_folder, sha256_tree
from components.models.adapters import merges
from components.models.fingerprint import base_files, fingerprint
from components.models.quantize import QUANTIZED, save_quantized, stored_quantization
from components.runtime import release_memory
from flows import measure_steps, steps
from flows.comparison_step import compare
from flows.job import Job
from flows.method_comparison import score_with_interval
from flows.observer import Observer
from flows.promotion_step import gate_policy, gate_report, held_alias
from flows.step_store import Step, library_versions, source_digest, torchao_version
from flows.version_measure import MEASURABLE_KINDS, MeasuredVersion, check_measurable, check_of_base, measure_version

if TYPE_CHECKING:
    from deploy.from_registry import VersionFiles
    from registry.entities import Version

__all__ = ["quantize_version"]

# Kinds whose weights are numbers in floating point, or become such when an adapter is merged.
PARENT_KINDS = tuple(kind for kind in MEASURABLE_KINDS if kind != "quantized")


def quantize_version(job: Job, ref: str, to: str, beside: Sequence[str], observer: Observer) -> dict[str, Any]:
    """Make, measure, register and judge a version's weights as integers.

    Args:
        job: The recipe on this machine, by whose test rows, metric, suites and gate it is measured.
        ref: The version.
        to: int8 or int4.
        beside: Other versions that are measured in the same way, such as one that was trained for integers.
        observer: Who watches.

    Returns:
        `version`, `digest`, `parents`, `method`; `task` and `tax` against the base and `gate` as in the run document;
        `against_parent` with `task` and `tax`; `rows`, the parent first, each with score, intervals, tax, `bytes` and
        `seconds_per_token`.

    Raises:
        InputError: Integers that aren't known, a version that can't be quantized or isn't of the recipe's base, or
            layers that don't divide into groups.
        Registry errors: Unknown or ambiguous REF, a damaged file.
    """
    from deploy.from_registry import version_files
    from registry.store import Registry

    if to not in QUANTIZED:
        raise InputError(f"unknown quantization {to!r}", allowed=", ".join(QUANTIZED))
    with Registry.open(job.home / "registry", create=False) as registry:
        parent, others = registry.resolve(ref), [registry.resolve(other) for other in beside]
        _check_parent(parent)
        found = {version.digest: version_files(registry, version.digest) for version in (parent, *others)}
    for other in others:
        check_measurable(other)
    for version in (parent, *others):
        check_of_base(job, version)
    if found[parent.digest].adapter_folder is not None:
        _check_merges(parent, found[parent.digest])
    made = _make(job, parent, found[parent.digest], to, observer)

    data = steps.data(job, observer)
    decision = steps.decide(job, data, observer).document
    base = measure_steps.measure_base(job, data, decision, observer).document
    before = measure_version(job, data, parent, found[parent.digest], observer)
    after = measure_steps.measure_weights(job, data, made.document, None, observer, to).document
    compared, cost = compare(job, base, after), compare(job, before.document, after)

    child, gate = _register(job, parent, made, compared, cost)
    observer.say(f"  {child.label}, {to}, made from {parent.label}")
    with Registry.open(job.home / "registry") as registry:
        child_files = version_files(registry, child.digest)
    measured = [before, MeasuredVersion(child, child_files, after)]
    measured += [measure_version(job, data, other, found[other.digest], observer) for other in others]
    seconds = _token_seconds(job, measured)
    rows = [_row(job, one, before, seconds) for one in measured]
    return {
        "version": child.label,
        "digest": child.digest,
        "parents": [{"version": parent.label, "digest": parent.digest, "role": "source"}],
        "method": to,
        "name": parent.name,
        "metric": job.recipe.task.metric,
        "n": score_with_interval(job, before.document)["n"],
        "seed": job.recipe.seed,
        **compared,
        "against_parent": cost,
        "gate": gate,
        "rows": rows,
    }


def _check_parent(parent: Version) -> None:
    if parent.kind not in PARENT_KINDS:
        recipe = parent.manifest.quantization
        already = f"is quantized already ({recipe['method']})" if parent.kind == "quantized" and recipe else None
        raise InputError(
            f"{parent.label} {already or f'is of kind {parent.kind!r}, which has no weights to quantize'}",
            allowed=", ".join(PARENT_KINDS),
            next_step=f"take the version that it was made from: tunewright registry lineage {parent.label}",
        )


def _check_merges(parent: Version, files: VersionFiles) -> None:
    assert files.adapter_folder is not None
    if not merges(files.adapter_folder):
        raise InputError(
            f"{parent.label} is an adapter that can't be merged into its base's weights",
            allowed="LoRA, QLoRA and whole weights",
            next_step="quantize its base, or finetune with lora",
        )


def _make(job: Job, parent: Version, files: VersionFiles, to: str, observer: Observer) -> Step:
    """Write the integers to a folder of this state folder, or return the one that is there."""

    def make(key: str) -> dict[str, Any]:
        from components.models.load import load_model

        observer.say(f"quantize {parent.label} to {to} …")
        adapter = files.adapter_folder
        # an adapter that was trained on 4 bits is merged into the weights behind them, and measured as that
        model = load_model(files.base_folder, adapter=adapter, merge=adapter is not None)
        folder = job.home / "runs" / key[:24] / "quantized"
        aside = folder.with_name(f".{folder.name}.{os.getpid()}")
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(parents=True, exist_ok=True)
        place_folder(save_quantized(model, to, files.base_folder, aside), folder)
        return {
            "weights": str(folder.relative_to(job.home)),
            "weights_digest": sha256_tree(folder),
            "kind": "quantized",
        }

    def is_there(document: dict[str, Any]) -> bool:
        folder = job.home / document["weights"]
        return folder.is_dir() and sha256_tree(folder) == document["weights_digest"]

    reads = {
        "parent": parent.digest,
        "to": to,
        "torchao": torchao_version(),
        "libraries": {name: library_versions()[name] for name in ("torch", "transformers", "peft")},
        "code": source_digest(("components/models",)),
    }
    step = job.store.run("quantize", reads, make, is_there)
    release_memory()
    return step


def _register(
    job: Job, parent: Version, made: Step, compared: dict[str, Any], cost: dict[str, Any]
) -> tuple[Version, dict[str, Any]]:
    """Register the integers with their parent, tie the evaluation to them, and hold it against the gate."""
    from registry.manifest import Manifest, Parent, describe_files
    from registry.names import LICENCE_LENGTH, one_line
    from registry.store import Registry

    weights = job.home / made.document["weights"]
    if sha256_tree(weights) != made.document["weights_digest"]:
        raise ConflictError(
            f"{weights} is not what was measured: its bytes changed since",
            next_step="run again: the weights are made and measured anew",
        )
    prints, source = fingerprint(weights), parent.manifest
    kept = {key: source.metadata.get(key) for key in ("rope_scaling", "data_licence", "method")}
    files = base_files(weights)
    manifest = Manifest(
        kind="quantized",
        files=describe_files(files),
        base_fingerprint=prints.base,
        tokenizer_digest=prints.tokenizer,
        template_digest=prints.template,
        quantization={**(stored_quantization(weights) or {}), "made_by": "quantization after training"},
        data_digests=dict(source.data_digests),
        parents=(Parent(parent.digest, "source"),),
        seed=job.recipe.seed,
        library_versions=library_versions(),
        code_revision=source_digest(("components", "flows")),
        content_key=made.key,
        licence=one_line(source.licence, LICENCE_LENGTH),
        metadata={
            **kept,
            "task": job.recipe.task.metric,
            "max_new_tokens": job.recipe.task.max_new_tokens,
        },
    )
    # a base's name stays the base's own
    name = job.recipe.name if parent.kind == "base" else parent.name
    with Registry.open(job.home / "registry") as registry:
        version = registry.register(name, manifest, files)
        policy = gate_policy(job)
        against = {"version": parent.label, "digest": parent.digest, **cost}
        report = gate_report(job, {**compared, "against_parent": against}, version.manifest.file_digests)
        registry.record_evaluation(version.digest, report)
        held = held_alias(registry, job) if name == job.recipe.name else None
        verdict = registry.check_gate(version.digest, policy, held.alias if held else None, approvals=False)
    return version, verdict.to_dict()


def _token_seconds(job: Job, measured: Sequence[MeasuredVersion]) -> Mapping[str, float]:
    """Time a token of each version, as it is served, in turns."""

    def make(_: str) -> dict[str, Any]:
        from components.data.chat import prompt_ids
        from components.evaluation.latency import token_seconds
        from components.models.load import load_as_served, load_tokenizer

        models = {
            one.version.digest: load_as_served(
                one.files.base_folder, adapter=one.files.adapter_folder, quantization=one.files.quantization
            )[0]
            for one in measured
        }
        prompt = prompt_ids(load_tokenizer(job.base.folder), job.test_rows[0].prompt)
        return token_seconds(models, prompt)

    reads = {
        "versions": [one.version.digest for one in measured],
        "row": [(message.role, message.content) for message in job.test_rows[0].prompt],
        "torchao": torchao_version(),
        "code": source_digest(("components/evaluation", "components/models", "components/data")),
    }
    found = job.store.run("token-seconds", reads, make).document
    release_memory()
    return found


def _row(job: Job, one: MeasuredVersion, parent: MeasuredVersion, seconds: Mapping[str, float]) -> dict[str, Any]:
    scored = score_with_interval(job, one.document)
    is_parent = one.version.digest == parent.version.digest
    against = None if is_parent else compare(job, parent.document, one.document)
    task = against["task"] if against else dict.fromkeys(("delta", "low", "high"))
    return {
        "version": one.version.label,
        "digest": one.version.digest,
        "weights": _weights(one),
        **{key: scored[key] for key in ("score", "low", "high")},
        "delta": task["delta"],
        "delta_low": task["low"],
        "delta_high": task["high"],
        "tax": against["tax"] if against else [],
        "bytes": _bytes(one.files),
        "seconds_per_token": seconds[one.version.digest],
    }


def _weights(one: MeasuredVersion) -> str:
    recipe = one.version.manifest.quantization
    if recipe is None:
        return "adapter on the base, merged" if one.files.adapter_folder else "as trained"
    return f"{recipe['method']}, {recipe.get('made_by', 'made at loading')}"


def _bytes(files: VersionFiles) -> int:
    """Return the bytes of weights that have to be there to serve a version."""
    folders: list[Path] = [files.base_folder, *([files.adapter_folder] if files.adapter_folder else [])]
    return sum(path.stat().st_size for folder in folders for path in folder.glob("*.safetensors"))
