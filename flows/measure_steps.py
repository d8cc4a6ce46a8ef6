"""The main job's measurements as plain functions: base and tuned model on the held-out rows and the general suites."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from components.files import digest_of
from components.finetuning.methods import METHODS
from components.models.rope import RopeScaling
from flows.job import Job
from flows.long_context import task_scaling
from flows.observer import Observer
from flows.step_reads import model_reads, prompting_reads, scored_reads, split_digest, task_reads
from flows.step_store import Step, released, source_digest, torchao_version
from flows.task_measure import measure_task

__all__ = ["measure_base", "measure_tuned", "measure_weights"]

# What training leaves in the base's place; anything else stands beside the base.
WHOLE_KINDS = ("full", "quantized")


def measure_base(job: Job, data: dict[str, Any], decision: dict[str, Any], observer: Observer) -> Step:
    """Score the best prompting candidate on the held-out rows, and the base on the general suites."""
    return _measure(job, data, observer, "base", decision["best_candidate"], None, None)


def measure_tuned(
    job: Job, data: dict[str, Any], plan: dict[str, Any], training: dict[str, Any], observer: Observer
) -> Step:
    """Score the tuned model with the plain prompt on the held-out rows, and on the general suites."""
    return measure_weights(job, data, training, METHODS[plan["method"]].quantization, observer)


def measure_weights(
    job: Job,
    data: dict[str, Any],
    weights: dict[str, Any] | None,
    quantization: str | None,
    observer: Observer,
    side: str = "tuned",
) -> Step:
    """Score weights with the plain prompt on the held-out rows, and on the general suites.

    Args:
        job: The recipe on this machine.
        data: Document of `data`.
        weights: `weights` (their folder, relative to the state folder or absolute), `weights_digest` and `kind`, as in
            the document of `finetune`; None for the bare base.
        quantization: How the base beside an adapter is loaded.
        observer: Who watches.
        side: What is measured, in words.
    """
    return _measure(job, data, observer, side, "zero-shot", weights, quantization)


def _measure(
    job: Job,
    data: dict[str, Any],
    observer: Observer,
    side: str,
    candidate: str,
    training: dict[str, Any] | None,
    quantization: str | None,
) -> Step:
    """Measure one model on task and suites; each is kept by itself, and the model is loaded when one is missing."""
    recipe = job.recipe
    # one model at a time: the base is scaled for a task that doesn't fit it otherwise, and never for the suites, whose
    # loss by the scaling is a part of the tax
    loaded: dict[RopeScaling | None, tuple[Any, Any]] = {}

    def model_and_tokenizer(scaling: RopeScaling | None = None) -> tuple[Any, Any]:
        if scaling not in loaded:
            loaded.clear()
            loaded[scaling] = _load(job, training, quantization, rope_scaling=scaling)
        return loaded[scaling]

    def task_measured(_: str) -> dict[str, Any]:
        from components.decision.baselines import RETRIEVAL_CANDIDATES, build_prompts
        from components.evaluation.generation import answer_positions

        model, tokenizer = model_and_tokenizer(task_scaling(job) if training is None else None)
        watcher = _progress(observer, f"evaluate {side}: {candidate}")
        if job.on_text:
            return measure_task(job, model, tokenizer, progress=watcher)
        prompts = build_prompts(
            candidate,
            job.test_rows,
            job.train_rows,
            tokenizer=tokenizer,
            positions=answer_positions(model),
            max_new_tokens=recipe.task.max_new_tokens,
            examples=recipe.decision.few_shot,
            seed=recipe.seed,
            written=job.written_prompt,
            context=job.context if candidate in RETRIEVAL_CANDIDATES else None,
        )
        return measure_task(job, model, tokenizer, progress=watcher, prompts=prompts.prompts)

    def measure_suites(_: str) -> dict[str, Any]:
        from components.evaluation.suites import load_suite, run_suite

        model, tokenizer = model_and_tokenizer()
        # a head's base, where its measurement is gone
        model = model.base if untouched else model
        results = []
        for name in recipe.evaluation.suites:
            suite = load_suite(name, recipe.evaluation.suite_rows, recipe.seed)
            watcher = _progress(observer, f"evaluate {side}: {name}")
            found = run_suite(model, tokenizer, suite, progress=watcher)
            results.append({**found.to_dict(), "correct": list(found.correct)})
        return {"suites": results}

    weights = None if training is None else training["weights_digest"]
    weights_reads = {"weights": weights, "quantization": quantization}
    untouched = training is not None and training["kind"] == "head"
    if training is not None and training["kind"] == "quantized":
        weights_reads["torchao"] = torchao_version()
    examples = [split_digest(job, data, "train"), list(recipe.data.train_subsets), recipe.decision.few_shot]
    # the same weights are measured once, whatever they are called
    place = "base" if training is None else "tuned"
    task = job.store.run(
        f"measure-{place}-task",
        {
            **task_reads(job, data),
            **weights_reads,
            "test": scored_reads(job, data),
            "candidate": candidate,
            "examples": None if candidate == "zero-shot" else examples,
            "prompting": None if candidate == "zero-shot" else prompting_reads(job, data),
            "batch_size": recipe.evaluation.batch_size,
            "code": source_digest(("components/evaluation", "components/decision", "components/data")),
        },
        task_measured,
    )
    # beside a head the base's own weights would answer the suites a second time: their one measurement is taken
    suites = job.store.run(
        f"measure-{'base' if untouched else place}-suites",
        {
            **model_reads(job),
            **({"weights": None, "quantization": None} if untouched else weights_reads),
            "suites": [list(recipe.evaluation.suites), recipe.evaluation.suite_rows, recipe.seed],
            "code": source_digest(("components/evaluation", "components/data")),
        },
        measure_suites,
    )
    loaded.clear()
    document = {
        "candidate": candidate,
        "task": task.document,
        "suites": suites.document["suites"],
        "base_untouched": untouched,
    }
    both = digest_of([task.key, suites.key])
    cached = task.cached and suites.cached
    return released(Step(f"measure-{side}", both, document, cached, task.seconds + suites.seconds))


def _progress(observer: Observer, what: str) -> Callable[[int, int], None]:
    return lambda done, total: observer.progress(what, done, total)


def _load(
    job: Job,
    training: dict[str, Any] | None,
    quantization: str | None = None,
    *,
    rope_scaling: RopeScaling | None = None,
) -> tuple[Any, Any]:
    """Load the base, scaled or not, or the tuned model as it will be served: its scaling comes with its weights."""
    from components.models.load import load_as_served

    if training is None:
        return load_as_served(job.base.folder, adapter=None, quantization=quantization, rope_scaling=rope_scaling)
    weights = job.home / training["weights"]
    if training["kind"] in WHOLE_KINDS:
        return load_as_served(weights, adapter=None, quantization=None)
    return load_as_served(job.base.folder, adapter=weights, quantization=quantization)
