"""Methods of finetuning side by side on one recipe: each trained in a process of its own, measured on the same rows.

Every step is kept by its content, so that a comparison that was killed goes on with the method that it was at, and a
method that the recipe was trained with before isn't trained again.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from components.errors import InputError, TunewrightError
from components.finetuning.method_keys import left_out
from components.finetuning.methods import METHODS
from components.models.quantize import QUANTIZED
from components.recipe_finetune import FinetuneSection
from flows import measure_steps, steps
from flows.comparison_step import compare
from flows.job import Job
from flows.observer import Observer
from flows.step_store import source_digest

__all__ = ["DEFAULT_METHODS", "compare_methods", "overrides_of", "score_with_interval"]

DEFAULT_METHODS = ("full", "lora", "qlora", "bottleneck", "prefix_tuning", "prompt_tuning", "p_tuning")
# What may stand behind a method's name, and what it sets.
VARIANTS = {
    "rslora": "finetune.rslora=true",
    "dora": "finetune.dora=true",
    "pissa": "finetune.lora_start=pissa",
    "loftq": "finetune.lora_start=loftq",
}
# What may stand behind full.
INTEGERS = {to: f"finetune.quantization_aware={to}" for to in QUANTIZED}
NO_FIT = 3
# Of a document, where there are no prompts to time an answer with.
PROMPT_TOKENS = 64


def overrides_of(name: str) -> tuple[str, ...]:
    """Return the recipe values of a method as it is named in a comparison: `lora`, `lora+dora` or `full+int4`.

    What the recipe sets for other methods is set back, and so are LoRA's variants that the name hasn't.

    Raises:
        InputError: An unknown method or variant, or a variant of a method that has none.
    """
    method, *variants = name.split("+")
    if method not in METHODS:
        raise InputError(f"unknown method {method!r}", allowed=", ".join(METHODS))
    if method == "full" and len(variants) == 1 and variants[0] in INTEGERS:
        # scales of whole rows, which processes can't have parts of
        return (*_set_back("full"), "finetune.parallel=ddp", INTEGERS[variants[0]])
    unknown = [variant for variant in variants if variant not in VARIANTS]
    starts = [variant for variant in variants if VARIANTS.get(variant, "").startswith("finetune.lora_start")]
    twice = len(set(variants)) < len(variants) or len(starts) > 1
    if unknown or twice or (variants and method not in ("lora", "qlora")):
        raise InputError(
            f"variants that can't be in {name!r}",
            allowed=f"lora or qlora, with +{', +'.join(VARIANTS)}, each once; full, with one of "
            f"+{', +'.join(INTEGERS)}; other methods as they are",
        )
    return (*_set_back(method), *(VARIANTS[variant] for variant in variants))


def _set_back(method: str) -> tuple[str, ...]:
    """Return a method, and the defaults of what it doesn't read or what makes a variant of it."""
    fields = FinetuneSection.model_fields
    variants = [value.partition("=")[0].rpartition(".")[2] for value in (*VARIANTS.values(), *INTEGERS.values())]
    keys = dict.fromkeys((*left_out(method), *variants))
    return (f"finetune.method={method}", *(f"finetune.{key}={json.dumps(fields[key].default)}" for key in keys))


def compare_methods(
    job_of: Callable[[Sequence[str]], Job], command: Sequence[str], names: Sequence[str], observer: Observer
) -> dict[str, Any]:
    """Train and measure a recipe by several methods.

    Args:
        job_of: Returns the recipe's job with some values set.
        command: Arguments of `tunewright finetune` that mean the same recipe.
        names: Methods as `overrides_of` takes them.
        observer: Who watches.

    Returns:
        `name`, `metric`, `n`, `seed`, `base` {`score`, `low`, `high`, `bytes`} and `methods` [{`name`, `method`,
        `trainable_parameters`, `trainable_fraction`, `score`, `low`, `high`, `delta`, `delta_low`, `delta_high`, `tax`,
        `seconds`, `peak_bytes`, `bytes`, `merges`, `latency`}], or for one that fits no memory `problem`.

    Raises:
        InputError: An unknown method, or one that is named twice.
        TunewrightError: A training process failed; what it said is on standard error.
    """
    if len(set(names)) < len(names):
        raise InputError(f"a method is named twice in {', '.join(names)}", allowed="each method once")
    values = {name: overrides_of(name) for name in names}
    jobs = {name: job_of(values[name]) for name in names}
    first = next(iter(jobs.values()))
    data = steps.data(first, observer)
    base = measure_steps.measure_base(first, data, {"best_candidate": "zero-shot"}, observer).document
    rows = []
    for name, job in jobs.items():
        observer.say(f"{name} …")
        plan = steps.plan(job, data, observer).document
        if not plan["fits"]:
            needed = f"{plan['peak_bytes'] / 2**30:.2f} GiB are more than the budget of"
            rows.append({"name": name, "problem": f"{needed} {plan['budget_bytes'] / 2**30:.2f} GiB"})
            continue
        if not steps.is_trained(job, data, plan) and not _train(
            [*command, *(f"--set={value}" for value in values[name])], name
        ):
            rows.append({"name": name, "problem": "memory ran out while it trained"})
            continue
        rows.append(_row(name, job, data, plan, base, observer))
    scored = score_with_interval(first, base)
    weights = sum(path.stat().st_size for path in first.base.folder.glob("*.safetensors"))
    return {
        "name": first.recipe.name,
        "metric": first.metric,
        "n": scored.pop("n"),
        "seed": first.recipe.seed,
        "base": {**scored, "bytes": weights},
        "methods": rows,
    }


def score_with_interval(job: Job, measured: dict[str, Any]) -> dict[str, Any]:
    """Return score and interval on the subset that the gate reads, or on all test rows, and their number."""
    from components.evaluation.statistics import score_interval

    subset = job.recipe.gate.subset
    pairs = zip(job.test_rows, measured["task"]["scores"], strict=True)
    scores = [score for row, score in pairs if subset in (None, row.metadata.get("subset"))]
    found = score_interval(scores, job.recipe.seed)
    return {"score": sum(scores) / len(scores), "low": found.low, "high": found.high, "n": len(scores)}


def _train(command: list[str], name: str) -> bool:
    """Train in a process of its own: what other methods left in this one's memory is no part of a method's peak.

    Returns:
        Whether there are weights; not where memory ran out.
    """
    call = [sys.executable, "-W", "ignore", "-c", "from flows.cli import main; main()", "finetune", *command, "--json"]
    with subprocess.Popen(call, stdout=subprocess.PIPE, text=True) as child:
        try:
            out, _ = child.communicate()
        except BaseException:
            child.terminate()
            child.wait()
            raise
    if child.returncode not in (0, NO_FIT):
        raise TunewrightError(
            f"training with {name} ended with status {child.returncode}",
            next_step="what it said stands above; run the same command again, it goes on where it stopped",
        )
    if child.returncode == NO_FIT:
        return False
    if "stopped_at_step" in json.loads(out):
        raise KeyboardInterrupt
    return True


def _row(
    name: str, job: Job, data: dict[str, Any], plan: dict[str, Any], base: dict[str, Any], observer: Observer
) -> dict[str, Any]:
    training = steps.finetune(job, data, plan, observer).document
    tuned = measure_steps.measure_tuned(job, data, plan, training, observer).document
    compared = compare(job, base, tuned)
    task, folder = compared["task"], job.home / training["weights"]
    scored = score_with_interval(job, tuned)
    return {
        "name": name,
        "method": plan["method"],
        "trainable_parameters": training["trainable_parameters"],
        "trainable_fraction": training["trainable_parameters"] / training["total_parameters"],
        **{key: scored[key] for key in ("score", "low", "high")},
        "delta": task["delta"],
        "delta_low": task["low"],
        "delta_high": task["high"],
        "tax": compared["tax"],
        "seconds": training["seconds"],
        "peak_bytes": training["peak_bytes"],
        "bytes": sum(path.stat().st_size for path in folder.iterdir()),
        "merges": _merges(training, folder),
        "latency": _latency(job, plan, training),
    }


def _merges(training: dict[str, Any], folder: Any) -> bool:
    from components.models.adapters import merges

    return training["kind"] == "adapter" and merges(folder)


def _latency(job: Job, plan: dict[str, Any], training: dict[str, Any]) -> dict[str, Any] | None:
    """Time a token with the adapter apart; None for whole weights and for heads, which write none."""
    if training["kind"] != "adapter":
        return None
    quantization = METHODS[plan["method"]].quantization

    def make(_: str) -> dict[str, Any]:
        from components.data.chat import prompt_ids
        from components.data.texts import encode_text
        from components.evaluation.latency import measure_added_latency
        from components.models.load import load_model, load_tokenizer

        model = load_model(job.base.folder, quantization=quantization, adapter=job.home / training["weights"])
        tokenizer, row = load_tokenizer(job.base.folder), job.test_rows[0]
        prompt = (
            encode_text(tokenizer, row.answer)[:PROMPT_TOKENS] if job.on_text else prompt_ids(tokenizer, row.prompt)
        )
        return measure_added_latency(model, prompt).to_dict()

    reads = {
        "base": job.binding.base,
        "weights": training["weights_digest"],
        "row": [(message.role, message.content) for message in job.test_rows[0].messages],
        "code": source_digest(("components/evaluation", "components/models", "components/data")),
    }
    return job.store.run("latency", reads, make).document
