"""The mirror in a real MLflow on SQLite: what arrives, in what order, twice, from the start, and when it fails."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from flows import cli
from registry import mirror as mirroring
from registry.errors import MirrorConflict, RegistryInputError
from registry.gate import Policy
from registry.manifest import Manifest, describe_files
from registry.mirror import follow, mirror, push
from registry.mlflow_target import ASIDE, MlflowTarget, metrics_of, mirrored_name
from registry.outbox import TOPICS
from registry.secret_uris import redacted, without_secrets
from registry.store import Registry

# nobody listens on the port
CLOSED = "http://ann:hunter22@127.0.0.1:9/"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with its tables, which take seconds to make."""
    pytest.importorskip("mlflow")
    file = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    MlflowTarget(f"sqlite:///{file}").client.search_experiments()
    return file


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    with Registry.open(tmp_path / "registry") as one:
        yield one


@pytest.fixture
def target(tmp_path: Path, empty_store: Path) -> MlflowTarget:
    (tmp_path / "store").mkdir()
    shutil.copy(empty_store, tmp_path / "store" / "mlflow.db")
    return MlflowTarget(f"sqlite:///{tmp_path}/store/mlflow.db")


def state_of(target: MlflowTarget) -> dict[str, Any]:
    """Everything in MLflow that a mirror writes."""
    client = target.client
    found: dict[str, Any] = {}
    for model in client.search_registered_models():
        versions = sorted(client.search_model_versions(f"name='{model.name}'"), key=lambda one: int(one.version))
        found[model.name] = {
            "aliases": dict(model.aliases),
            "tags": dict(model.tags),
            "versions": [(one.version, one.run_id, one.source, dict(one.tags)) for one in versions],
        }
        for one in versions:
            run = client.get_run(one.run_id)
            keys = run.data.metrics
            points = {key: [(m.value, m.step) for m in client.get_metric_history(one.run_id, key)] for key in keys}
            found[one.run_id] = (dict(run.data.tags), dict(run.data.params), points, run.info.status)
    return found


def test_versions_scores_tags_and_aliases_arrive_under_their_own_numbers(
    registry: Registry, target: MlflowTarget, add_adapter: Callable[..., Any], make_report: Any, policy: Policy
) -> None:
    measured = {"memory": {"measured_bytes": 1024}, "time": {"measured_seconds": 2.5}, "method": "lora"}
    first, second = add_adapter("a", metadata=measured), add_adapter("b", name="team/other")
    registry.record_evaluation(first.digest, make_report())
    registry.promote(first.label, "champion", policy=policy, actor="ann", reason="better")
    registry.deprecate(second.label, actor="ann", reason="old")
    done = mirror(registry, target)
    assert (done.told, done.position, done.error) == (6, 6, None)
    client = target.client
    held = client.get_model_version_by_alias("text2sql", "champion")
    assert (int(held.version), held.tags["tunewright.digest"]) == (1, first.digest)
    run = client.get_run(held.run_id)
    assert run.data.metrics["task/execution_match/tuned"] == pytest.approx(0.3)
    assert run.data.metrics["tax/grammar/low"] == -0.01
    assert run.data.metrics["memory/measured_bytes"] == 1024
    assert run.data.metrics["time/measured_seconds"] == 2.5
    assert (run.data.params["method"], run.info.status) == ("lora", "FINISHED")
    told = client.get_registered_model("text2sql").tags["tunewright.alias.champion"]
    assert told.startswith("v1, revision 1, by ann at ")
    assert told.endswith(": better")
    assert client.get_model_version("team~other", "1").tags["tunewright.state"] == "deprecated"
    registry.demote("text2sql", "champion", actor="ann", reason="broken")
    mirror(registry, target)
    assert client.get_registered_model("text2sql").aliases == {}


def test_every_row_again_changes_nothing_and_an_old_alias_is_never_shown(
    registry: Registry, target: MlflowTarget, add_adapter: Callable[..., Any], make_report: Any, policy: Policy
) -> None:
    for key in "ab":
        registry.record_evaluation(add_adapter(key).digest, make_report())
        registry.promote("text2sql", "champion", policy=policy, actor="ann")
    shown: list[str] = []
    put = target.put_alias

    def watch(state: Any, reason: str | None) -> None:
        put(state, reason)
        shown.append(f"v{target.client.get_model_version_by_alias('text2sql', 'champion').version}")

    target.put_alias = watch  # type: ignore[method-assign]
    mirror(registry, target)
    before = state_of(target)
    again = mirror(registry, target, from_start=True)
    assert (again.told, again.position) == (registry.outbox_head(), registry.outbox_head())
    for event in registry.outbox():
        push(registry, target, event)
        push(registry, target, event)
    assert state_of(target) == before
    assert len([key for key in before if len(key) == 32]) == 3  # a run a version
    assert set(shown) == {"v2"}
    registry.rollback("text2sql", "champion", actor="ann", reason="worse")
    mirror(registry, target)
    assert shown[-1] == "v1"


def test_an_alias_can_be_downloaded_with_a_pointer_and_with_the_files(
    registry: Registry,
    target: MlflowTarget,
    add_adapter: Callable[..., Any],
    make_report: Any,
    policy: Policy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow

    version = add_adapter("a")
    registry.record_evaluation(version.digest, make_report())
    registry.promote("text2sql", "champion", policy=policy, actor="ann")
    mirror(registry, target)

    monkeypatch.setenv("MLFLOW_TRACKING_URI", target.uri)

    def download(name: str) -> Path:
        return Path(mlflow.artifacts.download_artifacts("models:/text2sql@champion", dst_path=str(tmp_path / name)))

    folder = download("pointer")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "manifest.json", "tunewright.json"]
    pointer = json.loads((folder / "tunewright.json").read_text())
    assert (pointer["version"], pointer["digest"]) == ("text2sql:v1", version.digest)
    for path, entry in pointer["files"].items():
        assert entry["sha256"] == version.manifest.file_digests[path]
        assert Path(entry["uri"].removeprefix("file://")).stat().st_size == entry["size"]
    assert "30.0 %" in (folder / "README.md").read_text()  # the card has the newest scores
    target.files = True
    mirror(registry, target, from_start=True)
    folder = download("files")
    for path in version.manifest.files:
        assert (folder / path).read_bytes() == (registry.checkout(version.digest) / path).read_bytes()
    assert not list(registry.folder.glob(".mirror-*"))


def test_what_fails_is_tried_again_at_the_same_row_and_delays_nobody(
    registry: Registry,
    target: MlflowTarget,
    add_adapter: Callable[..., Any],
    make_report: Any,
    policy: Policy,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    version = add_adapter("a")
    broken = MlflowTarget(CLOSED)
    done = mirror(registry, broken, at=1000.0)
    assert (done.told, done.position) == (0, 0)
    assert done.error
    assert done.retry_at == 1002.0
    assert "hunter22" not in caplog.text + str(done)
    registry.record_evaluation(version.digest, make_report())
    assert registry.promote("text2sql", "champion", policy=policy, actor="ann").changed
    assert mirror(registry, target, most=1).position == 1
    assert (mirror(registry, target).position, registry.outbox_head()) == (4, 4)
    assert mirror(registry, target).told == 0


def test_following_pauses_longer_after_each_failure_and_goes_on(
    registry: Registry, target: MlflowTarget, add_base: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_base()
    pauses: list[float] = []
    rounds: list[mirroring.Mirrored] = []
    real = target.put_version

    def fail(*_: Any) -> None:
        if len(pauses) == 2:
            target.put_version = real  # type: ignore[method-assign]
        raise ConnectionError("down")

    def wait(seconds: float) -> bool:
        pauses.extend([seconds] if seconds else [])
        return len(pauses) == 4

    target.put_version = fail  # type: ignore[method-assign]
    follow(registry, target, on_round=rounds.append, wait=wait)
    assert pauses == [2.0, 4.0, 8.0, mirroring.POLL_SECONDS]
    assert [done.position for done in rounds] == [0, 0, 0, 1]
    assert target.client.get_model_version("tiny-base", "1")


def test_rows_that_a_mirror_does_not_show_are_passed_over(
    registry: Registry, target: MlflowTarget, add_adapter: Callable[..., Any], make_report: Any, policy: Policy
) -> None:
    version = add_adapter("a")
    registry.record_evaluation(version.digest, make_report())
    registry.protect("text2sql", "champion", required=1, actor="ann", reason="customers use it")
    registry.approve(version.label, "champion", policy=policy, actor="bob", reason="read")
    registry.promote("text2sql", "champion", policy=policy, actor="ann")
    assert {event.topic for event in registry.outbox()} > {"alias.protect", "alias.approve"}
    done = mirror(registry, target)
    assert (done.error, done.position) == (None, registry.outbox_head())
    assert target.client.get_registered_model("text2sql").aliases == {"champion": 1}
    assert set(mirroring.MIRRORED) < set(TOPICS)


def test_followers_wait_for_another_process(registry: Registry, target: MlflowTarget, add_base: Any) -> None:
    add_base()
    rounds: list[mirroring.Mirrored] = []
    pauses: list[float] = []

    def wait(seconds: float) -> bool:
        pauses.extend([seconds] if seconds else [])
        if pauses and held.is_locked:
            held.release()
        return len(pauses) == 2

    mirror(registry, target, most=0)
    (place,) = (registry.folder / mirroring.PLACES).glob("*.lock")
    held = FileLock(place)
    with held:
        follow(registry, target, on_round=rounds.append, wait=wait)
    assert "another process mirrors to" in str(rounds[0].error)
    assert (rounds[1].error, rounds[1].position) == (None, registry.outbox_head())


def test_an_empty_address_is_no_mirror() -> None:
    for uri in ("", "  "):
        with pytest.raises(RegistryInputError, match="it is empty"):
            MlflowTarget(uri)


@pytest.mark.parametrize(
    ("uri", "word", "step"),
    [
        ("sqlite:///{tmp}/mistyped/path/mlflow.db", "no such folder", "make the folder"),
        ("sqlite:///mistyped/path/mlflow.db", "no such folder", "sqlite:////mistyped/path/mlflow.db"),
        ("sqlite+pysqlite:///{tmp}/mistyped/mlflow.db", "no such folder", "make the folder"),
        ("sqlite://", "in memory", ""),
        ("sqlite:///:memory:", "in memory", ""),
        ("sqlite:mlflow.db", "can't be a mirror", ""),
        ("file://{tmp}/mlruns", "is a folder", "MLFLOW_ALLOW_FILE_STORE"),
        ("{tmp}/mlruns", "is a folder", "sqlite:///mlflow.db"),
    ],
)
def test_an_address_that_leads_nowhere_is_refused_and_nothing_is_made(
    uri: str, word: str, step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    with pytest.raises(RegistryInputError, match=word) as refused:
        MlflowTarget(uri.format(tmp=tmp_path))
    assert step in (refused.value.next_step or "")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_taken_where_mlflow_takes_one_and_its_parent_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    assert MlflowTarget(f"file://{tmp_path}/a%20b").uri.endswith("a%20b")
    with pytest.raises(RegistryInputError, match="no such folder"):
        MlflowTarget(f"file://{tmp_path}/mistyped/mlruns")
    with pytest.raises(RegistryInputError, match="no such folder") as refused:
        MlflowTarget("mistyped/mlruns")
    assert refused.value.next_step == "check the path, or make the folder"


@pytest.mark.parametrize("uri", ["postgres://ann:hunter22@host/db", "mysql+nodriver://ann:hunter22@host/db"])
def test_what_can_be_no_mirror_is_refused_without_its_password(uri: str) -> None:
    pytest.importorskip("mlflow")
    with pytest.raises(RegistryInputError, match="can't be a mirror") as refused:
        MlflowTarget(uri).check()
    assert "hunter22" not in str(refused.value)
    assert refused.value.__cause__ is None
    MlflowTarget(CLOSED).check()  # it may come


def test_a_model_that_others_write_is_left_alone(
    registry: Registry, target: MlflowTarget, add_base: Callable[..., Any]
) -> None:
    client = target.client
    client.create_registered_model("tiny-base")
    client.create_model_version("tiny-base", "file:///somewhere")
    version = add_base()
    for _ in range(3):
        done = mirror(registry, target)
        assert "others write this model" in str(done.error)
    assert client.get_model_version("tiny-base", "1").source == "file:///somewhere"
    assert client.get_experiment_by_name("tunewright") is None  # no run, either
    assert client.create_model_version("tiny-base", "file:///more").version in (2, "2")  # no number was used up
    client.delete_registered_model("tiny-base")
    assert mirror(registry, target).error is None
    assert client.get_model_version("tiny-base", "1").tags["tunewright.digest"] == version.digest
    assert MirrorConflict.exit_status == 4


def test_tries_that_can_not_succeed_use_up_no_numbers(
    registry: Registry, target: MlflowTarget, add_adapter: Callable[..., Any], make_report: Any
) -> None:
    client = target.client
    first, second = add_adapter("a"), add_adapter("b")
    mirror(registry, target)

    def fails(words: str) -> None:
        before = state_of(target)
        for _ in range(3):
            assert words in str(mirror(registry, target).error)
        assert state_of(target) == before

    client.delete_model_version("text2sql", "2")  # the newest: MLflow would go on with 3
    registry.record_evaluation(second.digest, make_report())
    fails("has come to version 2 already")
    client.delete_registered_model("text2sql")  # of which MLflow would make a 1 now
    fails("can't become version 2")
    assert mirror(registry, target, from_start=True).error is None
    assert client.get_model_version("text2sql", "2").tags["tunewright.digest"] == second.digest
    client.delete_model_version("text2sql", "2")
    third = add_adapter("c")
    assert mirror(registry, target).error is None  # its number is the next one all the same
    assert client.get_model_version("text2sql", "3").tags["tunewright.digest"] == third.digest
    foreign = client.create_model_version("text2sql", "file:///somewhere")
    client.delete_model_version("text2sql", foreign.version)
    fourth = add_adapter("d")
    assert "came out as version 5" in str(mirror(registry, target).error)  # nothing shows what was deleted
    fails("has come to version 5 already")
    assert fourth.label == "text2sql:v4"
    assert client.get_model_version("text2sql", "1").tags["tunewright.digest"] == first.digest


def test_a_number_whose_noting_was_lost_is_noted_by_the_next_round(
    registry: Registry, target: MlflowTarget, add_adapter: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client = target.client
    add_adapter("a")
    mirror(registry, target)
    add_adapter("b")
    with monkeypatch.context() as patch:

        def lost(*_: Any) -> None:
            raise TimeoutError("no answer")

        patch.setattr(client, "set_registered_model_tag", lost)
        assert mirror(registry, target).error is not None
    assert client.get_registered_model("text2sql").tags["tunewright.highest"] == "1"
    assert mirror(registry, target, at=time.time() + 3600).error is None
    assert client.get_registered_model("text2sql").tags["tunewright.highest"] == "2"
    client.delete_model_version("text2sql", "2")
    third = add_adapter("c")
    assert mirror(registry, target).error is None
    assert client.get_model_version("text2sql", "3").tags["tunewright.digest"] == third.digest


def test_what_others_make_while_files_are_sent_uses_up_no_number(
    registry: Registry, target: MlflowTarget, add_base: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    client, send = target.client, target._run

    def meanwhile(*arguments: Any) -> Any:
        run = send(*arguments)
        client.create_registered_model("tiny-base")
        client.create_model_version("tiny-base", "file:///somewhere")
        return run

    add_base()
    monkeypatch.setattr(target, "_run", meanwhile)
    assert "others write this model" in str(mirror(registry, target).error)
    assert client.create_model_version("tiny-base", "file:///more").version in (2, "2")


def test_models_that_an_earlier_release_mirrored_go_on(
    registry: Registry, target: MlflowTarget, add_adapter: Callable[..., Any]
) -> None:
    add_adapter("a"), add_adapter("b")
    mirror(registry, target)
    target.client.delete_registered_model_tag("text2sql", "tunewright.highest")
    target.client.delete_model_version("text2sql", "2")
    third = add_adapter("c")
    assert mirror(registry, target).error is None
    assert target.client.get_model_version("text2sql", "3").tags["tunewright.digest"] == third.digest
    assert target.client.get_registered_model("text2sql").tags["tunewright.highest"] == "3"


def test_a_process_killed_after_any_write_leaves_a_mirror_that_comes_right(
    registry: Registry, target: MlflowTarget, add_base: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    add_base()
    writes = ["create_run", "log_batch", "log_artifacts", "set_tag", "set_terminated", "create_registered_model",
              "create_model_version", "set_model_version_tag", "set_registered_model_tag"]  # fmt: skip
    for name in writes:
        real = getattr(target.client, name)
        if name == "set_registered_model_tag":
            assert mirror(registry, target).position == 1
            add_base(content="other")

        def die(*arguments: Any, real: Any = real, **named: Any) -> None:
            real(*arguments, **named)
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(target.client, name, die)
            with pytest.raises(KeyboardInterrupt):
                mirror(registry, target)
    assert mirror(registry, target).position == 2
    held = state_of(target)
    assert [int(version[0]) for version in held["tiny-base"]["versions"]] == [1, 2]
    assert len(target.client.search_runs([target.client.get_experiment_by_name("tunewright").experiment_id])) == 2


def test_names_that_mlflow_takes_for_one_hold_nothing_up(
    registry: Registry, target: MlflowTarget, write_files: Any
) -> None:
    files = write_files("one")
    metadata = {"tactics": {"a/b": {"value": 1}, "a_b": {"value": 2}}, "memory": {"x/y": 1, "x:y": 2}}
    digests = {"data/x": "a" * 64, "data_x": "b" * 64}
    registry.register(
        "tiny",
        Manifest("base", describe_files(files), base_fingerprint="c" * 64, metadata=metadata, data_digests=digests),
        files,
    )
    done = mirror(registry, target)
    assert (done.error, done.position) == (None, done.head)
    run = target.client.get_run(target.client.get_model_version("tiny", "1").run_id)
    assert {key: value for key, value in run.data.params.items() if key.startswith("tactics/")} == {
        "tactics/a_b": "2",
        "tactics/a_b.c14cddc0": "1",
    }
    assert sorted(value for key, value in run.data.metrics.items() if key.startswith("memory/")) == [1, 2]
    assert {value for key, value in run.data.tags.items() if key.startswith("tunewright.data.")} == {"a" * 64, "b" * 64}


def test_what_a_killed_mirror_had_laid_out_is_removed(
    registry: Registry, target: MlflowTarget, add_base: Any, tmp_path: Path
) -> None:
    add_base()
    old, young = (registry.folder / f"{ASIDE}{name}" for name in ("old", "young"))
    for folder in (old, young):
        (folder / "model").mkdir(parents=True)
        (folder / "model" / "config.json").write_text("{}")
    week_ago = time.time() - mirroring.KEPT_SECONDS - 60
    os.utime(old, (week_ago, week_ago))
    mirror(registry, target)
    assert (old.exists(), young.exists()) == (False, True)


def test_names_and_figures_of_anybody() -> None:
    assert mirrored_name("team/model") == "team~model"
    odd = {"task": {"metric": "a/b\n../c", "tuned": 1, "base": True, "low": 10**400}, "tax": ["x", {"n": 3}, {}]}
    assert list(metrics_of(odd)) == [("task/a_b_.._c/tuned", 1.0), ("tax/suite/n", 3.0)]
    assert list(metrics_of({"task": 3, "tax": {"a": 1}})) == []


def test_a_uri_is_shown_without_its_secrets() -> None:
    uri = "postgresql://ann:p%40ssword@db.example:5432/mlflow?sslpassword=hunter22"
    assert without_secrets(uri) == "postgresql://db.example:5432/mlflow"
    said = redacted(f"no route to {uri}: p@ssword, p%40ssword and hunter22 are wrong", uri)
    assert not any(secret in said for secret in ("p@ssword", "p%40ssword", "hunter22"))
    assert without_secrets("https://token@mlflow.example/x") == "https://mlflow.example/x"
    assert without_secrets("sqlite:///a.db") == "sqlite:///a.db"
    for password in ("pa/ss", "pa#ss", "pa?ss", "p@ss/w@rd"):
        uri = f"postgresql://ann:{password}@db.example/mlflow?sslpassword=hunter22"
        assert without_secrets(uri) == "postgresql://db.example/mlflow"
        assert not any(secret in redacted(f"no: {password}, hunter22", uri) for secret in (password, "hunter22"))
    assert without_secrets("sqlite:////home/ann@work/mlflow.db") == "sqlite:////home/ann@work/mlflow.db"
    assert "scheme" in without_secrets("ann:hunter22@host")


def test_the_command(
    registry: Registry,
    target: MlflowTarget,
    add_base: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        home = str(registry.folder.parent)
        monkeypatch.setattr(sys, "argv", ["tunewright", "registry", "mirror", *arguments, "--home", home])
        status = 0
        try:
            cli.main()
        except SystemExit as stop:
            status = int(stop.code or 0)
        return status, capsys.readouterr().out

    add_base()
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    status, out = run("--to", target.uri, "--json")
    assert (status, json.loads(out)["told"], json.loads(out)["head"]) == (0, 1, 1)
    assert run("--to", target.uri)[1].startswith("0 rows pushed to sqlite:///")
    status, out = run("--to", CLOSED, "--json")
    assert (status, json.loads(out)["position"]) == (3, 0)
    assert "hunter22" not in out
