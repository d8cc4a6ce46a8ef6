"""`tunewright data generate`: a model's answers in the place of people's, ready to be trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.data.chat import prompt_ids
from components.data.generated import generate_rows
from components.data.rows import Message, Row, read_rows
from components.evaluation.generation import generate_ids
from components.finetuning.finetune import finetune
from components.finetuning.full import FullSettings
from components.models.load import load_model, load_tokenizer
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings
from tests.flows.conftest import call_command


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that answers each question with one of three queries, and stops."""
    folder = tmp_path_factory.mktemp("teacher")
    chosen = settings(
        method="full", attachment=FullSettings(), learning_rate=3e-3, epochs=20.0, schedule="constant",
        rows_per_sequence=1,
    )  # fmt: skip
    return finetune(make_tiny(folder / "base"), rows(), [], chosen, run_folder=folder / "run", identity={}).weights


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    given = [row.to_dict() for row in rows(6)]
    # the last answer may be missing
    del given[1]["messages"][-1]
    path.write_text("".join(json.dumps(row) + "\n" for row in given))
    return path


def test_rows_are_those_of_the_file_with_the_models_own_answers(
    teacher: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new.jsonl"
    call = ("data", "generate", str(prompts), "--by", str(teacher), "--out", str(out), "--max-new-tokens", "24")
    status, said, err = call_command(monkeypatch, capsys, *call, "--json")
    assert status == 0, err
    assert json.loads(said) == {"rows": 6, "left_out": [], "by": teacher.name, "out": str(out)}
    written = read_rows(out)
    assert [row.prompt for row in written] == [row.prompt for row in rows(6)]
    assert all(row.metadata == {"subset": "single-table", "generated_by": teacher.name} for row in written)
    model, tokenizer = load_model(teacher), load_tokenizer(teacher)
    (stop,) = tokenizer("<|im_end|>", add_special_tokens=False)["input_ids"]
    for row in written:
        ((ids, _),) = generate_ids(
            model, [prompt_ids(tokenizer, row.prompt)], max_new_tokens=24, stops=frozenset({stop})
        )  # fmt: skip
        assert row.answer == tokenizer.decode(ids, skip_special_tokens=True).strip()
    # nothing is written over
    assert call_command(monkeypatch, capsys, *call)[0] == 4
    assert read_rows(out) == written
    # and a student learns from them as from any others
    chosen = settings(method="full", attachment=FullSettings(), learning_rate=2e-3, epochs=2.0)
    student = make_tiny(tmp_path / "student", seed=3)
    result = finetune(student, written, [], chosen, run_folder=tmp_path / "run", identity={})
    assert result.losses[-1]["loss"] < result.losses[0]["loss"] - 0.1


def test_answers_without_an_end_are_left_out_and_none_at_all_is_a_verdict(
    teacher: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new.jsonl"
    status, said, err = call_command(
        monkeypatch, capsys, "data", "generate", str(prompts), "--by", str(teacher), "--out", str(out),
        "--max-new-tokens", "3",
    )  # fmt: skip
    assert (status, out.exists()) == (3, False)
    assert "none of 6 answers can be used: no end within 3 tokens" in err
    assert "line 5 left out: no end within 3 tokens\nand 1 more" in said


@pytest.mark.parametrize(
    ("text", "reason"), [("  ", "an empty answer"), ("a <|im_start|>b", "a special token spelt out")]
)
def test_answers_that_are_no_rows_are_left_out(
    teacher: Path, monkeypatch: pytest.MonkeyPatch, text: str, reason: str
) -> None:
    from components.evaluation import generation

    given = [Row((Message("user", "q"), Message("assistant", "a")), {}, line) for line in (4, 9)]
    answers = [generation.Completion(text, 3, 2, 0.0), generation.Completion(" yes ", 3, 2, 0.0)]
    monkeypatch.setattr(generation, "generate", lambda *_, **__: answers)
    found = generate_rows(None, load_tokenizer(teacher), given, "t", max_new_tokens=8)
    assert [(row.line, row.answer) for row in found.rows] == [(9, "yes")]
    ((line, why),) = found.left_out
    assert (line, why.startswith(reason)) == (4, True)


@pytest.mark.parametrize(
    ("content", "changes", "status", "problem"),
    [
        ("", {}, 2, "has no rows"),
        ('{"messages": [{"role": "system", "content": "s"}]}', {}, 2, "line 1: "),
        ('{"messages": [{"role": "user", "content": "q"}]}', {"--dtype": "int3"}, 2, "unknown dtype"),
        ('{"messages": [{"role": "user", "content": "q"}]}', {"--by": "no-such-base"}, 2, "no-such-base"),
        ('{"messages": [{"role": "user", "content": "q"}]}', {"--out": "/proc/x/new.jsonl"}, 2, "cannot write"),
    ],
)
def test_bad_input_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str,
    changes: dict[str, Any], status: int, problem: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("components.models.load.load_as_served", lambda *_, **__: pytest.fail("a model was loaded"))
    path = tmp_path / "prompts.jsonl"
    path.write_text(content)
    options = {"--by": "smollm2-135m-instruct", "--out": str(tmp_path / "new.jsonl"), **changes}
    call = [part for option in options.items() for part in option]
    found, _, err = call_command(monkeypatch, capsys, "data", "generate", str(path), *call)
    assert (found, problem in err) == (status, True), err
