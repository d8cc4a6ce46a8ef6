"""Approvals over HTTP: the name is the token's whatever is sent, and what a refusal tells."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from registry.entities import Version
from registry.http.tokens import Tokens
from registry.store import Registry

Ask = Callable[..., httpx.Response]
WHAT = {"ref": "text2sql:v1", "alias": "champion"}


@pytest.fixture
def protected(registry: Registry, add_adapter: Callable[..., Version], make_report: Any, policy: Any) -> Version:
    version = add_adapter("one")
    registry.record_evaluation(version.digest, {**make_report(), "policy": policy.to_dict()})
    registry.protect("text2sql", "champion", required=2, actor="ada", reason="customers use it")
    return version


def test_two_tokens_approve_and_one_token_is_one_person(
    ask: Ask, registry: Registry, tokens: Tokens, protected: Version
) -> None:
    other = {"Authorization": f"Bearer {tokens.add('second', 'promote')}"}
    first = ask("POST", "/v1/approvals", json={**WHAT, "reason": "read 40 answers"})
    assert (first.status_code, first.json()["given"], first.json()["missing"]) == (200, ["promoteer"], 1)
    assert ask("POST", "/v1/approvals", json=WHAT).json()["given"] == ["promoteer"]
    refused = ask("POST", "/v1/promotions", json=WHAT)
    document = refused.json()
    assert (refused.status_code, document["type"]) == (422, "urn:tunewright:error:ApprovalsMissing")
    assert (document["exit_status"], len(document["reasons"])) == (3, 1)
    assert document["gate"]["checks"][-1] == {
        "name": "approvals", "passed": False, "value": 1, "bound": 2, "reason": document["reasons"][0]
    }  # fmt: skip
    assert ask("POST", "/v1/approvals", json=WHAT, headers=other).json()["missing"] == 0
    assert ask("GET", "/v1/approvals/text2sql:v1", "read").json()["given"] == ["promoteer", "second"]
    moved = ask("POST", "/v1/promotions", json=WHAT, headers={"If-Match": '"0"'})
    assert (moved.status_code, moved.json()["approvals"]["given"]) == (200, ["promoteer", "second"])
    assert registry.verify().intact


def test_nobody_approves_in_another_name(ask: Ask, registry: Registry, protected: Version) -> None:
    for path in ("/v1/approvals", "/v1/withdrawals"):
        for forged in ({"actor": "bob"}, {"name": "bob"}, {"token": "bob"}):
            assert ask("POST", path, json={**WHAT, **forged}).status_code == 422
    assert ask("POST", "/v1/approvals", json=WHAT, params={"actor": "bob"}).status_code == 422
    ask("POST", "/v1/approvals", json=WHAT, headers={"X-Actor": "bob", "From": "bob"})
    assert [e.actor for e in registry.audit() if e.action == "approve"] == ["promoteer"]


def test_protected_aliases_are_listed_in_pages(ask: Ask, registry: Registry, protected: Version) -> None:
    for alias in ("a", "z"):
        registry.protect("text2sql", alias, required=1, actor="ada", reason="r")
    page = ask("GET", "/v1/protections", "read", params={"limit": 2}).json()
    assert [one["alias"] for one in page["items"]] == ["a", "champion"]
    rest = ask("GET", "/v1/protections", "read", params={"cursor": page["next"], "name": "text2sql"}).json()
    assert ([one["alias"] for one in rest["items"]], rest["next"]) == (["z"], None)


def test_policy_and_weaker_protection_are_asked_about(ask: Ask, registry: Registry, protected: Version) -> None:
    own = {"min_rows": 10}
    assert ask("POST", "/v1/approvals", json={**WHAT, "policy": own}).json()["given"] == ["promoteer"]
    path, question = "/v1/approvals/text2sql:v1", {"alias": "champion"}
    assert ask("GET", path, "read", params=question).json()["given"] == []
    told = ask("GET", path, "read", params={**question, "policy": json.dumps(own)})
    assert (told.status_code, told.json()["given"]) == (200, ["promoteer"])
    for unusable in ("{", "[]", '{"min_row": 1}', "9" * 1999, "[" * 1999):
        refused = ask("GET", path, "read", params={**question, "policy": unusable})
        assert (refused.status_code, refused.json()["type"]) == (422, "urn:tunewright:error:PolicyInvalid")
    weaker = {"act": "unprotect", "required": 1}
    assert ask("POST", "/v1/approvals", json={**WHAT, **weaker}).json()["to_required"] == 1
    assert ask("GET", path, "read", params={**question, **weaker}).json()["given"] == ["promoteer"]
    assert ask("GET", path, "read", params={**question, "act": "unprotect"}).json()["given"] == []


def test_history_with_a_demotion_is_told(ask: Ask, registry: Registry, protected: Version) -> None:
    for person in ("bob", "eve"):
        registry.approve("text2sql:v1", "released", actor=person)
    registry.promote("text2sql:v1", "released", actor="ada")
    gone = ask("POST", "/v1/demotions", json={"name": "text2sql", "alias": "released", "reason": "r"})
    assert (gone.status_code, gone.json()["version"], gone.headers["etag"]) == (200, None, '"2"')
    steps = ask("GET", "/v1/history/text2sql@released", "read").json()["steps"]
    assert [(s["action"], s["version"]) for s in steps] == [("promote", 1), ("demote", None)]
