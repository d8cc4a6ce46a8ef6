"""Who may ask: tokens and their roles, this machine alone without them, and no web page in its browser."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry.entities import Version
from registry.errors import NameTaken, ReferenceInvalid, RegistryPathError, TokenNotFound
from registry.http.app import make_app
from registry.http.guard import OPEN_PATHS, Limits
from registry.http.loopback import is_loopback, names_loopback
from registry.http.tokens import ROLES, TOKENS_FILE, Tokens, includes
from registry.store import Registry

Ask = Callable[..., httpx.Response]


def test_of_a_token_only_the_hash_is_kept_for_the_owner_alone(tokens: Tokens, registry: Registry) -> None:
    secret = tokens.add("ci", "write")
    file = registry.folder / TOKENS_FILE
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert secret not in file.read_text()
    assert len(secret) > 40
    found = tokens.find(secret)
    assert found is not None
    assert (found.name, found.role, found.to_dict().keys()) == ("ci", "write", {"name", "role", "created_at"})
    assert [tokens.find(other) for other in ("", secret[:-1], secret + "x", found.sha256)] == [None] * 4


def test_names_and_roles_are_held_to_their_grammar(tokens: Tokens) -> None:
    tokens.add("ci", "read")
    with pytest.raises(NameTaken):
        tokens.add("ci", "promote")
    for name, role in (("", "read"), ("a b", "read"), ("x\n", "read"), ("x", "admin")):
        with pytest.raises(ReferenceInvalid):
            tokens.add(name, role)
    with pytest.raises(TokenNotFound, match="ci"):
        tokens.revoke("cd")
    assert tokens.revoke("ci").name == "ci"
    assert tokens.all() == ()


def test_a_file_that_others_may_read_is_not_used(tokens: Tokens, registry: Registry) -> None:
    secret = tokens.add("ci", "read")
    (registry.folder / TOKENS_FILE).chmod(0o640)
    with pytest.raises(RegistryPathError, match="chmod 600"):
        tokens.find(secret)
    (registry.folder / TOKENS_FILE).chmod(0o600)
    (registry.folder / TOKENS_FILE).write_text("{")
    os.utime(registry.folder / TOKENS_FILE, ns=(1, 1))
    with pytest.raises(RegistryPathError, match="JSON"):
        tokens.find(secret)


def test_a_server_that_cannot_read_its_tokens_answers_nobody(ask: Ask, registry: Registry) -> None:
    (registry.folder / TOKENS_FILE).chmod(0o644)
    for path in ("/v1/models", "/v1/health"):
        answer = ask("GET", path)
        assert (answer.status_code, "tokens.json" in answer.text) == (500, False)


def test_another_process_sees_a_change_at_once(registry: Registry) -> None:
    ours, theirs = Tokens(registry.folder), Tokens(registry.folder)
    secret = ours.add("ci", "read")
    assert theirs.find(secret) is not None
    ours.revoke("ci")
    assert theirs.find(secret) is None


def test_roles_are_a_ladder() -> None:
    assert [
        [includes(role, wanted) for wanted in ("read", "write", "promote")] for role in ("read", "write", "promote")
    ] == [
        [True, False, False],
        [True, True, False],
        [True, True, True],
    ]


ACTS: list[tuple[str, str, str, dict[str, Any]]] = [
    ("GET", "/v1/versions", "read", {}),
    ("GET", "/v1/audit", "read", {}),
    ("GET", "/v1/statuses", "read", {}),
    ("GET", f"/v1/uploads/{'0' * 64}", "write", {}),
    ("PUT", f"/v1/blobs/{'0' * 64}", "write", {"content": b"x"}),
    ("PATCH", f"/v1/uploads/{'0' * 64}", "write", {"headers": {"Upload-Offset": "0", "Upload-Length": "1"}}),
    ("DELETE", f"/v1/uploads/{'0' * 64}", "write", {}),
    ("POST", "/v1/versions", "write", {"json": {}}),
    ("POST", f"/v1/evaluations/{'0' * 64}", "write", {"json": {"report": {}}}),
    ("POST", "/v1/runs", "write", {"json": {}}),
    ("POST", "/v1/promotions", "promote", {"json": {"ref": "a", "alias": "b"}}),
    ("POST", "/v1/rollbacks", "promote", {"json": {"name": "a", "alias": "b", "reason": "c"}}),
    ("POST", "/v1/verifications", "write", {"json": {}}),
    ("POST", f"/v1/signatures/{'0' * 64}", "write", {"json": {}}),
    *(("POST", f"/v1/{acts}", "promote", {"json": {}}) for acts in (
        "demotions", "approvals", "withdrawals", "protections", "unprotections", "deprecations", "restorations",
        "retirements", "collections")),
]  # fmt: skip


def test_each_act_takes_its_role(ask: Ask) -> None:
    for method, path, least, options in ACTS:
        for role in ROLES:
            answer = ask(method, path, role, **options)
            assert (answer.status_code == 403) == (not includes(role, least)), (method, path, role, answer.text)
        refused = ask(method, path, None, **options)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")


def test_every_route_is_among_those_whose_role_is_held(app: Any) -> None:
    writing = {
        (method.upper(), path.replace("{sha256}", "0" * 64).replace("{digest}", "0" * 64))
        for path, operations in app.openapi()["paths"].items()
        for method in operations
        if method not in ("get", "head")
    }
    assert writing == {(method, path) for method, path, _, _ in ACTS if method != "GET"}


def test_what_is_no_token_is_refused(ask: Ask) -> None:
    for header in ("Bearer", "Bearer wrong", "Basic abc", "bearer  ", "Bearer tw_\xe9"):
        answer = ask("GET", "/v1/models", None, headers={"Authorization": header.encode("latin-1")})
        assert answer.status_code == 401
        assert answer.json()["type"].endswith("TokenInvalid")


def test_the_actor_is_the_token_whatever_the_body_says(
    ask: Ask, registry: Registry, add_base: Callable[..., Version]
) -> None:
    digest = add_base().digest
    assert ask("POST", f"/v1/evaluations/{digest}", "write", json={"report": {"actor": "root"}}).status_code == 201
    assert registry.audit()[-1].actor == "writeer"


def test_a_revoked_token_counts_for_nothing_and_the_server_stays_closed(
    ask: Ask, tokens: Tokens, secrets: dict[str, str]
) -> None:
    assert ask("GET", "/v1/models", "read").status_code == 200
    for name in ("reader", "writeer", "promoteer"):
        tokens.revoke(name)
    assert ask("GET", "/v1/models", "read").status_code == 401
    assert ask("GET", "/v1/models", None).status_code == 401  # no token left: closed, not open


def test_a_token_that_was_there_before_the_first_request_closes_the_server(
    registry: Registry, in_process: Callable[..., Any]
) -> None:
    tokens = Tokens(registry.folder)
    tokens.add("short", "read")
    app = make_app(registry, tokens)
    tokens.revoke("short")
    with httpx.Client(transport=in_process(app), base_url="http://127.0.0.1:3001") as client:
        assert client.get("/v1/models").status_code == 401


@pytest.fixture
def ask_open(registry: Registry, in_process: Callable[..., Any]) -> Ask:
    """Ask a server without tokens."""
    app = make_app(registry, Tokens(registry.folder))

    def call(method: str, path: str, client: str = "127.0.0.1", **options: Any) -> httpx.Response:
        transport = in_process(app, client=(client, 5000))
        base = options.pop("base", "http://127.0.0.1:3001")
        return httpx.Client(transport=transport, base_url=base).request(method, path, **options)

    return call


def test_without_tokens_this_machine_acts_in_its_login_name(
    ask_open: Ask, registry: Registry, add_base: Callable[..., Version]
) -> None:
    from registry.audit import login_name

    digest = add_base().digest
    assert ask_open("POST", f"/v1/evaluations/{digest}", json={"report": {}}).status_code == 201
    assert registry.audit()[-1].actor == login_name()
    assert "security" not in json.dumps(ask_open("GET", "/v1/openapi.json").json())


def test_without_tokens_no_other_machine_and_no_page_is_answered(ask_open: Ask) -> None:
    assert ask_open("GET", "/v1/models", base="http://localhost:3001").status_code == 200
    assert ask_open("GET", "/v1/models", client="192.0.2.7").status_code == 401
    other = {"base": "http://evil.example:3001"}, {"headers": {"Origin": "http://evil.example"}}
    for asked, status in zip(other, (421, 403), strict=True):
        answer = ask_open("GET", "/v1/models", **asked)
        assert (answer.status_code, answer.json()["type"]) == (status, "urn:tunewright:error:CallerRefused")
        assert "own machine" in answer.json()["title"]
    assert ask_open("GET", "/v1/models", headers={"Origin": "null"}).status_code == 403
    assert ask_open("GET", "/v1/models", headers={"Origin": "http://127.0.0.1:8080"}).status_code == 200
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        answer = ask_open("POST", "/v1/promotions", content=b"{}", headers={"Content-Type": kind})
        assert answer.status_code == 415


def test_the_first_token_closes_an_open_server_for_good(ask_open: Ask, registry: Registry) -> None:
    assert ask_open("GET", "/v1/models").status_code == 200
    Tokens(registry.folder).add("ci", "read")
    assert ask_open("GET", "/v1/models").status_code == 401
    Tokens(registry.folder).revoke("ci")
    assert ask_open("GET", "/v1/models").status_code == 401


def test_the_document_says_that_tokens_are_needed_from_the_first_one_on(ask_open: Ask, registry: Registry) -> None:
    path = "/v1/openapi.json"
    before = ask_open("GET", path).json()
    assert "securitySchemes" not in before["components"]
    Tokens(registry.folder).add("ci", "read")
    after = ask_open("GET", path).json()
    assert after["components"]["securitySchemes"] == {"bearer": {"type": "http", "scheme": "bearer"}}
    for route, operations in after["paths"].items():
        for operation in operations.values():
            needs = route not in OPEN_PATHS
            assert operation.get("security") == ([{"bearer": []}] if needs else None), route
            assert {"401", "403"} <= operation["responses"].keys() or not needs
    assert ask_open("GET", path).json() == after
    assert make_app(registry, Tokens(registry.folder)).openapi() == after  # as of one that began with it
    Tokens(registry.folder).revoke("ci")
    assert ask_open("GET", path).json() == after  # closed for good


def test_loopback_is_what_an_endpoint_takes_for_it() -> None:
    from deploy.openai_api import envelope

    cases = ["localhost", "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "0.0.0.0", "10.0.0.1", "example.org",
             "localhost.example.org", "", "testclient", "::ffff:10.0.0.1", "127.0.0.1.nip.io", "[::1]"]  # fmt: skip
    for case in cases:
        assert is_loopback(case) == envelope._is_loopback(case), case
        for url in (f"//{case}", f"http://{case}:80", f"//[{case}]:80", case):
            assert names_loopback(url) == envelope._names_loopback(url), url
    assert not is_loopback("testclient")  # whoever may set X-Forwarded-For could call himself so
    assert names_loopback("//localhost:1")
    assert not names_loopback("//localhost.example.org")


def test_limits_can_be_set(registry: Registry, in_process: Callable[..., Any], tmp_path: Path) -> None:
    app = make_app(registry, None, limits=Limits(body_bytes=10))
    client = httpx.Client(transport=in_process(app), base_url="http://localhost")
    assert client.post("/v1/promotions", json={"ref": "a", "alias": "b"}).status_code == 413
