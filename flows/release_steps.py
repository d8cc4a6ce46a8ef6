"""The steps behind the evaluation as plain functions: compare, register, gate and promote, bundle, serve and ask."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import ConflictError, TunewrightError
from components.files import digest_of, sha256_file, sha256_tree
from components.finetuning.methods import METHODS
from components.models.adapters import ADAPTER_FILES
from components.models.fingerprint import base_files, file_digest, fingerprint
from components.models.head import HEAD_FILES
from components.models.quantize import stored_quantization
from flows.base_manifest import base_manifest
from flows.job import Job
from flows.observer import Observer, stored_in_mib
from flows.origin_mark import folder_origin
from flows.run_settings import rope_scaling
from flows.step_store import Step, library_versions, source_digest
from flows.task_measure import metric_digest

if TYPE_CHECKING:
    from registry.entities import AliasState
    from registry.gate import Policy
    from registry.manifest import Parent
    from registry.store import Registry

__all__ = [
    "alias_revision",
    "bundle",
    "compare",
    "compare_task_scores",
    "gate_policy",
    "gate_report",
    "held_alias",
    "promote",
    "register",
    "try_question",
]

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


def alias_revision(job: Job) -> int:
    """Return the revision of the recipe's alias, 0 where it never was; the promotion swaps against it."""
    from registry.store import Registry

    if not (job.home / "registry").exists():
        return 0
    with Registry.open(job.home / "registry") as registry:
        return registry.alias_revision(job.recipe.name, job.recipe.release.alias)


def held_alias(registry: Registry, job: Job) -> AliasState | None:
    """Return where the recipe's alias points now, or None where it points at nothing."""
    states = registry.aliases(job.recipe.name)
    return next((state for state in states if state.alias == job.recipe.release.alias), None)


def compare(job: Job, base: dict[str, Any], tuned: dict[str, Any]) -> dict[str, Any]:
    """Compare base and tuned model: task with its subsets, and the alignment tax by suite.

    Returns:
        `task` and `tax` as in the run document.

    Raises:
        TunewrightError: As `compare_task_scores`.
    """
    from components.evaluation.suites import SuiteResult
    from components.evaluation.tax import compare as compare_suites
    from components.evaluation.tax import untouched

    def suites(document: dict[str, Any]) -> list[SuiteResult]:
        fields = ("suite", "digest", "metric", "score", "low", "high", "seconds")
        return [SuiteResult(**{k: s[k] for k in fields}, correct=tuple(s["correct"])) for s in document["suites"]]

    allowed = job.recipe.gate.max_suite_drop
    if tuned["base_untouched"]:
        tax = untouched(suites(base), max_drop=allowed)
    else:
        tax = compare_suites(suites(base), suites(tuned), max_drop=allowed)
    return {"task": compare_task_scores(job, base, tuned), "tax": tax}


def compare_task_scores(job: Job, base: dict[str, Any], tuned: dict[str, Any]) -> dict[str, Any]:
    """Compare what base and a version scored on the test rows, by subset.

    Args:
        job: The recipe on this machine.
        base: Document of `measure_base`.
        tuned: A document whose `task` is that of the version.

    Returns:
        `task` as in the run document. `test_digest` in it says what was scored and how: scores with the same one can
        be compared.

    Raises:
        TunewrightError: Kept scores are of other rows, or of the same in another order.
    """
    from components.evaluation.task import compare_task

    for document in (base, tuned):
        if document["task"]["rows_digest"] != job.test_rows_digest:
            raise TunewrightError(
                "the kept scores are not those of the present test rows",
                next_step=f"remove {job.home / 'steps'} and run again",
            )

    def compared(subset: str | None) -> dict[str, Any]:
        chosen = [i for i, row in enumerate(job.test_rows) if subset in (None, row.metadata.get("subset"))]
        columns = [document["task"][key] for key in ("scores", "predictions") for document in (base, tuned)]
        return compare_task(
            [job.test_rows[i] for i in chosen],
            *([column[i] for i in chosen] for column in columns),
            metric=job.metric,
            baseline=base["candidate"],
            options=None if job.on_text else job.metric_options,
            seed=job.recipe.seed,
        )

    subset = job.recipe.gate.subset
    task = {**compared(subset), "subset": subset, "subsets": compared(None)["subsets"]}
    cost = {
        side: {key: document["task"][key] for key in ("tokens_per_request", "seconds_per_request")}
        for side, document in (("base", base), ("tuned", tuned))
    }
    perplexity = (
        {"perplexity": {"base": base["task"]["perplexity"], "tuned": tuned["task"]["perplexity"]}}
        if job.on_text
        else {}
    )
    return {**task, **perplexity, "cost": cost, "test_digest": _test_digest(job, subset)}


def _test_digest(job: Job, subset: str | None) -> str:
    """Digest everything that a task score depends on but the model: rows, metric, its options and code, answer length.

    The seed is not in it: it matters only through the rows that it chose.
    """
    task, assets = job.recipe.task, job.recipe.data.assets
    return digest_of(
        {
            "rows": [row.to_dict() for row in job.test_rows if subset in (None, row.metadata.get("subset"))],
            "task": task.model_dump(mode="json"),
            "assets": sha256_file(job.repo / assets) if assets else None,
            "metric code": metric_digest(job),
        }
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
            licence=job.base.licence,
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


def promote(job: Job, registered: dict[str, Any], revision: int, observer: Observer) -> dict[str, Any]:
    """Promote inside the registry's transaction, or say why not.

    Args:
        job: The recipe on this machine.
        registered: The version.
        revision: The alias's revision when the run began: whoever moved it since wins.
        observer: Who watches.

    Returns:
        `gate` {passed, reasons, checks}; `promotion` {alias, previous, current, revision}, None when refused.

    Raises:
        ConflictError: Somebody rolled the alias back from this very version, or took it away from it.
        AliasConflict: Somebody moved the alias while the run was under way.
    """
    from registry.errors import GateRefused
    from registry.store import Registry

    name, alias, digest = job.recipe.name, job.recipe.release.alias, registered["digest"]
    with Registry.open(job.home / "registry") as registry:
        if registry.rolled_back_from(name, alias, digest):
            raise ConflictError(
                f"{alias} was rolled back or taken away from {registered['version']}: a run doesn't undo that",
                next_step=f"tunewright registry promote {registered['version']} --alias {alias}, if that is wanted",
            )
        policy = gate_policy(job)
        try:
            change = registry.promote(
                digest,
                alias,
                policy=policy,
                actor=f"flow {name}",
                reason="gate passed",
                expected_revision=revision,
            )
        except GateRefused as refusal:
            gate = refusal.gate or registry.check_gate(digest, policy, alias)
            for reason in gate.reasons:
                observer.say(f"  gate: {reason}")
            return {"gate": gate.to_dict(), "promotion": None}
        promotion = change.to_dict()
        gate = change.gate or registry.check_gate(digest, policy, alias)
        promotion.pop("gate")
        return {"gate": gate.to_dict(), "promotion": promotion}


def bundle(job: Job, registered: dict[str, Any], observer: Observer) -> dict[str, Any]:
    """Package the version with BentoML, from files that the registry has verified."""
    from deploy.bundle import build_bundle
    from deploy.from_registry import version_files
    from deploy.staging import stage_model
    from registry.store import Registry

    with Registry.open(job.home / "registry") as registry:
        files = version_files(registry, registered["digest"])
    built = build_bundle(stage_model(files, out_home=job.home), out_home=job.home)
    observer.say(f"  {built.tag}: {'already there' if built.reused else f'built in {built.seconds:.0f} s'}")
    return {"tag": built.tag, "path": str(built.path), "bytes": built.bytes}


def try_question(job: Job, registered: dict[str, Any], bundled: dict[str, Any], observer: Observer) -> Step:
    """Serve the bundle, wait for its canary, ask one held-out question as a client would, and stop it."""

    def make(_: str) -> dict[str, Any]:
        from deploy.serving import serve_bundle

        row = job.test_rows[0]
        started = time.monotonic()
        with serve_bundle(Path(bundled["path"])) as server:
            observer.say(f"  ready at {server.url} after {server.start_seconds:.0f} s")
            found = _ask(server.base_url, job.recipe.name, row.prompt, job.recipe.task.max_new_tokens)
            canary = dict(server.ready)
        if found["model_digest"] != registered["digest"]:
            raise TunewrightError(
                f"the endpoint answers for {found['model_digest']}, not for {registered['digest']}",
                next_step="run again; if it stays, remove the bundle's folder",
            )
        return {
            "url": server.url,
            "question": row.prompt[-1].content,
            "gold": row.answer,
            **found,
            "start_seconds": server.start_seconds,
            "seconds": time.monotonic() - started,
            "canary": canary,
        }

    reads = {
        "digest": registered["digest"],
        "bundle": bundled["tag"],
        "row": [(m.role, m.content) for m in job.test_rows[0].messages],
        "max_new_tokens": job.recipe.task.max_new_tokens,
        "code": source_digest(("deploy", "components/evaluation", "components/models", "components/data")),
    }
    return job.store.run("endpoint", reads, make)


def _ask(base_url: str, model: str, prompt: Any, max_tokens: int) -> dict[str, Any]:
    import httpx
    from openai import OpenAI

    # a proxy of the environment has no business between this process and loopback
    direct = httpx.Client(trust_env=False, timeout=120)
    client = OpenAI(base_url=base_url, api_key="unused", max_retries=0, http_client=direct)
    turns: list[Any] = [{"role": message.role, "content": message.content} for message in prompt]
    raw = client.chat.completions.with_raw_response.create(
        model=model,
        messages=turns,
        max_tokens=max_tokens,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    pieces: list[str] = []
    usage: dict[str, int] | None = None
    for chunk in raw.parse():
        if chunk.choices and chunk.choices[0].delta.content:
            pieces.append(chunk.choices[0].delta.content)
        if chunk.usage is not None:
            usage = {
                "prompt_tokens": chunk.usage.prompt_tokens,
                "completion_tokens": chunk.usage.completion_tokens,
            }
    client.close()
    return {
        "answer": "".join(pieces),
        "streamed_chunks": len(pieces),
        "usage": usage,
        "model_digest": raw.headers.get("x-model-digest"),
    }


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


def gate_report(job: Job, compared: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """Return what is recorded of a measurement, for the gate: with the recipe's policy, and which files it was of."""
    return {**compared, "policy": gate_policy(job).to_dict(), "seed": job.recipe.seed, "files": dict(files)}


def gate_policy(job: Job) -> Policy:
    """Return what the recipe asks of a version before an alias may point at it."""
    from registry.gate import Policy

    section = job.recipe.gate
    return Policy(
        min_task_delta=section.min_task_delta,
        task_interval_excludes_zero=section.task_interval_excludes_zero,
        max_suite_drop=section.max_suite_drop,
        min_rows=section.min_rows,
        min_suites=len(job.recipe.evaluation.suites),
        required_approvals=section.required_approvals,
    )


def _quantization(weights: Path, kind: str, method: str) -> dict[str, Any] | None:
    """Return how a version's weights are quantized: as they are stored, or as the base beside an adapter is loaded."""
    if kind == "quantized":
        return {**(stored_quantization(weights) or {}), "made_by": "quantization-aware training"}
    at_loading = METHODS[method].quantization
    return {"method": at_loading} if at_loading else None


def _json(path: Path) -> Mapping[str, Any]:
    import json

    document: dict[str, Any] = json.loads(path.read_text())
    return document
