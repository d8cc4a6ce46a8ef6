"""The same calls on a registry and on a client of its server: the same values, the same errors, the same records."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import io
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.errors import (
    AliasConflict,
    AliasNotFound,
    ApprovalNotFound,
    ApprovalRefused,
    ApprovalsMissing,
    BaseMismatch,
    BlobCorrupted,
    ContentKeyTaken,
    DigestTaken,
    EvaluationMismatch,
    FileRefused,
    GateRefused,
    ManifestInvalid,
    ParentNotFound,
    PolicyInvalid,
    ReferenceInvalid,
    RegistryBusy,
    RegistryError,
    RegistryPathError,
    ReportInvalid,
    RequestInvalid,
    RollbackRefused,
    RunTaken,
    ServerUnavailable,
    TokenInvalid,
    UploadConflict,
    VersionHeld,
    VersionNotFound,
    VersionRetired,
)
from registry.gate import Policy
from registry.http import transfer
from registry.http.app import make_app
from registry.http.client import RegistryClient
from registry.http.tokens import Tokens
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

DATA = hashlib.sha256(b"rows").hexdigest()
WHO = {"actor": "tester"}


@pytest.fixture(params=["local", "http"])
def either(request: pytest.FixtureRequest, registry: Registry, in_process: Callable[..., Any]) -> Any:
    """A registry, or a client of its server in the same name."""
    if request.param == "local":
        return registry
    tokens = Tokens(registry.folder)
    app = make_app(registry, tokens)
    transport = in_process(app)
    return RegistryClient("http://registry.test", tokens.add("tester", "promote"), transport=transport)


@pytest.fixture
def given(either: Any, write_files: Callable[..., dict[str, Path]], fingerprints: tuple[str, str]) -> Any:
    """Register a base and adapters through the one that is tested."""

    class Given:
        def base(self, name: str = "tiny-base") -> Any:
            files = write_files("base")
            manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
            return either.register(name, manifest, files, **WHO)

        def adapter(self, key: str, **changes: Any) -> Any:
            files = changes.pop("given", None) or write_files(f"adapter {key}")
            values: dict[str, Any] = {
                "kind": "adapter",
                "files": describe_files(files),
                "base_fingerprint": fingerprints[0],
                "parents": (Parent(self.base().digest, "base"),),
                "data_digests": {"train.jsonl": DATA},
                "content_key": key,
                # texts that a careless JSON round would change, and with them the digest
                "metadata": {"rate": 1e-05, "one": 1.0, "big": 2**70, "text": "é\u2028\x7f", "none": None},
            }
            return either.register("text2sql", Manifest(**{**values, **changes}), files, **WHO)

    return Given()


# What a registry has that a client doesn't, and why; and what a client has besides.
NOT_REMOTE = {
    "open": "a client is given an address",
    "open_to_read": "a token's role says that of a client",
    "register_stored": "what the server does behind the client's `register`",
    "evaluations_before": "what the server does behind the client's `evaluations`",
    "outbox_head": "whoever reads the outbox from afar asks for what is behind its own place",
}
REMOTE_ALONE = {"sign", "signatures", "verify_signature"}  # functions of registry/signatures.py, over a registry
CLIENT_FILES = {"client", "remote_acts", "transfer"}
FROM_AFAR = {"checkout": {"dest", "progress"}}  # a client has no checkouts of its own, and waits for bytes


def test_a_client_has_every_method_of_a_registry_with_its_parameters() -> None:
    """What is called on one can be called on the other; only who acts need not be said to a server."""

    def public(one: type) -> set[str]:
        return {name for name in dir(one) if not name.startswith("_") and callable(getattr(one, name))}

    assert public(Registry) - public(RegistryClient) == set(NOT_REMOTE)
    assert public(RegistryClient) - public(Registry) == REMOTE_ALONE
    for name in public(Registry) & public(RegistryClient):
        ours, theirs = (dict(inspect.signature(getattr(one, name)).parameters) for one in (Registry, RegistryClient))
        for parameters in (ours, theirs):
            for parameter in FROM_AFAR.get(name, set()):
                parameters.pop(parameter, None)
        assert ours.keys() == theirs.keys(), name
        by_place = [[n for n, p in given.items() if p.kind is not p.KEYWORD_ONLY] for given in (ours, theirs)]
        assert by_place[0] == by_place[1], f"{name} takes them in another order"
        for parameter in ours:
            if parameter not in ("actor", "progress"):
                assert ours[parameter].default == theirs[parameter].default, (name, parameter)


def test_every_path_of_the_api_is_asked_by_the_client(registry: Registry) -> None:
    paths = make_app(registry, Tokens(registry.folder)).openapi()["paths"]
    asked = "".join(
        file.read_text()
        for file in (Path(__file__).parents[3] / "registry/http").glob("*.py")
        if file.stem in CLIENT_FILES
    )
    left = {path for path in paths if re.sub(r"/?\{.*", "", path) not in asked}
    # of the server, not of the registry: whether it lives, whom it takes the caller for, its own figures
    assert left == {"/v1/health", "/v1/whoami", "/v1/metrics", "/v1/files/{ref}"}, "files are in the manifest"


def test_versions_are_the_same_from_everywhere(either: Any, registry: Registry, given: Any) -> None:
    adapter, again = given.adapter("one"), given.adapter("one")
    other = given.adapter("two", data_digests={})
    assert adapter == again == registry.resolve("text2sql:v1")
    assert either.resolve("text2sql") == registry.resolve("text2sql") == other
    assert either.resolve(adapter.digest[:12]).manifest == adapter.manifest
    assert either.versions() == registry.versions()
    assert either.versions("text2sql") == [adapter, other]
    assert either.models() == registry.models()
    assert either.search(data=DATA) == [adapter]
    assert [v.label for v in either.search(base=adapter.base_fingerprint, kind="base")] == ["tiny-base:v1"]
    for direction in ("both", "up", "down"):
        assert either.lineage("text2sql", direction) == registry.lineage("text2sql", direction)
    assert either.trained_on(DATA) == registry.trained_on(DATA)
    assert {entry.actor for entry in registry.audit()} == {"tester"}
    assert registry.verify().intact


def test_more_versions_than_a_page_holds_are_all_there(
    either: Any, registry: Registry, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.http.connection.PAGE", 2)
    for key in "abc":
        registry.record_evaluation(given.adapter(key).digest, {"key": key})
    registry.record_evaluation(registry.resolve("text2sql").digest, {"key": "d"})
    registry.record_evaluation(registry.resolve("text2sql").digest, {"key": "e"})
    assert [v.label for v in either.versions()] == ["text2sql:v1", "text2sql:v2", "text2sql:v3", "tiny-base:v1"]
    assert [e.report["key"] for e in either.evaluations("text2sql")] == ["e", "d", "c"]
    assert either.audit() == registry.audit()
    assert either.audit(after=3, limit=3) == registry.audit(after=3, limit=3) == registry.audit()[3:6]
    assert either.outbox() == registry.outbox()
    assert either.outbox(after=1, limit=1) == registry.outbox()[1:2]
    assert [v.label for v in either.search(after=("text2sql", 1), limit=3)] == [
        "text2sql:v2", "text2sql:v3", "tiny-base:v1"]  # fmt: skip
    assert either.search(kind="adapter", limit=3) == registry.search(kind="adapter")
    assert either.models(after="text2sql") == registry.models()[1:]
    assert either.models(limit=1) == registry.models(limit=1)


def test_evaluations_and_the_gate(either: Any, registry: Registry, given: Any, make_report: Any) -> None:
    version = given.adapter("one")
    assert either.check_gate("text2sql") == registry.check_gate("text2sql")
    first = either.record_evaluation(version.digest, make_report(), **WHO)
    assert either.record_evaluation(version.digest, make_report(), **WHO) == first  # this very report again
    laid = either.record_evaluation(version.digest, {"note": "é"}, over_newest=True, **WHO)
    assert (laid.report["note"], laid.report["task"]["n"]) == ("é", 128)
    assert either.evaluations("text2sql") == registry.evaluations("text2sql") == [laid, first]
    assert either.check_gate("text2sql").passed
    strict = Policy(min_rows=10_000)
    assert either.check_gate("text2sql", strict) == registry.check_gate("text2sql", strict)
    assert not either.check_gate("text2sql", strict).passed
    asking = Policy(required_approvals=1)
    for approvals in (True, False):
        verdict = either.check_gate("text2sql", asking, "champion", approvals=approvals)
        assert verdict == registry.check_gate("text2sql", asking, "champion", approvals=approvals)
        assert verdict.passed is not approvals
    assert either.standing("text2sql") == registry.standing("text2sql")
    assert either.standing("text2sql").basis == "gate"
    asking = Policy(required_signature="ab" * 32)
    either.record_evaluation(version.digest, {"policy": asking.to_dict()}, over_newest=True, **WHO)
    assert either.standing("text2sql") == registry.standing("text2sql")
    assert either.standing("text2sql").required_keys == ("ab" * 32,)


def test_promotions_and_rollbacks(
    either: Any, registry: Registry, given: Any, make_report: Any, policy: Policy
) -> None:
    one, two = given.adapter("one"), given.adapter("two")
    for version in (one, two):
        registry.record_evaluation(version.digest, make_report())
    tried = either.promote("text2sql:v1", "champion", policy=policy, dry_run=True, **WHO)
    assert (tried.dry_run, tried.gate.passed, registry.aliases()) == (True, True, [])
    done = either.promote("text2sql:v1", "champion", policy=policy, reason="better", expected_revision=0, **WHO)
    assert (done.changed, done.revision, done.actor, done.reason) == (True, 1, "tester", "better")
    assert either.promote("text2sql:v1", "champion", policy=policy, **WHO).changed is False
    with pytest.raises(AliasConflict) as conflict:
        either.promote("text2sql:v2", "champion", policy=policy, expected_revision=0, **WHO)
    assert conflict.value.current_revision == 1
    either.promote("text2sql:v2", "champion", policy=policy, expected_revision=1, **WHO)
    tried = either.rollback("text2sql", "champion", reason="slow", to="v1", dry_run=True, **WHO)
    assert (tried.changed, tried.dry_run, tried.version) == (True, True, 1)
    assert registry.aliases("text2sql")[0].version == 2
    back = either.rollback("text2sql", "champion", reason="slow", to="v1", **WHO)
    assert (back.version, back.previous, back.revision) == (1, "text2sql:v2", 3)
    assert either.rollback("text2sql", "champion", reason="fast", to=2, **WHO).version == 2
    assert either.aliases() == registry.aliases()
    assert either.aliases("text2sql")[0].revision == 4
    assert either.history("text2sql", "champion") == registry.history("text2sql", "champion")
    assert either.history("text2sql", "none") == []
    assert [either.alias_revision("text2sql", alias) for alias in ("champion", "none")] == [4, 0]
    assert [either.rolled_back_from("text2sql", "champion", v.digest) for v in (one, two)] == [True, False]
    assert either.history("none", "none") == []
    assert registry.verify().intact


def test_the_life_of_a_version(either: Any, registry: Registry, given: Any, make_report: Any, policy: Policy) -> None:
    one, two = given.adapter("one"), given.adapter("two")
    why: dict[str, Any] = {**WHO, "reason": "older data"}
    change = either.deprecate("text2sql:v1", **why)
    assert (change.state, change.previous_state, change.actor, change.changed) == (
        "deprecated", "active", "tester", True
    )  # fmt: skip
    assert either.status("text2sql:v1") == registry.status("text2sql:v1")
    assert either.status("text2sql:v1").reason == "older data"
    assert either.restore("text2sql:v1", **why).state == "active"
    registry.record_evaluation(one.digest, make_report())
    either.promote("text2sql:v1", "champion", policy=policy, **WHO)
    with pytest.raises(VersionHeld, match="text2sql@champion points at it"):
        either.retire("text2sql:v1", **why)
    with pytest.raises(AliasConflict):
        either.demote("text2sql", "champion", expected_revision=7, **why)
    gone = either.demote("text2sql", "champion", expected_revision=1, **why)
    assert (gone.version, gone.digest, gone.previous, gone.revision) == (None, None, "text2sql:v1", 2)
    assert either.history("text2sql", "champion") == registry.history("text2sql", "champion")
    with pytest.raises(AliasNotFound):
        either.demote("text2sql", "champion", **why)
    assert either.retire("text2sql:v2", **why).changed
    assert not either.retire(two.digest, **why).changed
    with pytest.raises(VersionRetired):
        either.deprecate("text2sql:v2", **why)
    assert [e.actor for e in registry.audit() if e.action in ("deprecate", "restore", "retire", "demote")] == (
        ["tester"] * 4
    )


def test_states_hold_while_others_register(
    registry: Registry, given: Any, either: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = given.adapter("one"), given.adapter("two")
    registry.retire(two.label, actor="tester", reason="older data")
    looked = registry.search
    late = iter(["three", "four"])

    def meanwhile(**asked: Any) -> Any:
        found = looked(**asked)
        for key in late:
            given.adapter(key)
        return found

    monkeypatch.setattr(registry, "search", meanwhile)
    states = {digest: status.state for digest, status in either.statuses("text2sql").items()}
    assert (states[one.digest], states[two.digest]) == ("active", "retired")


def test_states_of_all_versions_and_collection(
    either: Any, registry: Registry, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.http.connection.PAGE", 2)
    one, two, three = (given.adapter(key) for key in ("one", "two", "three"))
    why: dict[str, Any] = {**WHO, "reason": "older data"}
    either.deprecate(one.label, **why)
    either.retire(two.label, **why)
    found = either.statuses()
    assert found == registry.statuses()
    assert {digest: status.state for digest, status in either.statuses("text2sql").items()} == {
        one.digest: "deprecated", two.digest: "retired", three.digest: "active"
    }  # fmt: skip
    assert found[two.digest] == registry.status(two.digest)
    assert (found[two.digest].actor, found[two.digest].reason) == ("tester", "older data")
    assert either.statuses("none") == {}
    with pytest.raises(ReferenceInvalid):
        either.statuses("no name")
    own = two.manifest.files["model.safetensors"]
    assert either.collect(**WHO).blobs == 0  # it was written just now
    tried = either.collect(grace_seconds=0, dry_run=True, **WHO)
    assert (tried.blobs, tried.bytes, tried.dry_run) == (1, own.size, True)
    assert registry.blobs.size(own.sha256) == own.size
    done = either.collect(grace_seconds=0, **WHO)
    assert (done.blobs, done.bytes, done.kept) == (1, own.size, 0)
    assert registry.blobs.size(own.sha256) is None
    assert (registry.audit()[-1].action, registry.audit()[-1].actor) == ("collect", "tester")
    with pytest.raises(VersionRetired, match="not all there any more"):
        either.restore(two.label, **why)
    assert registry.verify().intact


def test_verification_says_what_is_damaged(either: Any, registry: Registry, given: Any) -> None:
    version = given.adapter("one")
    assert either.verify() == registry.verify()
    assert either.verify("text2sql").intact
    path = registry.blobs.local_path(version.manifest.files["model.safetensors"].sha256)
    assert path is not None
    path.chmod(0o600)
    path.write_bytes(b"x")
    found = either.verify()
    assert found == registry.verify()
    assert (found.intact, found.problems[0].path) == (False, "model.safetensors")
    assert either.verify("tiny-base").versions == 1
    with pytest.raises(VersionNotFound):
        either.verify("none")


def test_protected_aliases(either: Any, registry: Registry, given: Any, make_report: Any, policy: Policy) -> None:
    version = given.adapter("one")
    registry.record_evaluation(version.digest, {**make_report(), "policy": policy.to_dict()})
    why: dict[str, Any] = {**WHO, "reason": "customers use it"}
    protection = either.protect("text2sql", "champion", required=1, **why)
    assert either.protections() == either.protections("text2sql") == registry.protections() == [protection]
    assert either.protections("other") == []
    with pytest.raises(ApprovalsMissing) as refused:
        either.promote("text2sql:v1", "champion", **WHO)
    with pytest.raises(ApprovalsMissing) as local:
        registry.promote("text2sql:v1", "champion", **WHO)
    assert _unlike(refused.value) == _unlike(local.value)
    assert refused.value.reasons == local.value.reasons
    assert refused.value.gate == registry.check_gate("text2sql:v1", alias="champion")
    tried = either.promote("text2sql:v1", "champion", dry_run=True, **WHO)
    assert (tried.gate.passed, tried.approvals.missing) == (False, 1)
    with pytest.raises(ApprovalRefused):  # its own version
        either.approve("text2sql:v1", "champion", **WHO)
    registry.approve("text2sql:v1", "champion", actor="bob")
    for own in (None, Policy(min_rows=3)):
        mine = registry.approvals("text2sql:v1", "champion", policy=own)
        assert either.approvals("text2sql:v1", "champion", policy=own) == mine
        assert len(mine.given) == (own is None)
    assert either.promote("text2sql:v1", "champion", **WHO).approvals.given == ("bob",)
    tried = either.demote("text2sql", "champion", dry_run=True, **why)
    assert (tried.changed, tried.dry_run, tried.approvals.missing, tried.digest) == (False, True, 1, None)
    assert registry.aliases("text2sql")[0].digest == version.digest
    with pytest.raises(ApprovalsMissing, match="may not be taken away"):
        either.demote("text2sql", "champion", **why)
    with pytest.raises(ApprovalNotFound):
        either.withdraw("text2sql:v1", "champion", **WHO)
    with pytest.raises(ApprovalsMissing, match="weaker protection"):
        either.unprotect("text2sql", "champion", **why)
    weaker: dict[str, Any] = {"act": "unprotect", "required": 1, "self_approval": True}
    assert either.approve("text2sql", "champion", **weaker, **WHO).to_self_approval
    assert either.approvals("text2sql", "champion", **weaker).given == ("tester",)
    assert either.withdraw("text2sql", "champion", act="unprotect", **WHO).given == ()
    found = either.approve("text2sql", "champion", act="unprotect", reason="a small team", **WHO)
    assert (found.given, found.version) == (("tester",), None)
    assert either.withdraw("text2sql", "champion", act="unprotect", **WHO).given == ()
    either.approve("text2sql", "champion", act="unprotect", **WHO)
    assert either.unprotect("text2sql", "champion", **why).required == 0
    assert either.demote("text2sql", "champion", **why).changed
    assert either.approve("text2sql:v1", "released", policy=Policy(), **WHO).required == 0
    for act in ("delete", "demote", "unprotect"):
        with pytest.raises(ReferenceInvalid if act == "delete" else ApprovalRefused) as local_error:
            registry.approvals("text2sql:v1", "released", act=act)
        with pytest.raises(type(local_error.value)) as remote_error:
            either.approvals("text2sql:v1", "released", act=act)
        assert _unlike(remote_error.value) == _unlike(local_error.value)
    assert registry.verify().intact


def test_runs(either: Any, registry: Registry, given: Any) -> None:
    version = given.adapter("one")
    run = either.record_run(
        "text2sql", "sweep-1", 3, base_fingerprint=version.base_fingerprint, content_key="one",
        document={"summary": "rank 8", "data": {"train.jsonl": DATA}}, **WHO,
    )  # fmt: skip
    assert either.runs() == either.runs("text2sql") == registry.runs() == [run]
    assert either.runs("other") == []
    other = registry.record_run(
        "text2sql", "sweep", 8, base_fingerprint=run.base_fingerprint, content_key=None, document={}
    )
    assert either.runs(after=run.id) == either.runs("text2sql", after=run.id, limit=1) == [other]
    assert either.runs(limit=1) == [run]


def _unlike(error: RegistryError) -> tuple[Any, ...]:
    return type(error), error.exit_status, str(error)


def test_errors_are_the_same_in_class_and_words(
    either: Any,
    registry: Registry,
    given: Any,
    make_report: Any,
    write_files: Any,
    fingerprints: Any,
    tmp_path: Path,
) -> None:
    adapter, other = given.adapter("one"), given.adapter("two")
    files = write_files("base")
    described = describe_files(files)
    stranger = Manifest(
        kind="adapter", files=described, base_fingerprint=fingerprints[1],
        parents=(Parent(registry.resolve("tiny-base").digest, "base"),),
    )  # fmt: skip
    orphan = Manifest(
        kind="merged", files=described, base_fingerprint=fingerprints[1], parents=(Parent("0" * 64, "a"),)
    )
    pickled = tmp_path / "weights.json"
    pickled.write_bytes(b"\x80\x04N.")
    hostile = {"weights.json": pickled}
    registry.record_run("text2sql", "s", 0, base_fingerprint=fingerprints[0], content_key=None, document={})
    acts: list[tuple[type[RegistryError], Callable[[Any], Any]]] = [
        (ReferenceInvalid, lambda r: r.resolve("a b")),
        (ReferenceInvalid, lambda r: r.resolve("")),
        (ReferenceInvalid, lambda r: r.resolve("..")),
        *[(ReferenceInvalid, lambda r, ref=ref: r.resolve(ref)) for ref in ("a" * 300, "a\ud800", "a\0", "a@v\ud800")],
        *[(ReferenceInvalid, lambda r, look=look, name=name: getattr(r, look)(name))
          for look in ("aliases", "runs", "versions", "protections", "statuses")
          for name in ("a" * 200, "a b", "", "a\0", "a\ud800")],
        *[(ReferenceInvalid, lambda r, look=look, named=named: getattr(r, look)(*named))
          for look in ("history", "alias_revision") for named in (("a" * 300, "x"), ("a", "x" * 65), ("a", "B\ud800"))],
        *[(ReferenceInvalid, lambda r, asked=asked: r.search(**asked))
          for asked in ({"name": "a\0"}, {"base": "zz"}, {"data": "zz"}, {"metric": "m" * 300}, {"metric": "\ud800"},
                        {"after": ("a\0", 1)}, {"after": ("a\ud800", 1)}, {"after": ("a", -1)})],
        (ReferenceInvalid, lambda r: r.models(after="a\0")),
        (ReferenceInvalid, lambda r: r.trained_on("zz")),
        *[(ReferenceInvalid, lambda r, alias=alias: r.check_gate("text2sql", alias=alias))
          for alias in ("x" * 65, "\0")],
        *[(ReferenceInvalid, lambda r, named=named: r.promote(*named, **WHO))
          for named in (("a" * 300, "x"), ("text2sql", "x" * 65), ("a\ud800", "x"), ("text2sql", ""), ("", "x"))],
        *[(ReferenceInvalid, lambda r, name=name: r.protect(name, "x", reason="y", **WHO))
          for name in ("a" * 200, "\0")],
        (ReferenceInvalid, lambda r: r.lineage("text2sql", "left")),
        (ReferenceInvalid, lambda r: r.search(minimum=1.0)),
        (ReferenceInvalid, lambda r: r.search(kind="zap")),
        (ReferenceInvalid, lambda r: r.promote("text2sql", "champion", reason="fine\nby eve", **WHO)),
        (ReferenceInvalid, lambda r: r.deprecate("text2sql", reason="fine\u2028by eve", **WHO)),
        (ReferenceInvalid, lambda r: r.register("x", dataclasses.replace(
            adapter.manifest, content_key="x", licence="mit\x1b[2K"), write_files("adapter one"))),
        (ReferenceInvalid, lambda r: r.register("../x", adapter.manifest, write_files("adapter one"))),
        (VersionNotFound, lambda r: r.resolve("text2sq")),
        (VersionNotFound, lambda r: r.resolve("text2sql:v9")),
        (VersionNotFound, lambda r: r.evaluations("none")),
        (AliasNotFound, lambda r: r.resolve("text2sql@champion")),
        (AliasNotFound, lambda r: r.rollback("text2sql", "champion", reason="x", **WHO)),
        (VersionNotFound, lambda r: r.rollback("none", "champion", reason="x", **WHO)),
        (GateRefused, lambda r: r.promote("text2sql", "champion", **WHO)),
        (ReferenceInvalid, lambda r: r.promote("text2sql", "latest", **WHO)),
        (ReportInvalid, lambda r: r.record_evaluation(adapter.digest, {"a": float("nan")})),
        *[(ReportInvalid, lambda r, report=report: r.record_evaluation(adapter.digest, report, over_newest=True))
          for report in ([1], [("a", 1)], "a", None, {"task": {"n": "120"}})],
        (PolicyInvalid, lambda r: r.record_evaluation(adapter.digest, {**make_report(), "policy": {"min_row": 1}})),
        (ReportInvalid, lambda r: r.record_run(
            "text2sql", "s", 1, base_fingerprint=fingerprints[0], content_key=None, document=[1])),
        *[(ReferenceInvalid, lambda r, number=number: r.record_run(
            "text2sql", "s", number, base_fingerprint=fingerprints[0], content_key=None, document={}))
          for number in (2**31, 2**70, -1)],
        (RunTaken, lambda r: r.record_run(
            "text2sql", "s", 0, base_fingerprint=fingerprints[0], content_key=None, document={"other": 1})),
        *[(ReferenceInvalid, lambda r, asked=asked: r.audit(**asked))
          for asked in ({"limit": -1}, {"limit": 1.5}, {"limit": True}, {"after": -1}, {"after": 2**64})],
        (ReferenceInvalid, lambda r: r.outbox(limit=-1)),
        (EvaluationMismatch, lambda r: r.record_evaluation(adapter.digest, {"files": {"a": "b"}})),
        (BaseMismatch, lambda r: r.register("x", stranger, files)),
        (ParentNotFound, lambda r: r.register("x", orphan, files)),
        (DigestTaken, lambda r: r.register("y", adapter.manifest, write_files("adapter one"))),
        (ContentKeyTaken, lambda r: r.register("text2sql", dataclasses.replace(
            other.manifest, content_key="one"), write_files("adapter two"))),
        (ManifestInvalid, lambda r: r.register("x", stranger, {"config.json": files["config.json"]})),
        (FileRefused, lambda r: r.register("x", Manifest(
            kind="base", files=describe_files(hostile), base_fingerprint=fingerprints[1]), hostile)),
        (VersionNotFound, lambda r: r.checkout("none", tmp_path / "nowhere")),
    ]  # fmt: skip
    for kind, act in acts:
        with pytest.raises(RegistryError) as local:
            act(registry)
        with pytest.raises(RegistryError) as found:
            act(either)
        assert type(local.value) is kind
        # a report's words differ where the client refuses it before it is sent
        assert type(found.value) is kind
        if kind is not ReportInvalid:
            assert _unlike(found.value) == _unlike(local.value)
    with pytest.raises(GateRefused) as refused:
        either.promote("text2sql", "champion", **WHO)
    assert refused.value.reasons == ("no evaluation was recorded for exactly this digest",)
    assert refused.value.gate == registry.check_gate("text2sql")
    assert registry.verify().intact


def test_a_retired_version_is_not_checked_out(either: Any, given: Any, tmp_path: Path) -> None:
    version = given.adapter("one")
    either.retire(version.label, reason="older data", **WHO)
    with pytest.raises(VersionRetired, match="checked out"):
        either.checkout(version.label, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_roll_back_to_what_never_held_the_alias(
    either: Any, registry: Registry, given: Any, make_report: Any, policy: Policy
) -> None:
    registry.record_evaluation(given.adapter("one").digest, make_report())
    given.adapter("two")
    registry.promote("text2sql:v1", "champion", policy=policy, actor="a")
    with pytest.raises(RollbackRefused):
        either.rollback("text2sql", "champion", to="v2", reason="x", **WHO)
    with pytest.raises(RollbackRefused):
        either.rollback("text2sql", "champion", reason="x", **WHO)


def test_a_checkout_is_verified_and_whole_or_not_there(
    either: Any, registry: Registry, given: Any, write_files: Any, tmp_path: Path
) -> None:
    large = b'{"a": "' + b"x" * 3_000_000 + b'"}'
    files = write_files("adapter one", **{"extra/large.json".replace("/", "-"): large})
    version = given.adapter("one", given=files)
    folder = either.checkout("text2sql", tmp_path / "out")
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == {n: p.read_bytes() for n, p in files.items()}
    assert either.checkout("text2sql", tmp_path / "out") == folder  # intact: kept
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    with pytest.raises(RegistryPathError):
        either.checkout("text2sql", tmp_path / "full")
    for name in ("extra-large.json", "config.json"):  # a blob of several pieces, and one of one piece
        blob = registry.blobs.local_path(version.manifest.files[name].sha256)
        assert blob is not None
        good = blob.read_bytes()
        blob.chmod(0o644)
        blob.write_bytes(good[:-1] + b"!")
        with pytest.raises(BlobCorrupted):
            either.checkout("text2sql", tmp_path / "damaged")
        assert not (tmp_path / "damaged").exists()
        assert list(tmp_path.glob(".damaged*")) == []
        given.adapter("one", given=files)  # registering the same files again mends it
    assert registry.verify().intact
    assert either.checkout("text2sql", tmp_path / "mended").is_dir()


@pytest.fixture
def client(registry: Registry, in_process: Callable[..., Any]) -> RegistryClient:
    tokens = Tokens(registry.folder)
    transport = in_process(make_app(registry, tokens))
    return RegistryClient("http://registry.test", tokens.add("tester", "promote"), transport=transport)


def test_progress_tells_of_what_has_to_go_over_the_wire(
    client: RegistryClient, write_files: Any, fingerprints: Any, tmp_path: Path
) -> None:
    files = write_files("base", **{"large.json": b'"' + b"x" * 3_000_000 + b'"'})
    described = describe_files(files)
    total = sum(entry.size for entry in described.values())
    manifest = Manifest(kind="base", files=described, base_fingerprint=fingerprints[0])
    told: list[tuple[int, int]] = []
    client.register("tiny", manifest, files, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert len(told) > 3
    told.clear()
    client.register("tiny", manifest, files, progress=lambda done, of: told.append((done, of)))
    assert told == []  # nothing had to be sent
    client.checkout("tiny", tmp_path / "out", progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (total, total)


def test_what_is_no_registry_is_told(in_process: Callable[..., Any], registry: Registry) -> None:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    other = FastAPI()
    other.add_api_route("/v1/audit", lambda: PlainTextResponse("hello"))
    client = RegistryClient("http://other.test", transport=in_process(other))
    for act in (client.versions, client.audit):
        with pytest.raises(ServerUnavailable):
            act()
    with pytest.raises(ServerUnavailable, match="registry serve"):
        RegistryClient("http://127.0.0.1:9").versions()
    Tokens(registry.folder).add("x", "read")
    closed = make_app(registry, Tokens(registry.folder))
    for token in (None, "tw_wrong", "tw_\u00fc", "tw_a\nb"):
        with pytest.raises(TokenInvalid) as refused:
            RegistryClient("http://registry.test", token, transport=in_process(closed)).versions()
        assert token is None or token not in str(refused.value)
    read = Tokens(registry.folder).add("y", "read")
    RegistryClient("http://registry.test", f"{read}\n", transport=in_process(closed)).versions()


def test_what_is_collected_while_the_rest_is_sent_is_sent_again(
    either: Any, registry: Registry, given: Any, write_files: Any, fingerprints: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = given.base()
    either.retire(base.label, reason="of no use", **WHO)  # its bytes may go once its grace is over
    files = write_files("base", **{"notes.txt": b"more" * 1000})
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[1])
    collected: list[int] = []

    def collect_once(_done: int, _total: int) -> None:
        if not collected:
            collected.append(registry.collect(actor="ada", grace_seconds=0).blobs)

    version = either.register("noted", manifest, files, progress=collect_once, **WHO)
    assert version == registry.resolve("noted")
    assert registry.verify().intact
    if isinstance(either, RegistryClient):  # a registry's lease keeps them from being collected
        assert collected == [2]


def test_what_is_removed_again_and_again_is_told(
    client: RegistryClient, registry: Registry, write_files: Any, fingerprints: Any
) -> None:
    files = write_files("base")
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
    removed: list[str] = []

    def remove(done: int, total: int) -> None:
        if done == total:
            removed.extend(sha256 for sha256, _ in list(registry.blobs.stored()) if registry.blobs.remove(sha256))

    with pytest.raises(RegistryBusy, match="removed from the server 3 times"):
        client.register("tiny", manifest, files, progress=remove)
    assert len(removed) >= 3
    assert client.register("tiny", manifest, files).label == "tiny:v1"


@pytest.mark.parametrize("left", ["a part", "as much as there is", "more than there is"])
def test_a_wrong_length_that_somebody_announced_shuts_a_content_for_nobody(
    client: RegistryClient, registry: Registry, write_files: Any, fingerprints: Any, left: str
) -> None:
    files = write_files("base")
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
    entry = manifest.files["config.json"]
    part = {"a part": b"{", "as much as there is": b"x" * entry.size, "more than there is": b"x" * 500}[left]
    headers = {"Upload-Offset": "0", "Upload-Length": "999"}
    assert client._http.patch(f"/v1/uploads/{entry.sha256}", content=part, headers=headers).status_code == 200
    began = time.monotonic()
    assert client.register("tiny", manifest, files).label == "tiny:v1"
    assert time.monotonic() - began < 5
    assert registry.verify().intact
    assert list((registry.folder / "uploads").iterdir()) == []


def test_who_announces_a_wrong_length_again_and_again_is_not_fought(
    registry: Registry, in_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.0)
    content = b"x" * 100
    digest = hashlib.sha256(content).hexdigest()
    behind = in_process(make_app(registry, Tokens(registry.folder)))
    secret = Tokens(registry.folder).add("tester", "write")
    forgotten: list[str] = []

    class Poisoned(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            if request.method == "DELETE":
                forgotten.append(request.url.path)
            if request.method == "GET":
                headers = {**request.headers, "Upload-Offset": "0", "Upload-Length": "999", "Content-Length": "100"}
                behind.handle_request(httpx.Request("PATCH", request.url, headers=headers, content=content))
            return behind.handle_request(request)

    client = RegistryClient("http://registry.test", secret, transport=Poisoned())
    with pytest.raises(UploadConflict, match="announced with 999 bytes"):
        transfer.send(client._http, io.BytesIO(content), digest, len(content), lambda _: None)
    assert forgotten == [f"/v1/uploads/{digest}"]


def test_no_message_has_the_password_of_a_url(in_process: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    from fastapi import FastAPI
    from fastapi.responses import PlainTextResponse

    monkeypatch.setattr(transfer, "FIRST_PAUSE_SECONDS", 0.0)
    other = FastAPI()
    other.add_api_route("/v1/versions/m", lambda: PlainTextResponse("hello"))

    class Repeating(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.ConnectError(f"no way to {request.url.userinfo.decode()} at {request.url.host}")

    class Silent(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            raise httpx.ReadTimeout("timed out")

    told: list[BaseException] = []
    for way, what in ((Repeating(), "reached"), (Silent(), "did not answer"), (in_process(other), "no JSON")):
        client = RegistryClient("http://ada:s3cr3t@registry.test/v1", transport=way)
        with pytest.raises(ServerUnavailable, match=f"registry.test.* {what}") as refused:
            client.resolve("m")
        told.append(refused.value)
        if what != "no JSON":
            with pytest.raises(ServerUnavailable, match=what) as refused:
                transfer.send(client._http, io.BytesIO(b"x"), DATA, 1, lambda _: None)
            told.append(refused.value)
    for url in ("http://ada:s3cr3t@h:99999", "http://ada:s3cr3t@[bad", "http://ada:s3cr3t/more@h"):
        with pytest.raises(RequestInvalid, match="no address of a registry") as invalid:
            RegistryClient(url)
        told.append(invalid.value)
    for error in told:
        assert "s3cr3t" not in str(error)


def test_a_token_for_this_machine_goes_through_no_proxy(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.3)
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{listening.getsockname()[1]}")
        for url in ("http://127.0.0.1:9", "http://localhost:9/v1", "http://[::1]:9"):
            with RegistryClient(url, "tw_secret") as client, pytest.raises(ServerUnavailable):
                client._post("/v1/verifications", {})
            with pytest.raises(TimeoutError):
                heard.append(listening.accept()[0].recv(100))
        assert heard == []
        # elsewhere the environment says how to get there
        with RegistryClient("http://registry.test") as client:
            assert any(pattern.pattern == "http://" for pattern in client._http._mounts)
