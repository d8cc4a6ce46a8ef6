"""`tunewright registry` as people and scripts call it: output, exit statuses, and nothing made by reading."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flows import cli
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

FINGERPRINT = hashlib.sha256(b"base").hexdigest()
REPORT: dict[str, Any] = {
    "task": {"n": 128, "delta": 0.2, "low": 0.1, "high": 0.3},
    "tax": [{"suite": "grammar", "low": -0.01}],
    "policy": {"min_task_delta": 0.1, "min_rows": 100},
}


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A home with a base, a proven adapter v1 and v2, and an unproven v3; its folder says which database it is in."""
    database = None if request.param == "sqlite" else request.getfixturevalue("make_database")()
    source = tmp_path / "config.json"
    source.write_text("{}")
    files = describe_files({"config.json": source})
    with Registry.open(tmp_path / "home" / "registry", database=database) as registry:
        base = Manifest(kind="base", files=files, base_fingerprint=FINGERPRINT)
        parent = registry.register("tiny", base, {"config.json": source})
        for seed in (1, 2, 3):
            adapter = Manifest(
                kind="adapter",
                files=files,
                base_fingerprint=FINGERPRINT,
                parents=(Parent(parent.digest, "base"),),
                seed=seed,
            )
            version = registry.register("text2sql", adapter, {"config.json": source})
            if seed < 3:
                registry.record_evaluation(version.digest, {**REPORT, "seed": seed})
    return tmp_path / "home"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], home: Path) -> Callable[..., Any]:
    """Run the command line as the console script does; return (exit status, stdout, stderr)."""

    def call(*arguments: str, at: Path = home) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["tunewright", "registry", *arguments, "--home", str(at)])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


Run = Callable[..., tuple[int, str, str]]


def _json(result: tuple[int, str, str]) -> Any:
    status, out, err = result
    assert status == 0, err
    return json.loads(out)


def test_resolve_prints_the_keys_that_scripts_read(run: Run, home: Path) -> None:
    found = _json(run("resolve", "text2sql:v2", "--json"))
    assert {k: found[k] for k in ("name", "version", "kind", "base", "path")} == {
        "name": "text2sql", "version": 2, "kind": "adapter", "base": FINGERPRINT, "path": None
    }  # fmt: skip
    laid_out = _json(run("resolve", found["digest"][:12], "--checkout", "--json"))
    assert Path(laid_out["path"], "config.json").read_text() == "{}"
    assert _json(run("resolve", "text2sql:v2", "--json"))["path"] == laid_out["path"]


def test_promote_roll_back_and_show_tell_one_story(run: Run) -> None:
    first = _json(run("promote", "text2sql:v1", "--alias", "champion", "--actor", "ada", "--json"))
    assert (first["current"], first["previous"], first["revision"]) == ("text2sql:v1", None, 1)
    second = _json(run("promote", "text2sql:v2", "--alias", "champion", "--expected-revision", "1", "--json"))
    assert (second["previous"], second["revision"]) == ("text2sql:v1", 2)
    back = _json(run("rollback", "text2sql", "--reason", "slower", "--json"))
    assert (back["current"], back["revision"]) == ("text2sql:v1", 3)
    shown = _json(run("show", "text2sql@champion", "--json"))
    assert (shown["version"], shown["aliases"][0]["revision"], shown["gate"]["passed"]) == (1, 3, True)
    assert shown["policy"]["min_task_delta"] == 0.1
    entries = _json(run("audit", "--json"))["entries"]
    assert [e["action"] for e in entries[-3:]] == ["promote", "promote", "rollback"]
    assert entries[-3]["actor"] == "ada"


def test_gate_refusal_is_exit_status_3_with_reasons(run: Run, home: Path) -> None:
    status, out, err = run("promote", "text2sql:v3", "--alias", "champion")
    assert (status, out) == (3, "")
    assert "no evaluation was recorded for exactly this digest" in err
    policy = home.parent / "policy.yaml"
    policy.write_text("min_task_delta: 0.9\nmin_rows: 1\n")
    status, out, _ = run(
        "promote", "text2sql:v1", "--alias", "champion", "--policy", str(policy), "--dry-run", "--json"
    )
    assert status == 3
    assert "asks for 90.0 points" in json.loads(out)["gate"]["reasons"][0]
    assert run("resolve", "text2sql@champion")[0] == 4


def _measure(home: Path, ref: str, tuned: float, **task: Any) -> None:
    with Registry.open(home / "registry") as registry:
        version = registry.resolve(ref)
        measured = {**REPORT["task"], "metric": "execution_match", "tuned": tuned, **task}
        registry.record_evaluation(version.digest, {**REPORT, "task": measured})


def test_challenger_below_the_champion_is_refused_and_shown_so(run: Run, home: Path) -> None:
    _measure(home, "text2sql:v1", 0.9)
    _json(run("promote", "text2sql:v1", "--alias", "champion", "--json"))
    assert _json(run("show", "text2sql:v2", "--json"))["gate"]["passed"]  # its report names no metric
    assert "note: could not be compared with text2sql:v1" in run("show", "text2sql:v2")[1]
    _measure(home, "text2sql:v2", 0.8)
    assert not _json(run("show", "text2sql:v2", "--json"))["gate"]["passed"]
    assert _json(run("show", "text2sql:v2", "--alias", "candidate", "--json"))["gate"]["passed"]
    status, _, err = run("promote", "text2sql:v2", "--alias", "champion")
    assert status == 3
    assert "score is 80.0 %, that of text2sql:v1 is 90.0 %" in err
    _measure(home, "text2sql:v2", 0.8, metric="exact_match")
    status, out, _ = run("promote", "text2sql:v2", "--alias", "champion")
    assert status == 0
    assert "note: could not be compared with text2sql:v1: its metric is exact_match" in out


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (None, "longer than"),
        (b"min_rows: \xff", "not YAML"),
        (b"a: [", "not YAML"),
        (b"min_rows: 1\nmin_rows: 2", "'min_rows' stands twice"),
    ],
)
def test_what_is_no_policy_file_is_refused(run: Run, home: Path, content: bytes | None, word: str) -> None:
    policy = Path("/dev/zero")
    if content is not None:
        policy = home.parent / "policy.yaml"
        policy.write_bytes(content)
    status, _, err = run("promote", "text2sql:v1", "--alias", "champion", "--policy", str(policy))
    assert status == 2
    assert word in err


def test_a_policy_that_moves_nothing_is_said_not_to_be_recorded(run: Run, home: Path) -> None:
    policy = home.parent / "policy.yaml"
    policy.write_text("min_task_delta: 0.05\n")
    promote = ("promote", "text2sql:v1", "--alias", "champion")
    assert "recorded" not in run(*promote, "--policy", str(policy))[2]
    status, out, err = run(*promote, "--policy", str(policy))
    assert (status, "already" in out) == (0, True)
    assert f"nothing was recorded, {policy} neither" in err
    assert "recorded" not in run(*promote)[2]


def test_audit_says_whose_policy_decided(run: Run, home: Path) -> None:
    policy = home.parent / "policy.yaml"
    policy.write_text("min_task_delta: 0.05\nmax_champion_loss: null\n")
    _json(run("promote", "text2sql:v1", "--alias", "champion", "--json"))
    _json(run("promote", "text2sql:v2", "--alias", "champion", "--policy", str(policy), "--json"))
    gates = [e["payload"]["gate"] for e in _json(run("audit", "--json"))["entries"][-2:]]
    assert [(g["policy_from"], g["policy"]["min_task_delta"]) for g in gates] == [("evaluation", 0.1), ("caller", 0.05)]


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("resolve", "text2sql:v9"), 4, "text2sql:v1 to v3"),
        (("resolve", "nothing"), 4, "text2sql, tiny"),
        (("resolve", "text2sql:x"), 2, "name:vN"),
        (("ls", "nothing"), 4, "no model is named"),
        (("promote", "text2sql:v1", "--alias", "champion", "--expected-revision", "5"), 4, "at revision 0"),
        (("promote", "text2sql:v1", "--alias", "Bad Alias"), 2, "lower-case"),
        (("promote", "text2sql:v1", "--alias", "champion", "--policy", "/nowhere.yaml"), 2, "does not exist"),
        (("rollback", "text2sql", "--reason", "x"), 4, "no alias"),
        (("rollback", "text2sql"), 2, "--reason"),
        (("rollback", "text2sql", "--reason", "x", "--to", "v9"), 4, "text2sql:v1 to v3"),
        (("rollback", "nothing", "--reason", "x"), 4, "no model is named 'nothing'"),
        (("rollback", "text2sql", "--reason", " "), 2, "--reason"),
        (("rollback", "text2sql", "--reason", "x", "--actor", ""), 2, "--actor"),
        (("promote", "text2sql:v1", "--alias", "champion", "--actor", ""), 2, "--actor"),
        (("promote", "text2sql:v1", "--alias", "champion", "--reason", ""), 2, "--reason"),
        (("resolve", "tiny:v2"), 4, "allowed: tiny:v1\n"),
        (("show", "b817f2"), 4, "a digest needs at least 12 digits"),
        (("ls", "text2sql:v9"), 4, "text2sql:v1 to v3"),
    ],
)
def test_mistake_has_its_exit_status_and_says_what_is_allowed(
    run: Run, arguments: tuple[str, ...], status: int, says: str
) -> None:
    found, out, err = run(*arguments)
    assert (found, out) == (status, "")
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls",), ("show", "m"), ("resolve", "m"), ("resolve", "m", "--checkout"), ("lineage", "m"), ("verify",),
        ("audit",), ("promote", "m", "--alias", "champion"), ("rollback", "m", "--reason", "r"),
    ],
)  # fmt: skip
def test_home_without_a_registry_is_not_found_and_stays_so(
    run: Run, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    status, out, err = run(*arguments, at=tmp_path / "empty")
    assert (status, out) == (4, "")
    assert "tunewright run RECIPE, or tunewright registry import FOLDER --name NAME" in err
    assert not (tmp_path / "empty").exists()


def test_list_lineage_and_verify_agree(run: Run) -> None:
    rows = _json(run("ls", "--json"))["versions"]
    assert [(r["name"], r["version"]) for r in rows] == [("text2sql", 1), ("text2sql", 2), ("text2sql", 3), ("tiny", 1)]
    graph = _json(run("lineage", "tiny", "--json"))
    assert {n["label"]: n["direction"] for n in graph["nodes"]} == {
        "tiny:v1": "self", "text2sql:v1": "down", "text2sql:v2": "down", "text2sql:v3": "down"
    }  # fmt: skip
    assert {(e["source"], e["role"]) for e in graph["edges"]} == {(rows[3]["digest"], "base")}
    verified = _json(run("verify", "--json"))
    assert (verified["intact"], verified["versions"]) == (True, 4)


def test_damage_is_exit_status_3_with_the_file_named(run: Run, home: Path) -> None:
    (blob,) = [p for p in (home / "registry" / "blobs" / "sha256").rglob("*") if p.is_file()]
    blob.chmod(0o644)
    blob.write_text("{ ")
    status, out, _ = run("verify")
    assert status == 3
    assert "text2sql:v1 config.json" in out
    status, _, err = run("resolve", "text2sql", "--checkout")
    assert status == 1
    assert "was damaged" in err


@pytest.mark.parametrize("verb", ["ls", "audit", "verify", "show text2sql:v1", "lineage text2sql", "resolve tiny"])
def test_text_for_people_names_what_json_names(run: Run, verb: str) -> None:
    status, out, _ = run(*verb.split())
    assert status == 0
    assert "text2sql" in out or "intact" in out or "tiny" in out


def test_a_ref_lists_the_one_version_that_it_names(run: Run) -> None:
    _json(run("promote", "text2sql:v2", "--alias", "champion", "--json"))
    for ref in ("text2sql:v2", "text2sql@champion", _json(run("resolve", "text2sql:v2", "--json"))["digest"][:12]):
        (row,) = _json(run("ls", ref, "--json"))["versions"]
        assert (row["name"], row["version"], row["aliases"]) == ("text2sql", 2, ["champion"])
    assert [row["version"] for row in _json(run("ls", "text2sql", "--json"))["versions"]] == [1, 2, 3]


@pytest.mark.usefixtures("any_report")
def test_show_tells_of_a_report_that_no_promotion_gets_past(run: Run, home: Path) -> None:
    with Registry.open(home / "registry") as registry:
        registry.record_evaluation(registry.resolve("tiny").digest, {"policy": {"required_approvals": "x"}})
    status, out, _ = run("show", "tiny")
    assert status == 0
    assert "FAILED  policy" in out
    shown = _json(run("show", "tiny", "--json"))
    assert (shown["policy"], shown["gate"]["passed"]) == (None, False)


def test_show_tells_scores_tax_and_each_check(run: Run, home: Path) -> None:
    _measure(home, "text2sql:v1", 0.3, base=0.1)
    _, out, _ = run("show", "text2sql:v1")
    assert "task execution_match, n=128: base 10.0 %, tuned 30.0 %, +20.0 points (95 % interval +10.0 to +30.0)" in out
    assert "suite grammar, n=?: base –" in out
    assert "gate: passes" in out
    assert "passed  task_rows 128, at least 100 asked" in out
    assert "passed  task_delta +20.0, at least +10.0 asked" in out
    assert "passed  suite:grammar −1.0, at least −5.0 asked" in out
    _measure(home, "text2sql:v1", 0.3, delta=0.05)
    _, out, _ = run("show", "text2sql:v1")
    assert "FAILED  task_delta +5.0, at least +10.0 asked: the task gained 5.0 points" in out
    _, out, _ = run("show", "tiny")
    assert "a base needs no proof to be served" in out
    assert "refuses" not in out


@pytest.mark.parametrize("verb", [["ls"], ["resolve", "m"], ["verify"], ["promote", "m", "--alias", "champion"]])
def test_database_server_that_is_not_there_is_told_without_a_traceback(
    run: Run, tmp_path: Path, verb: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "remote" / "registry"
    folder.mkdir(parents=True)
    content = {"database": "postgresql://ada@127.0.0.1:1/models", "registry": "a" * 32, "made": True}
    (folder / "database.json").write_text(json.dumps(content))
    monkeypatch.setenv("PGPASSWORD", "s3cr3t")
    status, out, err = run(*verb, "--json", at=tmp_path / "remote")
    error = json.loads(out)["error"]
    assert (status, error["type"], error["exit_status"]) == (2, "DatabaseUnreachable", 2)
    assert error["allowed"]
    assert error["next_step"]
    assert "ada@127.0.0.1:1/models" in err
    assert "Traceback" not in err
    assert "s3cr3t" not in out + err
