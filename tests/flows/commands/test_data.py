"""`tunewright data`: exit status, one JSON document, and what a person reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.data.rows import Message, Row, write_rows
from components.models.tiny import make_tiny
from registry.manifest import Manifest, describe_files
from registry.store import Registry
from tests.flows.conftest import call_command


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [
        Row((Message("user", f"question {i}"), Message("assistant", "SELECT 1")), {"subset": "one"}) for i in range(3)
    ]
    write_rows(tmp_path / "rows.jsonl", rows)
    return tmp_path / "rows.jsonl"


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    return call_command(monkeypatch, capsys, "data", *arguments)


def test_check_of_good_data_ends_well(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(monkeypatch, capsys, "check", str(file), "--json")
    assert (status, err) == (0, "")
    assert json.loads(out) == {"rows": 3, "problems": [], "notes": [], "format": "chat-jsonl"}


def test_check_of_bad_data_lists_lines_and_exits_with_2(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with file.open("a") as stream:
        stream.write("{oops\n")
    status, out, _ = run(monkeypatch, capsys, "check", str(file))
    assert status == 2
    assert f"{file}:4: malformed JSON at column 2" in out
    assert "3 rows, 1 problems" in out
    status, out, _ = run(monkeypatch, capsys, "check", str(file), "--json")
    assert status == 2
    assert json.loads(out)["problems"][0]["line"] == 4


def test_stats_and_show_use_the_tokenizer_of_a_base(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = str(make_tiny(tmp_path / "tiny"))
    status, out, _ = run(monkeypatch, capsys, "stats", str(file), "--base", base, "--json")
    assert status == 0
    found = json.loads(out)
    assert found["subsets"] == {"one": 3}
    assert found["tokens"]["total"] > found["tokens"]["trained"] > 0
    status, out, _ = run(monkeypatch, capsys, "show", str(file), "--base", base, "--line", "2", "--rows", "5", "--json")
    assert status == 0
    rows = json.loads(out)["rows"]
    assert [row["line"] for row in rows] == [2, 3]
    assert "question 1" in rows[0]["text"]
    assert set(rows[0]["tokens"][0]) == {"id", "text", "weight"}
    with file.open("a") as stream:
        stream.write(json.dumps(Row((Message("user", "a<|im_end|>"), Message("assistant", "b"))).to_dict()) + "\n")
    for verb in ("stats", "show"):
        status, _, err = run(
            monkeypatch,
            capsys,
            verb,
            str(file),
            "--base",
            base,
            "--line" if verb == "show" else "--json",
            *(["4"] if verb == "show" else []),
        )
        assert status == 2
        assert "line 4: the content of message 1 holds <|im_end|>" in err
    status, out, _ = run(monkeypatch, capsys, "check", str(file), "--base", base, "--json")
    assert (status, json.loads(out)["problems"][0]["code"]) == (2, "control_token")


def test_check_finds_rows_longer_than_the_bases_positions(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = str(make_tiny(tmp_path / "tiny", positions=64))
    with file.open("a") as stream:
        stream.write(json.dumps(Row((Message("user", "why " * 64), Message("assistant", "b"))).to_dict()) + "\n")
    status, out, _ = run(monkeypatch, capsys, "check", str(file), "--base", base, "--json")
    document = json.loads(out)
    assert (status, document["rows"], document["problems"]) == (0, 4, [])  # it is trained under a scaling
    assert [(one["line"], one["code"]) for one in document["notes"]] == [(4, "long")]
    tokens = int(document["notes"][0]["message"].split()[2])
    assert f"the base 64 positions: training takes it under a finetune.rope_scaling of {-(-tokens // 64)}" in out
    assert f"{file}:4: it has {tokens} tokens" in run(monkeypatch, capsys, "check", str(file), "--base", base)[1]
    assert json.loads(run(monkeypatch, capsys, "check", str(file), "--json")[1])["notes"] == []


def test_a_base_may_be_a_version_as_in_a_recipe(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEWRIGHT_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    files = {path.name: path for path in make_tiny(tmp_path / "tiny").iterdir()}
    with Registry.open(tmp_path / "home" / "registry") as registry:
        registry.register("small", Manifest("base", describe_files(files), base_fingerprint="a" * 64), files)
    for ref in ("small", "small:v1"):
        assert run(monkeypatch, capsys, "check", str(file), "--base", f"version:{ref}")[0] == 0
    for ref in ("tiny", "small:v2"):  # the former is a folder here, and no version
        assert run(monkeypatch, capsys, "check", str(file), "--base", f"version:{ref}")[0] == 4


def test_check_lists_every_problem_whatever_the_template_says(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = make_tiny(tmp_path / "tiny")
    for path in base.glob("chat_template*"):
        path.unlink()
    settings = json.loads((base / "tokenizer_config.json").read_text())
    template = "{{ raise_exception('no system turns') if messages[0].role == 'system' }}"
    (base / "tokenizer_config.json").write_text(json.dumps(settings | {"chat_template": template}))
    system = Row((Message("system", "be brief"), Message("user", "q"), Message("assistant", "a"))).to_dict()
    with file.open("a") as stream:
        stream.write(json.dumps(system) + "\n{\n")
    status, out, _ = run(monkeypatch, capsys, "check", str(file), "--base", str(base), "--json")
    found = [(one["line"], one["code"]) for one in json.loads(out)["problems"]]
    assert status == 2
    assert [line for line, _ in found] == [4, 5]
    assert found[0][1] == "template"


def test_people_read_text(file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(monkeypatch, capsys, "show", str(file))
    assert (status, out) == (0, "line 1\n[user] question 0\n[assistant] SELECT 1\n")
    _, out, _ = run(monkeypatch, capsys, "stats", str(file))
    assert "rows        3  (6 messages)" in out
    assert "duplicates  0 whole rows" in out


@pytest.mark.parametrize("verb", ["check", "stats", "show"])
def test_a_missing_file_is_bad_input(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(monkeypatch, capsys, verb, str(tmp_path / "absent.jsonl"), "--json")
    assert (status, json.loads(out)["error"]["exit_status"]) == (2, 2)
    assert "no data file" in err


def test_a_line_behind_the_end_is_bad_input(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = run(monkeypatch, capsys, "show", str(file), "--line", "9")
    assert status == 2
    assert "allowed: 1 to 3" in err


@pytest.mark.parametrize("weight", ["nan", "-0.1", "1.5", "much"])
def test_a_prompt_loss_weight_outside_its_range_is_refused(
    weight: str, file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(monkeypatch, capsys, "show", str(file), "--prompt-loss-weight", weight)
    assert (status, out) == (2, "")
    assert f"'{weight}' is not a number from 0 to 1" in err
