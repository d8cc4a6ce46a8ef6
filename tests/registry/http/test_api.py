"""What the HTTP API answers: look-ups, pages, ETags, acts, and the project's errors as problem documents."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from registry.entities import Version
from registry.errors import RegistryBusy, VersionNotFound
from registry.gate import Policy
from registry.http.cursors import cursor_of
from registry.http.problems import document_of, error_of
from registry.store import Registry

Ask = Callable[..., httpx.Response]
DATA = hashlib.sha256(b"rows").hexdigest()


def problem(answer: httpx.Response, status: int, kind: str) -> dict[str, Any]:
    """Hold an answer to be this problem, and return its document."""
    document: dict[str, Any] = answer.json()
    assert (answer.status_code, document["type"]) == (status, f"urn:tunewright:error:{kind}"), document
    assert answer.headers["content-type"] == "application/problem+json"
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert {"allowed", "next_step", "exit_status"} <= set(document)
    return document


@pytest.mark.parametrize("ref", ["text2sql", "text2sql:v1", "text2sql@champion", "DIGEST", "PREFIX"])
def test_a_version_is_found_by_every_form_of_ref(
    ask: Ask, registry: Registry, passing: Callable[[str], Version], policy: Policy, ref: str
) -> None:
    version = passing("one")
    registry.promote("text2sql", "champion", policy=policy, actor="a")
    ref = {"DIGEST": version.digest, "PREFIX": version.digest[:12]}.get(ref, ref)
    answer = ask("GET", f"/v1/versions/{ref}", "read")
    assert answer.status_code == 200
    assert answer.headers["etag"] == f'"{version.digest}"'
    document = answer.json()
    assert (document["name"], document["version"], document["digest"]) == ("text2sql", 1, version.digest)
    assert document["manifest"] == version.manifest.to_dict()
    again = ask("GET", f"/v1/versions/{ref}", "read", headers={"If-None-Match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


def test_a_name_with_a_slash_is_one_ref(ask: Ask, add_base: Callable[..., Version]) -> None:
    add_base("team/files")
    assert ask("GET", "/v1/versions/team%2Ffiles:v1").json()["name"] == "team/files"
    assert ask("GET", "/v1/files/team/files").json()["version"] == "team/files:v1"


def test_versions_come_in_pages_that_join_without_a_gap(ask: Ask, add_adapter: Callable[..., Version]) -> None:
    for key in "abcde":
        add_adapter(key)
    seen, cursor = [], None
    for _ in range(10):
        page = ask("GET", "/v1/versions", "read", params={"limit": 2, **({"cursor": cursor} if cursor else {})}).json()
        seen += [(item["name"], item["version"]) for item in page["items"]]
        assert len(page["items"]) <= 2
        if (cursor := page["next"]) is None:
            break
    assert seen == [("text2sql", n) for n in range(1, 6)] + [("tiny-base", 1)]
    models = ask("GET", "/v1/models", params={"limit": 1}).json()
    assert models["items"] == [{**models["items"][0], "name": "text2sql", "versions": 5, "newest": 5}]
    assert ask("GET", "/v1/models", params={"cursor": models["next"]}).json()["items"][0]["name"] == "tiny-base"


def test_a_cursor_of_another_list_is_refused(ask: Ask) -> None:
    for cursor in ("x", "WzFd", "W10", "bnVsbA", "WyJhIiwgMWU0MDBd", "WyJhIiwgdHJ1ZV0"):
        problem(ask("GET", "/v1/versions", params={"cursor": cursor}), 422, "RequestInvalid")


def test_what_no_name_has_in_it_is_refused_wherever_a_list_begins(ask: Ask) -> None:
    for path in ("versions", "statuses", "aliases", "runs", "protections"):
        for name in ("\0", "a b", "x" * 200, ""):
            problem(ask("GET", f"/v1/{path}", "read", params={"name": name}), 400, "ReferenceInvalid")
    positions = {"versions": 1, "statuses": 1, "aliases": "champion", "protections": "champion", "models": None}
    for path, behind in positions.items():
        for name in ("\0", "a\x7f", "x" * 200, "\ud800"):
            cursor = cursor_of(name) if behind is None else cursor_of(name, behind)
            problem(ask("GET", f"/v1/{path}", "read", params={"cursor": cursor}), 422, "RequestInvalid")


def test_versions_are_found_by_kind_base_data_and_score(
    ask: Ask, registry: Registry, add_adapter: Callable[..., Version], make_report: Callable[..., Any]
) -> None:
    weak, strong = add_adapter("weak"), add_adapter("strong", data_digests={"other": "0" * 64})
    registry.record_evaluation(weak.digest, make_report(0.1))
    registry.record_evaluation(strong.digest, make_report(0.9))
    registry.record_evaluation(strong.digest, make_report(0.5))  # the newest one counts

    def found(**params: Any) -> list[str]:
        return [f"{v['name']}:v{v['version']}" for v in ask("GET", "/v1/versions", params=params).json()["items"]]

    assert found(kind="base") == ["tiny-base:v1"]
    assert found(base=weak.base_fingerprint) == ["text2sql:v1", "text2sql:v2", "tiny-base:v1"]
    assert found(base=str(weak.base_fingerprint)[:12], name="text2sql", data=DATA) == ["text2sql:v1"]
    assert found(data=weak.manifest.files["config.json"].sha256) == []  # a file's digest is no data
    assert found(metric="execution_match") == ["text2sql:v1", "text2sql:v2"]
    assert found(metric="execution_match", min=0.3) == ["text2sql:v2"]
    assert found(metric="execution_match", max=0.3) == ["text2sql:v1"]
    assert found(metric="execution_match", min=0.7) == []
    assert found(metric="perplexity") == []


def test_a_search_that_can_find_nothing_is_refused(ask: Ask) -> None:
    for params in ({"min": 0.5}, {"metric": "m", "min": 2, "max": 1}, {"metric": "m", "min": "nan"}, {"name": "../x"}):
        problem(ask("GET", "/v1/versions", params=params), 400, "ReferenceInvalid")


def test_lineage_goes_up_down_or_both_ways(ask: Ask, add_adapter: Callable[..., Version]) -> None:
    adapter = add_adapter("one")

    def labels(ref: str, direction: str) -> set[str]:
        document = ask("GET", f"/v1/lineage/{ref}", params={"direction": direction}).json()
        ids = {node["id"] for node in document["nodes"]}
        assert all({edge["source"], edge["target"]} <= ids for edge in document["edges"])
        return {node["label"] for node in document["nodes"]}

    assert labels("text2sql", "up") == {"text2sql:v1", "tiny-base:v1", "train.jsonl"}
    assert labels("text2sql", "down") == {"text2sql:v1"}
    assert labels("tiny-base", "down") == {"text2sql:v1", "tiny-base:v1", "train.jsonl"}
    assert labels("tiny-base", "both") == labels("tiny-base", "down")
    assert adapter.digest in {node["id"] for node in ask("GET", "/v1/lineage/tiny-base").json()["nodes"]}
    problem(ask("GET", "/v1/lineage/text2sql", params={"direction": "sideways"}), 400, "ReferenceInvalid")


def test_what_serves_something_trained_on_this_data_is_one_question(
    ask: Ask,
    registry: Registry,
    passing: Callable[[str], Version],
    add_adapter: Callable[..., Version],
    policy: Policy,
) -> None:
    trained = passing("one")
    other = add_adapter("two", data_digests={"other.jsonl": "1" * 64})
    registry.promote(trained.digest, "champion", policy=policy, actor="a")
    document = ask("GET", f"/v1/data/{DATA}").json()
    nodes = {node["label"]: node for node in document["nodes"]}
    assert set(nodes) == {"train.jsonl", "text2sql:v1"}
    assert nodes["text2sql:v1"]["aliases"] == ["champion"]
    assert [(e["source"], e["target"], e["role"]) for e in document["edges"]] == [(DATA, trained.digest, "data")]
    assert [n["id"] for n in ask("GET", f"/v1/data/{'1' * 64}").json()["nodes"] if n["type"] == "version"] == [
        other.digest
    ]
    assert ask("GET", f"/v1/data/{'2' * 64}").json() == {"nodes": [], "edges": []}


def test_promotion_is_a_compare_and_swap_on_the_etag(
    ask: Ask, registry: Registry, passing: Callable[[str], Version], policy: Policy
) -> None:
    one, two = passing("one"), passing("two")
    body = {"ref": one.digest, "alias": "champion", "policy": policy.to_dict()}
    tried = ask("POST", "/v1/promotions", json={**body, "dry_run": True})
    assert (tried.status_code, tried.json()["dry_run"], registry.aliases()) == (200, True, [])
    first = ask("POST", "/v1/promotions", json={**body, "reason": "better"}, headers={"If-Match": '"0"'})
    assert (first.status_code, first.headers["etag"]) == (200, '"1"')
    assert (first.json()["actor"], first.json()["reason"], first.json()["gate"]["passed"]) == (
        "promoteer",
        "better",
        True,
    )
    seen = ask("GET", "/v1/aliases/text2sql@champion")
    assert (seen.headers["etag"], seen.json()["digest"]) == ('"1"', one.digest)
    assert ask("GET", "/v1/aliases/text2sql@champion", headers={"If-None-Match": '"1"'}).status_code == 304

    stale = ask("POST", "/v1/promotions", json={**body, "ref": two.digest}, headers={"If-Match": '"0"'})
    assert problem(stale, 409, "AliasConflict")["current_revision"] == 1
    same = ask("POST", "/v1/promotions", json={**body, "ref": two.digest, "expected_revision": 0})
    assert problem(same, 409, "AliasConflict")["current_revision"] == 1
    both = ask("POST", "/v1/promotions", json={**body, "expected_revision": 0}, headers={"If-Match": '"1"'})
    problem(both, 422, "RequestInvalid")
    problem(ask("POST", "/v1/promotions", json=body, headers={"If-Match": "new"}), 422, "RequestInvalid")

    ask("POST", "/v1/promotions", json={**body, "ref": two.digest}, headers={"If-Match": '"1"'})
    back = ask("POST", "/v1/rollbacks", json={"name": "text2sql", "alias": "champion", "reason": "slow"})
    assert (back.json()["version"], back.json()["previous_version"], back.headers["etag"]) == (1, 2, '"3"')
    steps = ask("GET", "/v1/history/text2sql@champion").json()["steps"]
    assert [(step["action"], step["version"]) for step in steps] == [("promote", 1), ("promote", 2), ("rollback", 1)]
    assert {entry.actor for entry in registry.audit() if entry.action in ("promote", "rollback")} == {"promoteer"}


def test_an_alias_that_is_not_there_is_told_alike_wherever_it_is_asked_for(
    ask: Ask, registry: Registry, passing: Callable[[str], Version], policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = passing("one")
    for path in ("/v1/aliases/text2sql@champion", "/v1/history/text2sql@champion"):
        assert "has no alias 'champion'" in problem(ask("GET", path), 404, "AliasNotFound")["detail"]
    registry.promote(one.digest, "champion", policy=policy, actor="ada")
    other = problem(ask("GET", "/v1/aliases/text2sql@champions"), 404, "AliasNotFound")
    assert other["allowed"] == "text2sql@champion"
    # made between two look-ups of one request
    monkeypatch.setattr(registry, "aliases", lambda name=None: [])
    found = problem(ask("GET", "/v1/aliases/text2sql@champion"), 404, "AliasNotFound")
    assert found["next_step"] == "ask again"
    body = {"ref": one.digest, "alias": "champion"}
    promoted = ask("POST", "/v1/promotions", json=body, headers={"If-Match": "*"})
    assert problem(promoted, 409, "AliasConflict")["current_revision"] == 1


def test_if_match_is_held_to_or_refused(
    ask: Ask, registry: Registry, passing: Callable[[str], Version], policy: Policy
) -> None:
    one, two = passing("one"), passing("two")
    body = {"ref": one.digest, "alias": "champion", "policy": policy.to_dict()}

    def promote(*given: str, **more: Any) -> httpx.Response:
        headers = httpx.Headers([("If-Match", value) for value in given])
        return ask("POST", "/v1/promotions", json={**body, **more}, headers=headers)

    told = problem(promote("*"), 409, "AliasConflict")
    assert (told["current_revision"], registry.aliases()) == (0, [])
    problem(promote("*", expected_revision=0), 409, "AliasConflict")
    assert promote('"0"').status_code == 200
    for given in (['W/"1"'], ['"1", "2"'], ['"1"', '"2"'], ['"2"', '"1"'], ['"1"', '"1"'], ["*", '"1"']):
        problem(promote(*given, ref=two.digest), 422, "RequestInvalid")
    problem(promote("*", ref=two.digest, expected_revision=7), 409, "AliasConflict")
    assert registry.aliases()[0].revision == 1
    assert promote("*", ref=two.digest).json()["revision"] == 2
    named = {"name": "text2sql", "alias": "champion", "reason": "x"}
    problem(ask("POST", "/v1/demotions", json=named, headers={"If-Match": 'W/"2"'}), 422, "RequestInvalid")
    assert ask("POST", "/v1/demotions", json=named, headers={"If-Match": "*"}).status_code == 200
    assert problem(promote("*"), 409, "AliasConflict")["current_revision"] == 3
    problem(ask("POST", "/v1/demotions", json=named, headers={"If-Match": "*"}), 404, "AliasNotFound")


def test_a_refusal_carries_its_reasons_and_the_verdict(
    ask: Ask, registry: Registry, add_adapter: Callable[..., Version]
) -> None:
    add_adapter("one")
    document = problem(ask("POST", "/v1/promotions", json={"ref": "text2sql", "alias": "champion"}), 422, "GateRefused")
    assert document["exit_status"] == 3
    assert document["reasons"] == ["no evaluation was recorded for exactly this digest"] == document["gate"]["reasons"]
    assert [entry.action for entry in registry.audit()][-1] == "refuse"


def test_evaluations_are_recorded_listed_and_judged(
    ask: Ask, add_adapter: Callable[..., Version], make_report: Callable[..., Any]
) -> None:
    version = add_adapter("one")
    for delta in (0.1, 0.2, 0.3):
        sent = ask("POST", f"/v1/evaluations/{version.digest}", "write", json={"report": make_report(delta)})
        assert (sent.status_code, sent.json()["version_digest"]) == (201, version.digest)
    page = ask("GET", "/v1/evaluations/text2sql", params={"limit": 2}).json()
    assert [item["report"]["task"]["delta"] for item in page["items"]] == [0.3, 0.2]
    last = ask("GET", "/v1/evaluations/text2sql", params={"cursor": page["next"]}).json()
    assert ([item["report"]["task"]["delta"] for item in last["items"]], last["next"]) == ([0.1], None)
    assert ask("GET", "/v1/evaluations/text2sql", params={"limit": 3}).json()["next"] is None
    behind = {"cursor": cursor_of(-1)}
    problem(ask("GET", "/v1/evaluations/text2sql", params=behind), 400, "ReferenceInvalid")
    laid = ask("POST", f"/v1/evaluations/{version.digest}", json={"report": {"note": "x"}, "over_newest": True}).json()[
        "report"
    ]
    assert (laid["note"], laid["task"]["delta"]) == ("x", 0.3)
    assert ask("GET", "/v1/gate/text2sql").json()["passed"] is True
    assert ask("GET", "/v1/standing/text2sql").json() == {
        "proven": True,
        "basis": "gate",
        "reasons": [],
        "required_keys": [],
    }
    for asked in ({"required_approvals": "x"}, [1], {"min_row": 1}):
        sent = ask("POST", f"/v1/evaluations/{version.digest}", json={"report": {**make_report(), "policy": asked}})
        problem(sent, sent.status_code, "PolicyInvalid")
    wrong = ask("POST", f"/v1/evaluations/{version.digest}", json={"report": {"files": {"a": "b"}}})
    problem(wrong, 422, "EvaluationMismatch")
    problem(ask("POST", f"/v1/evaluations/{'0' * 64}", json={"report": {}}), 404, "VersionNotFound")


def test_a_page_of_reports_reads_no_others(
    ask: Ask, registry: Registry, add_adapter: Callable[..., Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = add_adapter("one")
    recorded = [registry.record_evaluation(version.digest, {"note": number}).id for number in range(9)]
    query, read = registry._lookup.query, []

    def count(sql: str, values: Any) -> Any:
        rows = query(sql, values)
        read.append(len(rows))
        return rows

    monkeypatch.setattr(registry._lookup, "query", count)
    cursor, found = None, []
    while cursor is not None or not found:
        params = {"limit": 2} if cursor is None else {"limit": 2, "cursor": cursor}
        page = ask("GET", "/v1/evaluations/text2sql", params=params).json()
        found += [item["id"] for item in page["items"]]
        cursor = page["next"]
    assert found == recorded[::-1]
    assert max(read) == 3  # the page, and one that says whether there is another


@pytest.mark.usefixtures("any_report")
def test_whole_numbers_larger_than_any_float_are_no_failure(
    ask: Ask, add_adapter: Callable[..., Version], make_report: Callable[..., Any]
) -> None:
    version = add_adapter("one")
    report = make_report()
    report["task"] |= {"delta": 10**400, "tuned": 10**400}
    assert ask("POST", f"/v1/evaluations/{version.digest}", json={"report": report}).status_code == 201
    gate = ask("GET", "/v1/gate/text2sql").json()
    assert (gate["passed"], [check["name"] for check in gate["checks"] if not check["passed"]]) == (
        False,
        ["task_delta"],
    )
    assert ask("GET", "/v1/versions", params={"metric": "execution_match", "max": 1}).json()["items"] == []
    manifest = version.manifest.to_dict()
    manifest["parents"][0]["weight"] = 10**400
    assert ask("POST", "/v1/versions", json={"name": "x", "manifest": manifest}).status_code == 422


def test_what_nothing_could_show_is_refused_before_it_is_there(
    ask: Ask, registry: Registry, add_adapter: Callable[..., Version]
) -> None:
    deep: Any = 1
    for _ in range(240):
        deep = {"a": deep}
    version = add_adapter("one")
    path = f"/v1/evaluations/{version.digest}"
    told = problem(ask("POST", path, json={"report": {"noted": deep}}), 422, "ReportInvalid")
    assert "more than 100 deep" in told["detail"]
    manifest = {**version.manifest.to_dict(), "metadata": deep, "content_key": "deep"}
    told = problem(ask("POST", "/v1/versions", json={"name": "x", "manifest": manifest}), 422, "ManifestInvalid")
    assert "metadata is nested more than 100 deep" in told["detail"]
    assert ask("GET", "/v1/evaluations/text2sql").json()["items"] == []
    assert [row["name"] for row in ask("GET", "/v1/versions").json()["items"]] == ["text2sql", "tiny-base"]
    assert len(registry.audit()) == 2


def test_what_is_not_there_or_not_a_question_is_told(ask: Ask, add_base: Callable[..., Version]) -> None:
    add_base()
    for path, status, kind in (
        ("/v1/versions/nothing", 404, "VersionNotFound"),
        ("/v1/versions/tiny-base:v9", 404, "VersionNotFound"),
        ("/v1/versions/tiny-base@champion", 404, "AliasNotFound"),
        ("/v1/aliases/tiny-base@champion", 404, "AliasNotFound"),
        ("/v1/history/tiny-base@champion", 404, "AliasNotFound"),
        ("/v1/aliases/tiny-base", 400, "ReferenceInvalid"),
        ("/v1/versions/a%20b", 400, "ReferenceInvalid"),
        ("/v1/versions/", 400, "ReferenceInvalid"),
        ("/v1/versions/a%00b", 400, "ReferenceInvalid"),
        ("/v1/nothing", 404, "MissingError"),
        ("/nothing", 404, "MissingError"),
        ("/v1/versions?limit=0", 422, "RequestInvalid"),
        ("/v1/versions?kind=zap", 400, "ReferenceInvalid"),
        ("/v1/audit?after=99999999999999999999999", 422, "RequestInvalid"),
    ):
        problem(ask("GET", path), status, kind)


def test_a_parameter_that_a_path_does_not_have_is_refused_with_those_that_it_has(ask: Ask, app: FastAPI) -> None:
    document = problem(ask("GET", "/v1/versions?names=a&kind=base"), 422, "RequestInvalid")
    assert ("'names'" in document["detail"], "'kind'" in document["detail"]) == (True, False)
    assert document["allowed"] == "name, kind, base, data, metric, min, max, limit, cursor"
    asked = 0
    for path, operations in app.openapi()["paths"].items():
        for method, operation in operations.items():
            if method == "head":  # is answered without a body
                continue
            declared = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "query"]
            told = problem(
                ask(method.upper(), path.format(ref="a", target="a@b", digest=DATA, sha256=DATA) + "?x=1"),
                422,
                "RequestInvalid",
            )
            assert told["allowed"] == (", ".join(declared) or "none"), path
            asked += 1
    assert asked > 30


def test_a_parameter_that_is_there_twice_is_refused(ask: Ask, add_base: Callable[..., Version]) -> None:
    add_base()
    for names in ("name=a&name=tiny-base", "name=tiny-base&name=tiny-base"):
        document = problem(ask("GET", f"/v1/versions?{names}"), 422, "RequestInvalid")
        assert "'name' 2 times" in document["detail"]
    assert len(ask("GET", "/v1/versions?name=tiny-base").json()["items"]) == 1


def test_a_method_that_a_path_does_not_have_names_those_that_it_has(ask: Ask) -> None:
    answer = ask("DELETE", "/v1/versions")
    problem(answer, 405, "RequestInvalid")
    assert answer.headers["allow"]


def test_head_answers_what_get_does_without_the_body(
    ask: Ask, app: FastAPI, registry: Registry, passing: Callable[[str], Version], policy: Policy
) -> None:
    version = passing("one")
    registry.promote("text2sql", "champion", policy=policy, actor="a")
    content = version.manifest.files["config.json"].sha256
    asked = 0
    for path, operations in app.openapi()["paths"].items():
        assert "head" not in operations or path == "/v1/blobs/{sha256}"
        place = path.format(ref="text2sql", target="text2sql@champion", digest=DATA, sha256=content)
        if "get" in operations:
            got, head = ask("GET", place), ask("HEAD", place)
            assert (got.status_code, head.status_code, head.content) == (200, 200, b""), place
            for name in ("content-type", "etag"):
                assert head.headers.get(name) == got.headers.get(name), place
            if path != "/v1/metrics":  # which counts the one before
                assert head.headers["content-length"] == got.headers["content-length"], place
            asked += 1
    assert asked > 20
    assert ask("HEAD", "/v1/versions/none").status_code == 404
    assert ask("HEAD", "/v1/promotions").status_code == 405
    assert ask("HEAD", "/v1/models", None).status_code == 401
    assert ask("HEAD", "/v1/health", None).status_code == 200
    assert 'method="HEAD",route="/v1/versions/{ref}",status="200"' in ask("GET", "/v1/metrics").text


BODIES = [
    b"{", b"[]", b'{"report": NaN}', b'{"report": {"a": NaN}}', b'{"report": {"a": "\\ud800"}}', b"\xff", b"null",
     b'{"report": ' + b'{"a":' * 4000 + b"1" + b"}" * 4001, b'{"report": {"a": ' + b"1" * 5000 + b"}}",
     b'{"report": {}, "actor": "somebody else"}',
]  # fmt: skip


def test_a_body_that_is_no_plain_json_is_the_callers_fault(ask: Ask, add_base: Callable[..., Version]) -> None:
    path = f"/v1/evaluations/{add_base().digest}"
    for content in BODIES:
        answer = ask("POST", path, content=content, headers={"Content-Type": "application/json"})
        assert answer.status_code in (400, 422), (content[:20], answer.text)
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_name_that_stands_twice_is_refused_wherever_it_stands(
    ask: Ask, registry: Registry, passing: Callable[[str], Version]
) -> None:
    digest = passing("one").digest
    twice = '{"rows": 1, "rows": 2}'
    manifest = f'{{"kind": "base", "files": {{"a.json": {{"size": 1, "sha256": "{DATA}"}}}}, "metadata": {twice}}}'
    for path, body in (
        ("promotions", '{"ref": "text2sql", "alias": "a", "dry_run": true, "dry_run": false}'),
        ("promotions", '{"ref": "text2sql", "alias": "a", "alias": "a"}'),
        ("promotions", '{"ref": "text2sql", "alias": "a", "policy": {"min_rows": 1000, "min_rows": 1}}'),
        (f"evaluations/{digest}", f'{{"report": {{"task": {twice}}}}}'),
        ("versions", f'{{"name": "x", "manifest": {manifest}}}'),
        ("runs", f'{{"name": "x", "sweep": "s", "number": 0, "base_fingerprint": "{DATA}", "document": [{twice}]}}'),
    ):
        answer = ask("POST", f"/v1/{path}", content=body, headers={"Content-Type": "application/json"})
        assert "stands in it twice" in problem(answer, 422, "RequestInvalid")["detail"], body
    asked = ask("GET", "/v1/gate/text2sql", params={"policy": '{"min_rows": 1000, "min_rows": 1}'})
    assert "'min_rows' stands in it twice" in problem(asked, 422, "PolicyInvalid")["detail"]
    assert registry.aliases() == []


def test_nothing_but_a_boolean_is_taken_for_one_and_no_text_for_a_number(
    ask: Ask, registry: Registry, passing: Callable[[str], Version]
) -> None:
    digest = passing("one").digest
    named: dict[str, Any] = {"name": "text2sql", "alias": "a", "reason": "x"}
    promotion, run = {"ref": "text2sql", "alias": "a"}, {"name": "x", "sweep": "s", "base_fingerprint": DATA}
    parent = {"digest": digest, "role": "base"}
    manifest = {"kind": "base", "files": {"a.json": {"size": 1, "sha256": DATA}}, "base_fingerprint": DATA}
    for path, body, field, wrong in (
        ("promotions", promotion, "dry_run", ["off", "false", 0, 1, None]),
        ("promotions", promotion, "expected_revision", ["0", 0.0, False]),
        ("approvals", {**promotion, "act": "unprotect"}, "self_approval", ["on", 1]),
        ("approvals", {**promotion, "act": "unprotect"}, "required", ["1", True]),
        ("protections", named, "self_approval", ["on", "yes", 1]),
        ("protections", named, "required", ["2", 2.0, True]),
        (f"evaluations/{digest}", {"report": {}}, "over_newest", ["yes", 1]),
        ("collections", {"dry_run": True}, "grace_seconds", ["7", True]),
        ("collections", {}, "dry_run", ["true", 1]),
        ("runs", {**run, "document": {}}, "number", ["1", 1.0, True]),
    ):
        for value in wrong:
            sent = ask("POST", f"/v1/{path}", json={**body, field: value})
            assert field in problem(sent, 422, "RequestInvalid")["detail"], (path, field, value)
    for weight in ("0.5", True):
        sent = ask("POST", "/v1/versions", json={"name": "x", "manifest": {**manifest, "parents": [
            {**parent, "weight": weight}]}})  # fmt: skip
        assert "weight" in problem(sent, 422, "RequestInvalid")["detail"]
    assert (registry.aliases(), registry.protections(), registry.runs()) == ([], [], [])


def test_a_body_that_is_too_large_is_refused_whatever_its_length_says(
    ask: Ask, add_base: Callable[..., Version]
) -> None:
    path = f"/v1/evaluations/{add_base().digest}"
    large = b'{"report": {"a": "' + b"x" * 300_000 + b'"}}'
    problem(ask("POST", path, content=large, headers={"Content-Type": "application/json"}), 413, "RequestInvalid")
    unannounced = ask("POST", path, content=iter([large]), headers={"Content-Type": "application/json"})
    assert "content-length" not in unannounced.request.headers
    problem(unannounced, 413, "RequestInvalid")


@pytest.mark.parametrize("kind", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonl"])
def test_a_body_that_does_not_say_that_it_is_json_is_told_so(
    ask: Ask, add_base: Callable[..., Version], kind: str | None
) -> None:
    path, content = f"/v1/evaluations/{add_base().digest}", b'{"report": {}}'
    said = {} if kind is None else {"Content-Type": kind}
    told = problem(ask("POST", path, content=content, headers=said), 422, "RequestInvalid")
    assert f"content-type {kind or 'none'!r}" in told["detail"]
    assert "application/json" in told["allowed"]
    for right in ("application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"):
        assert ask("POST", path, content=content, headers={"Content-Type": right}).status_code == 201


def test_audit_outbox_and_runs_are_read_from_a_number_on(
    ask: Ask, registry: Registry, add_adapter: Callable[..., Version]
) -> None:
    version = add_adapter("one")
    run = {"name": "text2sql", "sweep": "s1", "number": 0, "base_fingerprint": version.base_fingerprint,
           "content_key": "one", "document": {"summary": "rank 8", "data": {"train.jsonl": DATA}}}  # fmt: skip
    assert ask("POST", "/v1/runs", "write", json=run).status_code == 201
    bad = {**run, "number": 1, "document": {"data": ["a"]}}
    problem(ask("POST", "/v1/runs", "write", json=bad), 422, "ReportInvalid")
    page = ask("GET", "/v1/audit", "read", params={"limit": 2}).json()
    assert ([row["action"] for row in page["items"]], page["next"]) == (["register", "register"], 2)
    rest = ask("GET", "/v1/audit", "read", params={"after": 2}).json()
    assert [(row["action"], row["actor"]) for row in rest["items"]] == [("run", "writeer")]
    assert [e["topic"] for e in ask("GET", "/v1/outbox", "read").json()["items"]] == ["version.registered"] * 2
    assert [r["number"] for r in ask("GET", "/v1/runs", "read", params={"name": "text2sql"}).json()["items"]] == [0]
    assert ask("GET", "/v1/runs", params={"after": 1}).json() == {"items": [], "next": None}
    assert registry.verify().intact


def test_the_servers_own_pages(ask: Ask) -> None:
    assert ask("GET", "/v1/health", None).json()["status"] == "ok"
    assert ask("GET", "/v1/openapi.json", None).json()["openapi"].startswith("3.1")
    assert ask("GET", "/v1/whoami", "write").json() == {"name": "writeer", "role": "write"}


def test_metrics_count_by_route_and_never_by_ref(ask: Ask, add_base: Callable[..., Version]) -> None:
    add_base()
    for path in ("/v1/versions/tiny-base", "/v1/versions/secret-project", "/nothing/at/all"):
        ask("GET", path)
    ask("GET", "/v1/models", None)
    text = ask("GET", "/v1/metrics", "read").text
    lines = [line for line in text.splitlines() if line.startswith("tunewright_registry_requests_total")]
    assert any('route="/v1/versions/{ref}",status="200"} 1.0' in line for line in lines), lines
    assert any('status="404"' in line for line in lines)
    assert any('status="401"' in line for line in lines)
    assert "secret-project" not in text
    assert "nothing" not in text
    assert "tunewright_registry_outbox_head 1.0" in text


def test_a_busy_registry_says_when_to_come_again(
    ask: Ask, registry: Registry, add_adapter: Callable[..., Version], monkeypatch: pytest.MonkeyPatch
) -> None:
    version = add_adapter("one")

    def busy(*_: Any, **__: Any) -> Any:
        raise RegistryBusy("held", next_step="run again")

    monkeypatch.setattr(registry, "record_evaluation", busy)
    answer = ask("POST", f"/v1/evaluations/{version.digest}", json={"report": {}})
    problem(answer, 503, "RegistryBusy")
    assert int(answer.headers["retry-after"]) > 0


def test_an_internal_failure_tells_nothing_of_the_inside(
    ask: Ask, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise KeyError("a secret of the inside")

    monkeypatch.setattr(registry, "outbox_head", fail)
    answer = ask("GET", "/v1/health")
    assert "secret" not in answer.text
    told = problem(answer, 500, "RegistryError")
    assert answer.headers["x-request-id"] in told["next_step"]
    assert told["title"] == "Something went wrong in the registry"


def test_every_error_of_the_tree_comes_back_as_itself() -> None:
    from registry import errors

    for name in errors.__all__:
        kind = getattr(errors, name)
        error = kind("a problem", allowed="something", next_step="a step")
        back = error_of(document_of(error), 400)
        assert type(back) is kind
        assert (str(back), back.exit_status) == (str(error), error.exit_status)
    missing = errors.BlobsMissing("gone", missing=["a", "b"])
    back = error_of(document_of(missing), 404)
    assert isinstance(back, errors.BlobsMissing)
    assert back.missing == ("a", "b")


@pytest.mark.parametrize("document", [{}, {"type": "about:blank", "title": "Bad gateway"}, {"detail": "no"}])
def test_a_problem_that_no_registry_wrote_is_told_as_such(document: dict[str, Any]) -> None:
    error = error_of(document, 502)
    assert type(error).__name__ == "ServerUnavailable"
    assert "502" in error.problem
    assert not isinstance(error, VersionNotFound)
