"""The base on its way into the registry: every file that it is judged by, whole, and put back when it was lost."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import ConflictError
from components.models.fingerprint import fingerprint
from components.paths import home
from components.recipe import load_recipe
from flows.job import Job
from flows.observer import TerminalObserver
from flows.open_job import open_job
from flows.origin_mark import MARK
from flows.registration_step import _register_base
from registry.entities import Version
from registry.store import Registry

Project = Callable[..., Path]


@pytest.fixture
def base(tmp_path: Path, tiny_base: Path) -> Path:
    """A base with a vocabulary in the older forms beside tokenizer.json."""
    folder = Path(shutil.copytree(tiny_base, tmp_path / "old-forms"))
    (folder / "merges.txt").write_text("#version: 0.2\na b\n")
    (folder / "vocab.txt").write_text("a\nb\n")
    (folder / "spiece.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>")
    (folder / "LICENSE").write_text("Apache License")
    (folder / "notes on this base.md").write_text("not a part of it")
    return folder


@pytest.fixture
def job(project: Project, base: Path) -> Job:
    return open_job(load_recipe(project(base=str(base))), home())


def register(job: Job) -> Version:
    with Registry.open(job.home / "registry") as registry:
        version: Version = _register_base(registry, job, TerminalObserver())
        return version


def test_a_registered_base_has_the_digests_that_it_was_measured_with(job: Job) -> None:
    version = register(job)
    assert {"merges.txt", "vocab.txt", "spiece.model", "LICENSE"} <= set(version.manifest.files)
    assert "notes on this base.md" not in version.manifest.files
    with Registry.open(job.home / "registry") as registry:
        found = fingerprint(registry.checkout(version.digest))
    assert found == job.binding


def test_registering_again_puts_back_what_was_lost(job: Job) -> None:
    version = register(job)
    with Registry.open(job.home / "registry") as registry:
        lost = registry.blobs.local_path(version.manifest.files["merges.txt"].sha256)
        assert lost is not None
        lost.unlink()
    assert register(job).digest == version.digest
    with Registry.open(job.home / "registry") as registry:
        assert registry.verify().intact


def test_a_setting_that_no_digest_covers_makes_another_version_of_the_base(job: Job, base: Path) -> None:
    first = register(job)
    (base / "generation_config.json").write_text('{"eos_token_id": 2, "temperature": 0.3}')
    again = open_job(job.resolved, job.home)
    assert again.binding == job.binding
    assert register(again).version == first.version + 1


def test_a_base_that_changed_during_the_run_is_not_registered(job: Job, base: Path) -> None:
    (base / "merges.txt").write_text("#version: 0.2\nb a\n")
    with pytest.raises(ConflictError, match="not the base that was measured"):
        register(job)


def test_a_base_whose_files_say_what_they_were_made_from_is_not_proven(job: Job, base: Path) -> None:
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, MARK: "sql:v1"}))
    version = register(open_job(job.resolved, job.home))
    with Registry.open(job.home / "registry") as registry:
        found = registry.standing(version.digest)
    assert (found.proven, found.reasons[0]) == (False, "its weights say that they were made from sql:v1")


@pytest.mark.integration
def test_a_release_lands_in_the_database_that_is_named_once_and_remembered(
    job: Job, make_database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_REGISTRY_DATABASE", make_database())
    version = register(job)
    monkeypatch.delenv("TUNEWRIGHT_REGISTRY_DATABASE")
    assert register(job) == version
    assert not (job.home / "registry" / "registry.db").exists()
