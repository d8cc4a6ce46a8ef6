"""What a run promotes, and what it says where others have to approve first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.paths import home
from components.recipe import load_recipe
from flows.observer import TerminalObserver
from flows.open_job import open_job
from flows.promotion_step import gate_report, promote
from registry.manifest import Manifest, describe_files
from registry.store import Registry


def test_a_run_promotes_once_the_people_that_its_recipe_asks_for_have_approved(
    project: Callable[..., Path], tiny_base: Path
) -> None:
    job = open_job(load_recipe(project(base=str(tiny_base), gate={"required_approvals": 1})), home())
    files = {"config.json": tiny_base / "config.json"}
    score = {"n": 20, "delta": 0.2, "low": 0.1, "high": 0.3, "metric": job.metric, "tuned": 0.3}
    manifest = Manifest("base", describe_files(files), base_fingerprint="f" * 64)
    with Registry.open(job.home / "registry") as registry:
        version = registry.register(job.recipe.name, manifest, files)
        report = gate_report(job, {"task": score, "tax": []}, manifest.file_digests)
        registry.record_evaluation(version.digest, report)
    registered = {"digest": version.digest, "version": version.label}
    refused = promote(job, registered, 0, TerminalObserver())
    assert refused["promotion"] is None
    assert refused["gate"]["reasons"][0].startswith(f"0 of 1 approvals for {version.label}")
    with Registry.open(job.home / "registry") as registry:
        registry.approve(version.digest, job.recipe.release.alias, actor="somebody else")
    done = promote(job, registered, 0, TerminalObserver())
    assert (done["promotion"]["current"], done["gate"]["passed"]) == (version.label, True)


def test_what_a_recipe_asks_to_be_signed_is_promoted_and_not_served_unsigned(
    project: Callable[..., Path], tiny_base: Path
) -> None:
    from components.errors import VerdictError
    from deploy.from_registry import version_files

    key = "ab" * 32
    job = open_job(load_recipe(project(base=str(tiny_base), gate={"required_signature": key})), home())
    files = {"config.json": tiny_base / "config.json"}
    score = {"n": 20, "delta": 0.2, "low": 0.1, "high": 0.3, "metric": job.metric, "tuned": 0.3}
    manifest = Manifest("base", describe_files(files), base_fingerprint="f" * 64)
    with Registry.open(job.home / "registry") as registry:
        version = registry.register(job.recipe.name, manifest, files)
        registry.record_evaluation(version.digest, gate_report(job, {"task": score, "tax": []}, manifest.file_digests))
    registered = {"digest": version.digest, "version": version.label}
    assert promote(job, registered, 0, TerminalObserver())["gate"]["passed"]
    with Registry.open(job.home / "registry") as registry:
        assert registry.standing(version.digest).required_keys == (key,)
        with pytest.raises(VerdictError, match="only with a signature of the key abababababab"):
            version_files(registry, version.digest, served=True)
