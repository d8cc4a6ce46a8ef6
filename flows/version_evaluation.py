"""A report for any version, an imported one too: measured by a recipe, recorded for its bytes, held to its gate."""

from __future__ import annotations

from typing import Any

from flows import measure_steps, steps
from flows.comparison_step import compare
from flows.job import Job
from flows.observer import Observer
from flows.promotion_step import gate_policy, gate_report
from flows.version_measure import check_measurable, check_of_base, measure_version

__all__ = ["evaluate_version"]


def evaluate_version(job: Job, ref: str, observer: Observer) -> dict[str, Any]:
    """Measure a version on a recipe's test rows and suites against its base, and record the report.

    What was measured before is taken from the steps' results: the same call again measures nothing.

    Args:
        job: The recipe on this machine.
        ref: The version.
        observer: Who watches.

    Returns:
        `model`, `digest`, `task` and `tax` as in the run document, `suites` as without a recipe, `gate` {`passed`,
        `reasons`, `checks`} and `policy`.

    Raises:
        InputError: A version of another base, or of a kind that can't be measured.
        Registry errors: Unknown or ambiguous REF, a damaged file.
    """
    from deploy.from_registry import version_files
    from registry.store import Registry

    with Registry.open(job.home / "registry", create=False) as registry:
        version = registry.resolve(ref)
        check_measurable(version)
        check_of_base(job, version)
        files = version_files(registry, version.digest)
    data = steps.data(job, observer)
    decision = steps.decide(job, data, observer).document
    base = measure_steps.measure_base(job, data, decision, observer).document
    measured = measure_version(job, data, version, files, observer).document
    compared, policy = compare(job, base, measured), gate_policy(job)
    report = gate_report(job, compared, version.manifest.file_digests)
    with Registry.open(job.home / "registry") as registry:
        registry.record_evaluation(version.digest, report)
        verdict = registry.check_gate(version.digest, policy, None)
    return {
        "model": version.label,
        "digest": version.digest,
        "name": job.recipe.name,
        "seed": job.recipe.seed,
        **compared,
        "suites": [{name: value for name, value in suite.items() if name != "correct"} for suite in measured["suites"]],
        "policy": policy.to_dict(),
        "gate": verdict.to_dict(),
    }
