"""Bringing data into the workspace with a real DVC: cache, remote, stages, and what was edited by hand."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from components.errors import InputError, TunewrightError
from components.files import sha256_file
from flows import data_version, dvc_workspace
from flows.data_version import can_be_brought, materialise

STAGE = """
stages:
  make:
    cmd: python make.py
    deps: [make.py]
    params: [rows]
    outs: [data/other.jsonl, data/rows.jsonl]
"""
MAKE = """
import pathlib, yaml
folder = pathlib.Path("data")
folder.mkdir(exist_ok=True)
count = yaml.safe_load(open("params.yaml"))["rows"]
(folder / "rows.jsonl").write_text("".join('{"i": %d}\\n' % i for i in range(count)))
(folder / "other.jsonl").write_text('{"other": 1}\\n')
"""
CONFIG = """[core]
    analytics = false
    remote = local
['remote "local"']
    url = ../.tunewright/dvc-remote
"""


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository whose data were made once: dvc.lock, cache and remote are filled."""
    folder = tmp_path_factory.mktemp("template") / "repo"
    (folder / ".dvc").mkdir(parents=True)
    (folder / ".dvc/config").write_text(CONFIG)
    (folder / ".gitignore").write_text("/data\n/.tunewright\n/.dvc/tmp\n/.dvc/cache\n")
    (folder / "dvc.yaml").write_text(STAGE)
    (folder / "make.py").write_text(MAKE)
    (folder / "params.yaml").write_text("rows: 3\n")
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TUNEWRIGHT_HOME", str(folder / ".tunewright"))
        first = materialise(folder)
    assert first.source == "repro"
    assert first.pushed == 2
    return folder


@pytest.fixture
def repo(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repo"
    shutil.copytree(template, folder)
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(folder / ".tunewright"))
    return folder


def dvc_must_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_repo: Path, *arguments: str) -> None:
        raise AssertionError(f"dvc {arguments} was run")

    monkeypatch.setattr(data_version, "run_dvc", refuse)


def test_with_nothing_to_do_dvc_is_not_started(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dvc_must_not_run(monkeypatch)
    started = time.monotonic()
    found = materialise(repo)
    assert time.monotonic() - started < 2
    assert (found.source, found.pushed, found.stale, found.modified) == ("workspace", 0, (), False)
    assert [(f.path, f.rows) for f in found.files] == [("data/other.jsonl", 1), ("data/rows.jsonl", 3)]
    assert found.files[1].sha256 == sha256_file(repo / "data/rows.jsonl")
    assert found.files[1].md5 in (repo / "dvc.lock").read_text()


@pytest.mark.parametrize(
    ("gone", "source"),
    [([], "cache"), ([".dvc/cache"], "remote"), ([".dvc/cache", ".tunewright"], "repro")],
)
def test_missing_files_come_from_the_nearest_place(repo: Path, gone: list[str], source: str) -> None:
    before, locked = sha256_file(repo / "data/rows.jsonl"), (repo / "dvc.lock").read_bytes()
    for name in ["data", *gone]:
        shutil.rmtree(repo / name)
    found = materialise(repo)
    assert found.source == source
    assert sha256_file(repo / "data/rows.jsonl") == before
    assert (repo / "dvc.lock").read_bytes() == locked
    assert found.pushed == (2 if source == "repro" else 0)
    assert not found.modified


@pytest.mark.parametrize("gone", [[], [".dvc/cache", ".tunewright"]])
def test_the_data_of_other_recipes_are_not_brought(repo: Path, gone: list[str]) -> None:
    apart = "  apart:\n    cmd: echo 1 > data/apart.jsonl\n    outs: [data/apart.jsonl]\n"
    copied = "    cmd: cp data/rows.jsonl data/after.jsonl\n    deps: [data/rows.jsonl]\n    outs: [data/after.jsonl]\n"
    after = f"  after:\n{copied}"
    (repo / "dvc.yaml").write_text(STAGE + apart + after)
    dvc_workspace.run_dvc(repo, "repro")
    for name in ["data", *gone]:
        shutil.rmtree(repo / name)
    materialise(repo, [Path("data/after.jsonl")])
    assert sorted(path.name for path in (repo / "data").glob("*.jsonl")) == ["after.jsonl", "other.jsonl", "rows.jsonl"]


def test_a_remote_that_can_not_be_reached_is_told_and_the_data_are_made_anew(repo: Path) -> None:
    config = repo / ".dvc/config"
    config.write_text(config.read_text().replace("../.tunewright/dvc-remote", "http://127.0.0.1:9/nothing"))
    for name in ("data", ".dvc/cache", ".tunewright"):
        shutil.rmtree(repo / name)
    said: list[str] = []
    found = materialise(repo, say=said.append)
    assert (found.source, found.pushed, found.modified) == ("repro", 0, False)
    assert any("pull" in line and "making the data anew" in line for line in said)


def test_a_file_edited_by_hand_is_used_and_reported(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dvc_must_not_run(monkeypatch)
    with (repo / "data/rows.jsonl").open("a") as stream:
        stream.write('{"i": 99}\n')
    said: list[str] = []
    found = materialise(repo, say=said.append)
    assert found.modified
    assert [(f.path, f.modified, f.rows) for f in found.files] == [
        ("data/other.jsonl", False, 1),
        ("data/rows.jsonl", True, 4),
    ]
    assert found.files[1].sha256 == sha256_file(repo / "data/rows.jsonl")
    assert any("data/rows.jsonl differs from dvc.lock" in line for line in said)


def test_an_earlier_output_is_brought_up_to_date_with_dvc_lock(repo: Path) -> None:
    old_data, old_lock = (repo / "data/rows.jsonl").read_bytes(), (repo / "dvc.lock").read_bytes()
    (repo / "params.yaml").write_text("rows: 5\n")
    shutil.rmtree(repo / "data")
    for name in (".dvc/cache", ".tunewright/dvc-remote"):
        shutil.rmtree(repo / name)
    assert materialise(repo).source == "repro"  # the parameter changed, so other bytes are expected
    assert (repo / "dvc.lock").read_bytes() != old_lock
    newest = (repo / "data/rows.jsonl").read_bytes()
    # the workspace goes back to rows that DVC holds, as after a pull of a newer dvc.lock
    digest = dvc_workspace.md5_of(repo / "data/rows.jsonl")
    (repo / "data/rows.jsonl").write_bytes(old_data)
    stored = dvc_workspace.stored(repo / ".dvc/cache", dvc_workspace.md5_of(repo / "data/rows.jsonl"))
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_bytes(old_data)
    found = materialise(repo)
    assert (repo / "data/rows.jsonl").read_bytes() == newest
    assert (found.source, found.modified, found.files[1].md5) == ("cache", False, digest)


def test_changed_parameters_and_code_are_named_and_nothing_is_made_anew(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dvc_must_not_run(monkeypatch)
    (repo / "params.yaml").write_text("rows: 4\n")
    with (repo / "make.py").open("a") as stream:
        stream.write("# changed\n")
    assert materialise(repo).stale == ("make.py changed", "`rows` in params.yaml changed")


def test_a_hand_edit_is_never_overwritten_by_the_stages(repo: Path) -> None:
    for name in (".dvc/cache", ".tunewright/dvc-remote"):
        shutil.rmtree(repo / name)
    (repo / "data/other.jsonl").unlink()
    (repo / "data/rows.jsonl").write_text('{"mine": 1}\n')
    with pytest.raises(InputError, match=r"would overwrite data/rows\.jsonl"):
        materialise(repo)
    assert (repo / "data/rows.jsonl").read_text() == '{"mine": 1}\n'


def test_stages_that_no_longer_make_the_same_bytes_are_an_error(repo: Path) -> None:
    lock = repo / "dvc.lock"
    digest = next(f.md5 for f in materialise(repo).files if f.path == "data/rows.jsonl")
    lock.write_text(lock.read_text().replace(str(digest), "ab" * 16))
    for name in ("data", ".dvc/cache", ".tunewright/dvc-remote"):
        shutil.rmtree(repo / name)
    with pytest.raises(TunewrightError, match=r"made other bytes for data/rows\.jsonl"):
        materialise(repo)


def test_a_failing_stage_is_reported_with_what_dvc_said(repo: Path) -> None:
    for name in ("data", ".dvc/cache", ".tunewright/dvc-remote"):
        shutil.rmtree(repo / name)
    (repo / "make.py").write_text("raise SystemExit('no network')\n")
    with pytest.raises(TunewrightError, match="`dvc repro make` failed") as caught:
        materialise(repo)
    assert caught.value.exit_status == 1


def test_files_that_no_stage_makes_are_digested_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "state"))
    (tmp_path / "mine.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    found = materialise(tmp_path, [Path("mine.jsonl"), tmp_path / "mine.jsonl"])
    assert [(f.path, f.md5, f.rows, f.modified) for f in found.files] == [("mine.jsonl", None, 2, False)]
    with pytest.raises(InputError, match=r"no data file absent\.jsonl"):
        materialise(tmp_path, [Path("absent.jsonl")])


def test_user_settings_of_dvc_do_not_matter(repo: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = tmp_path / "config/dvc"
    settings.mkdir(parents=True)
    (settings / "config").write_text("[core]\n    remote = elsewhere\n[cache]\n    dir = /nonexistent\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(settings))
    shutil.rmtree(repo / "data")
    assert materialise(repo).source == "cache"


def test_locks_of_killed_dvc_processes_do_not_block(repo: Path) -> None:
    killed = subprocess.Popen(["sleep", "60"])
    killed.kill()
    time.sleep(0.2)  # killed but not waited for: a zombie, which DVC takes for a living process
    holder = {"pid": killed.pid, "cmd": "dvc repro"}
    rows = str(repo / "data/rows.jsonl")
    lock = repo / ".dvc/tmp/rwlock"
    lock.write_text(json.dumps({rows: {"write": holder}, str(repo / "make.py"): {"read": [holder]}}))
    shutil.rmtree(repo / "data")
    shutil.rmtree(repo / ".dvc/cache")
    shutil.rmtree(repo / ".tunewright")
    assert materialise(repo).source == "repro"
    killed.wait()


def test_locks_of_living_dvc_processes_are_kept(repo: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as living:
        held = {"data/rows.jsonl": {"write": {"pid": living.pid, "cmd": "dvc repro"}}}
        (repo / ".dvc/tmp/rwlock").write_text(json.dumps(held))
        dvc_workspace.forget_dead_locks(repo)
        assert json.loads((repo / ".dvc/tmp/rwlock").read_text()) == held
        living.kill()


def test_an_unreadable_lock_file_is_an_input_error(repo: Path) -> None:
    (repo / "dvc.lock").write_text("stages: [\n")
    with pytest.raises(InputError, match="can't be read"):
        materialise(repo)


def test_the_committed_lock_file_belongs_to_the_committed_code_and_parameters() -> None:
    root = Path(__file__).parents[2]
    assert list(dvc_workspace.stale_reasons(root)) == [], "run `dvc repro` and commit dvc.lock"


def test_a_missing_file_can_only_come_from_a_stage_that_makes_it(tmp_path: Path) -> None:
    assert not can_be_brought(tmp_path, Path("data/rows.jsonl"))
    (tmp_path / "dvc.yaml").write_text(STAGE)
    # before the first `dvc repro` nothing says what the stages make
    assert can_be_brought(tmp_path, Path("data/absent.jsonl"))
    outs = [{"path": "data/rows.jsonl", "md5": "0" * 32}]
    (tmp_path / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": {"make": {"outs": outs}}}))
    assert can_be_brought(tmp_path, Path("data/rows.jsonl"))
    assert can_be_brought(tmp_path, tmp_path / "data" / "rows.jsonl")
    assert not can_be_brought(tmp_path, Path("data/absent.jsonl"))
