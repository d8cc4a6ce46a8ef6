"""Runs that are no versions: recorded once, insert-only, held against the audit, found from the lineage."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest

from registry.entities import Version
from registry.errors import ReferenceInvalid, ReportInvalid, RunTaken
from registry.store import Registry

Add = Callable[..., Version]
DATA = {"train.jsonl": hashlib.sha256(b"rows").hexdigest()}


def record(registry: Registry, fingerprint: str, number: int, content_key: str | None, **more: Any) -> Any:
    document = {"summary": f"rank {number}", "data": DATA, **more}
    return registry.record_run(
        "text2sql", "sweep-a", number, base_fingerprint=fingerprint, content_key=content_key, document=document
    )


def test_a_run_is_recorded_once_and_can_be_listed(registry: Registry, fingerprints: tuple[str, str]) -> None:
    first = record(registry, fingerprints[0], 0, "key")
    assert record(registry, fingerprints[0], 0, "key") == first
    for other in ({"seconds": 3}, {"content_key": "other"}, {"fingerprint": fingerprints[1]}):
        with pytest.raises(RunTaken, match="another document") as refused:
            record(registry, **{"fingerprint": fingerprints[0], "number": 0, "content_key": "key", **other})
        assert refused.value.exit_status == 4
    assert [run.document["summary"] for run in registry.runs("text2sql")] == ["rank 0"]
    assert registry.runs("another") == []
    assert [entry.action for entry in registry.audit()] == ["run"]
    assert registry.verify().intact


def test_a_number_is_one_that_both_databases_hold(registry: Registry, fingerprints: tuple[str, str]) -> None:
    assert record(registry, fingerprints[0], 2**31 - 1, None).number == 2**31 - 1
    for number in (2**31, -1, True, 1.0, "1", None):
        with pytest.raises(ReferenceInvalid, match="0 to 2147483647"):
            record(registry, fingerprints[0], number, None)  # type: ignore[arg-type]
    assert len(registry.runs()) == 1


def test_half_of_a_surrogate_pair_is_no_document_and_no_report(
    registry: Registry, fingerprints: tuple[str, str], add_base: Add
) -> None:
    with pytest.raises(ReportInvalid, match="run document"):
        record(registry, fingerprints[0], 0, "key", note="\ud800")
    with pytest.raises(ReportInvalid, match="evaluation report"):
        registry.record_evaluation(add_base().digest, {"note": "\ud800"})
    assert registry.runs() == []
    assert registry.evaluations("tiny-base") == []


def test_a_document_that_is_no_json_is_refused(registry: Registry, fingerprints: tuple[str, str]) -> None:
    pairs: Any = [("loss", 1)]
    with pytest.raises(ReportInvalid, match="run document is a list"):
        registry.record_run("m", "s", 0, base_fingerprint=fingerprints[0], content_key=None, document=pairs)
    with pytest.raises(ReportInvalid, match="run document"):
        record(registry, fingerprints[0], 0, "key", loss=float("nan"))
    assert registry.runs() == []


def test_lineage_leads_from_a_version_to_its_trial_and_to_the_others_of_the_sweep(
    registry: Registry, add_adapter: Add, fingerprints: tuple[str, str]
) -> None:
    chosen = record(registry, fingerprints[0], 0, "chosen")
    pruned = record(registry, fingerprints[1], 1, None)
    stranger = registry.record_run(
        "other", "sweep-b", 0, base_fingerprint=fingerprints[0], content_key="chosen", document={}
    )
    version = add_adapter("chosen")
    lineage = registry.lineage(version.label)
    roles = {(e.source, e.role) for e in lineage.edges if e.target == version.digest}
    assert {(chosen.digest, "run"), (pruned.digest, "trial")} <= roles
    base = registry.resolve("tiny-base")
    into_chosen = {(e.source, e.role) for e in lineage.edges if e.target == chosen.digest}
    assert into_chosen == {(base.digest, "base"), (DATA["train.jsonl"], "data")}
    # the other base isn't registered, so that no edge can lead from it
    assert {e.role for e in lineage.edges if e.target == pruned.digest} == {"data"}
    assert {n.id: n.direction for n in lineage.nodes if n.type == "run"} == {chosen.digest: "up", pruned.digest: "up"}
    from_base = {n.id for n in registry.lineage("tiny-base").nodes if n.type == "run"}
    assert from_base == {chosen.digest, pruned.digest, stranger.digest}


def test_a_changed_or_removed_run_is_found(registry: Registry, backend: Any, fingerprints: tuple[str, str]) -> None:
    record(registry, fingerprints[0], 0, "key")
    record(registry, fingerprints[0], 1, "other")
    raw = backend.connect(registry.folder)
    raw.lift("runs")
    raw.execute("UPDATE runs SET document = '{}' WHERE number = 0")
    raw.execute("DELETE FROM runs WHERE number = 1")
    problems = [problem.problem for problem in registry.verify().problems]
    assert any("the document doesn't have the run's digest" in problem for problem in problems)
    assert any("gone from the database" in problem for problem in problems)
