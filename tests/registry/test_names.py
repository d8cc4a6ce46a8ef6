"""Names to act by and texts that are kept: what would forge a line, or be taken for somebody else, is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.audit import acting, login_name
from registry.entities import Version
from registry.errors import ApprovalRefused, ApprovalsMissing, ReferenceInvalid
from registry.gate import Policy
from registry.manifest import Manifest, describe_files
from registry.matters import promotion_matter
from registry.names import check_actor, check_text, one_line, person
from registry.registration import insert_version
from registry.reports import newest_evaluation
from registry.store import Registry

ADAS = [
    "ada ", " ada", "ada\u00a0", "ada\u200b", "\u2060ada", "a\u00adda", "ada\u3164", "ada\ufe0f", "ada\u2800",
    "\uff41da",
]  # fmt: skip
LINES = [
    "fine\nby eve", "fine\rby eve", "\x1b[2Kfine", "fine\x85by eve", "fine\u2028by eve", "fine\0", "fine\ud800",
    "enif \u202eby eve", "fine\u2066by eve",
]  # fmt: skip


@pytest.mark.parametrize("actor", [*ADAS, "ada  lovelace", "", " ", "\u200b", "ada\n", "ada\t", "a" * 129])
def test_name_that_could_be_taken_for_another_is_refused(actor: str) -> None:
    with pytest.raises(ReferenceInvalid):
        check_actor(actor)
    if actor:
        with pytest.raises(ReferenceInvalid):
            acting(actor)


@pytest.mark.parametrize(
    "actor", ["ada", "Ada Lovelace", "José", "李雷", "flow text2sql", "ada@example.org", "uid-7", None]
)
def test_name_as_people_write_it_is_taken(actor: str | None) -> None:
    check_actor(actor)
    assert actor is None or person(actor) == actor


@pytest.mark.parametrize("actor", ["Jose\u200b\u0301", "a\ufe0f\u030a\u200b\u0323", "\u1100\u3164\u1161", "\ufdfa" * 8])
def test_name_that_is_offered_instead_is_one(actor: str) -> None:
    seen = person(actor)
    assert person(seen) == seen
    with pytest.raises(ReferenceInvalid) as refused:
        check_actor(actor)
    if repr(seen) in str(refused.value.next_step):
        check_actor(seen)
    else:
        assert len(seen) > 128


@pytest.mark.parametrize("text", LINES)
def test_text_that_would_forge_a_line_is_refused_and_made_one_line(text: str) -> None:
    with pytest.raises(ReferenceInvalid, match="can't be kept"):
        check_text("reason", text)
    check_text("reason", one_line(text, 256))
    assert one_line("Apache-2.0  or  MIT", 256) == "Apache-2.0  or  MIT"
    assert one_line("\n", 256) is None
    assert one_line("a" * 300, 256) == "a" * 256


@pytest.mark.parametrize("reason", LINES)
def test_every_act_refuses_such_a_reason(registry: Registry, passing: Callable[[str], Version], reason: str) -> None:
    ref = passing("one").label
    acts: list[Callable[..., Any]] = [
        lambda **who: registry.promote(ref, "champion", **who),
        lambda **who: registry.rollback("text2sql", "champion", **who),
        lambda **who: registry.demote("text2sql", "champion", **who),
        lambda **who: registry.protect("text2sql", "champion", **who),
        lambda **who: registry.approve(ref, "champion", **who),
        lambda **who: registry.deprecate(ref, **who),
    ]
    before = len(registry.audit())
    for act in acts:
        with pytest.raises(ReferenceInvalid, match="reason"):
            act(actor="ada", reason=reason)
        with pytest.raises(ReferenceInvalid, match="actor"):
            act(actor="ada ", reason="fine")
    assert len(registry.audit()) == before


def test_two_names_that_look_alike_are_one_approval_even_where_they_were_written_before(
    registry: Registry, passing: Callable[[str], Version], policy: Policy, backend: Any
) -> None:
    version = passing("one")
    registry.protect("text2sql", "champion", required=2, actor="carol", reason="customers use it")
    registry.approve("text2sql", "champion", policy=policy, actor="ada")
    query = registry._lookup.query
    evaluation = newest_evaluation(query, version.digest)
    matter = promotion_matter(query, version, "champion", policy, evaluation)
    backend.connect(registry.folder).execute(  # as an earlier release took it
        "INSERT INTO approvals (name, alias, act, version_id, evaluation_id, revision, digest, matter, action, "
        "actor, created_at) VALUES ('text2sql', 'champion', 'promote', ?, ?, ?, ?, ?, 'approve', 'ada ', 't')",
        (version.id, evaluation and evaluation.id, matter.revision, matter.digest, matter.text),
    )
    found = registry.approvals("text2sql", "champion", policy=policy)
    assert (found.given, found.missing) == (("ada",), 1)
    with pytest.raises(ApprovalsMissing, match=r"1 of 2 approvals \(ada\)"):
        registry.promote("text2sql", "champion", policy=policy, actor="eve")
    taken_back = registry.withdraw("text2sql", "champion", actor="ada")  # under whichever of the two it was given
    assert (taken_back.given, [one.why_not for one in taken_back.approvals]) == ((), ["withdrawn"])


def test_whoever_registered_under_a_name_that_looks_alike_does_not_approve_it(
    registry: Registry, passing: Callable[[str], Version], policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    passing("one")
    registry.protect("text2sql", "champion", required=1, actor="carol", reason="customers use it")
    for module in ("approving", "approvals"):
        monkeypatch.setattr(f"registry.{module}.query_registrant", lambda *_: "ada ")
    with pytest.raises(ApprovalRefused, match="'ada' registered"):
        registry.approve("text2sql", "champion", policy=policy, actor="ada")


def test_login_name_is_asked_for_again_where_it_could_not_be_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4321)  # nobody asked for this one before
    answers = iter([KeyError("no directory"), "ada", "eve"])

    def ask() -> str:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr("getpass.getuser", ask)
    assert [login_name(), login_name(), login_name()] == ["uid-4321", "ada", "ada"]
    monkeypatch.setenv("LOGNAME", "bob")
    assert login_name() == "eve"  # asked anew


def test_licence_that_breaks_lines_is_refused_and_one_that_is_there_is_read(
    registry: Registry, write_files: Callable[..., dict[str, Path]], fingerprints: tuple[str, str]
) -> None:
    from registry.database import writing

    files = write_files("base")
    manifest = Manifest("base", describe_files(files), base_fingerprint=fingerprints[0], licence="mit\nstate: proven")
    for register in (lambda: registry.register("a", manifest, files), lambda: registry.register_stored("a", manifest)):
        with pytest.raises(ReferenceInvalid, match="licence"):
            register()
    assert registry.versions() == []
    registry.register("b", dataclasses.replace(manifest, licence="mit"), files)
    with writing(registry._engine) as writer:  # as an earlier release registered it
        insert_version(writer, "a", manifest, [], "ada")
    assert registry.resolve("a").manifest.licence == "mit\nstate: proven"
    assert registry.register("a", manifest, files) == registry.resolve("a")
    assert registry.verify("a").intact
