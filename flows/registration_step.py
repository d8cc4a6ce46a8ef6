"""The step that registers the base once, and what was trained once, with its evaluation."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import ConflictError
from components.files import digest_of, sha256_tree
from components.finetuning.methods import METHODS
from components.models.adapters import ADAPTER_FILES
from components.models.fingerprint import base_files, file_digest, fingerprint
from components.models.head import HEAD_FILES
from components.models.quantize import stored_quantization
from flows.base_manifest import base_manifest
from flows.job import Job
from flows.observer import Observer, stored_in_mib
from flows.origin_mark import folder_origin
from flows.promotion_step import gate_report
from flows.run_settings import rope_scaling
from flows.step_store import Step, library_versions, source_digest

if TYPE_CHECKING:
    from registry.manifest import Parent

__all__ = ["register"]

# What of the training document stands in a version's manifest.
TRAINING_FACTS = (
    "steps",
    "planned_steps",
    "ended",
    "kept_step",
    "kept_reason",
    "rows",
    "tokens",
    "trainable_parameters",
    "total_parameters",
    "splits",
)


def register(
    job: Job,
    data: dict[str, Any],
    decision: dict[str, Any],
    plan: dict[str, Any],
    training: Step,
    comparison: dict[str, Any],
    flow_run_id: str | None,
    observer: Observer,
) -> dict[str, Any]:
    """Register the base once and what was trained once, and tie the evaluation to exactly these weights.

    Returns:
        `version` (`name:vN`), `digest`, `base` (the base's digest).
    """
    from registry.manifest import Manifest, describe_files
    from registry.names import LICENCE_LENGTH, one_line
    from registry.store import Registry

    recipe = job.recipe
    with Registry.open(job.home / "registry") as registry:
        base = _register_base(registry, job, observer)
        weights, kind = job.home / training.document["weights"], training.document["kind"]
        if sha256_tree(weights) != training.document["weights_digest"]:
            raise ConflictError(
                f"{weights} is not what was measured: its bytes changed since training",
                next_step="run again: the weights are trained and measured anew",
            )
        names = {"adapter": ADAPTER_FILES, "head": HEAD_FILES}.get(kind)
        files = base_files(weights) if names is None else {name: weights / name for name in names}
        binding = fingerprint(weights) if names is None else job.binding
        scaling = rope_scaling(job)
        manifest = Manifest(
            kind=kind,
            files=describe_files(files),
            base_fingerprint=binding.base,
            tokenizer_digest=binding.tokenizer,
            template_digest=binding.template,
            quantization=_quantization(weights, kind, plan["method"]),
            peft_config=_json(weights / "adapter_config.json") if kind == "adapter" else None,
            data_digests={file["path"]: file["sha256"] for file in data["files"]},
            parents=_parents(job, base.digest),
            seed=recipe.seed,
            library_versions=library_versions(),
            code_revision=source_digest(("components", "flows")),
            flow_run_id=flow_run_id,
            decision_digest=digest_of(decision),
            plan_digest=digest_of(plan),
            content_key=training.key,
            licence=one_line(job.base.licence, LICENCE_LENGTH),
            metadata={
                "method": plan["method"],
                "task": job.metric,
                "max_new_tokens": recipe.task.max_new_tokens,
                "objective": recipe.finetune.objective,
                "teacher": None
                if job.teacher is None
                else {
                    "name": job.teacher.name,
                    "fingerprint": job.teacher_fingerprint,
                    "origin": job.teacher.origin,
                    "licence": job.teacher.licence,
                    "weight": recipe.finetune.distillation_weight,
                    "temperature": recipe.finetune.temperature,
                },
                "data_licence": recipe.data.licence,
                "decision_override": recipe.decision.override_reason,
                "tactics": {
                    rule.key: {"value": rule.value, "source": rule.source, "reason": rule.reason}
                    for rule in job.tactics_for(plan["method"]).rules
                },
                "training": {key: training.document[key] for key in TRAINING_FACTS},
                "rope_scaling": scaling.to_record() if scaling is not None else None,
                "head": training.document["head"],
                "rank_hint": (training.document["deltas"] or {}).get("hint"),
                "memory": training.document["memory"],
                "time": training.document["time"],
                "energy": training.document["energy"],
            },
        )
        version = registry.register(recipe.name, manifest, files, progress=stored_in_mib(observer))
        measured = manifest.file_digests
        registry.record_evaluation(version.digest, gate_report(job, comparison, measured))
        return {"version": version.label, "digest": version.digest, "base": base.digest, "files": len(files)}


def _parents(job: Job, base: str) -> tuple[Parent, ...]:
    """Return what a version was made from: its base with what that was made from, and a teacher of the registry."""
    from registry.manifest import Parent

    before = job.version_base.parents if job.version_base else (Parent(base, "base"),)
    return (*before, Parent(job.teacher_version.digest, "teacher")) if job.teacher_version else before


def _register_base(registry: Any, job: Job, observer: Observer) -> Any:
    """Register the base, or find it; what was damaged or lost of its stored files is put back."""
    if job.version_base is not None:
        version = registry.resolve(job.version_base.digest)
        observer.say(f"  base {version.label}")
        return version
    from registry.manifest import FileEntry

    files = base_files(job.base.folder)
    _check_chosen(job, files)
    # the files have just been read for the fingerprint, and storing them holds their bytes against these digests
    entries = {name: FileEntry(path.stat().st_size, file_digest(path)) for name, path in files.items()}
    known = {"origin": job.base.origin}
    if (made_from := folder_origin(job.base.folder)) is not None:
        known["made_from"] = made_from  # so that it isn't served as a base that nothing was trained into
    manifest = base_manifest(job.binding, entries, job.base.licence, known)
    version = registry.register(job.base_name, manifest, files, progress=stored_in_mib(observer))
    observer.say(f"  base {version.label}")
    return version


def _check_chosen(job: Job, files: Mapping[str, Path]) -> None:
    """Hold the files to be registered, and no others, against the base that the run read."""
    with tempfile.TemporaryDirectory(prefix="tunewright-") as temporary:
        for name, path in files.items():
            (Path(temporary) / name).symlink_to(path.absolute())
        found = fingerprint(Path(temporary))
    if found != job.binding:
        raise ConflictError(
            f"the files of {job.base.folder} that can be registered are not the base that was measured",
            allowed="a base with weights, tokenizer and chat template in its folder, unchanged since the run began",
            next_step="run again; if it stays, name the base's files as transformers does",
        )


def _quantization(weights: Path, kind: str, method: str) -> dict[str, Any] | None:
    """Return how a version's weights are quantized: as they are stored, or as the base beside an adapter is loaded."""
    if kind == "quantized":
        return {**(stored_quantization(weights) or {}), "made_by": "quantization-aware training"}
    at_loading = METHODS[method].quantization
    return {"method": at_loading} if at_loading else None


def _json(path: Path) -> Mapping[str, Any]:
    document: dict[str, Any] = json.loads(path.read_text())
    return document
