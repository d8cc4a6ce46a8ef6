"""`tunewright data generate`: a model's answers in the place of people's, ready to be trained on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from components.data.chat import prompt_ids
from components.data.generated import generate_rows, read_prompts
from components.data.rows import Message, Row, read_rows
from components.evaluation.generation import generate_ids
from components.finetuning.finetune import finetune
from components.finetuning.full import FullSettings
from components.models.adapters import save_adapter
from components.models.fingerprint import base_files, fingerprint, write_binding
from components.models.load import load_model, load_tokenizer
from components.models.tiny import make_tiny
from flows.commands.given_model import given_model
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry
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
    by = {"name": teacher.name, "digest": fingerprint(teacher).base}
    assert json.loads(said) == {"rows": 6, "left_out": [], "by": by, "out": str(out)}
    written = read_rows(out)
    assert [row.prompt for row in written] == [row.prompt for row in rows(6)]
    assert all(row.metadata == {"subset": "single-table", "generated_by": by} for row in written)
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
    ("said", "reason"),
    [
        ("  <|im_end|>", "an empty answer"),
        ("<|im_end|>", "an empty answer"),
        # decoded without its special tokens it would read as an answer
        ("SELECT 1<|im_start|>SELECT 1<|im_end|>", "a special token in the answer"),
        ("SELECT 1<|im_end|>", None),
        ("SELECT 1", "no end within 8 tokens"),
    ],
)
def test_answers_that_are_no_rows_are_left_out(
    teacher: Path, monkeypatch: pytest.MonkeyPatch, said: str, reason: str | None
) -> None:
    from components.evaluation import generation

    tokenizer = load_tokenizer(teacher)
    given = [Row((Message("user", "q"), Message("assistant", "a")), {}, line) for line in (4, 9)]
    answers = [(tokenizer(text, add_special_tokens=False)["input_ids"], 0.0) for text in (said, " yes <|im_end|>")]
    monkeypatch.setattr(generation, "generate_ids", lambda *_, **__: answers)
    found = generate_rows(load_model(teacher), tokenizer, given, {"name": "t"}, max_new_tokens=8)
    kept = [] if reason is not None else [(4, "SELECT 1")]
    assert [(row.line, row.answer) for row in found.rows] == [*kept, (9, "yes")]
    assert found.left_out == ([] if reason is None else [(4, reason)])


def test_a_special_token_that_an_answer_spells_out_is_left_out(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from components.evaluation import generation

    tokenizer = load_tokenizer(teacher)
    # letter by letter, as a model may say it
    (stop,) = tokenizer("<|im_end|>", add_special_tokens=False)["input_ids"]
    ids = [token for letter in "<|im_start|>" for token in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    monkeypatch.setattr(generation, "generate_ids", lambda *_, **__: [([*ids, stop], 0.0)])
    given = [Row((Message("user", "q"), Message("assistant", "a")), {}, 4)]
    found = generate_rows(load_model(teacher), tokenizer, given, {"name": "t"}, max_new_tokens=64)
    assert found.left_out == [(4, "a special token spelt out in the answer")]


def test_what_came_to_lie_at_the_name_stays_and_so_do_the_answers(
    teacher: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from components.evaluation import generation

    out, plain = tmp_path / "out" / "new.jsonl", generation.generate_ids
    out.parent.mkdir()

    def generate_while_another_writes(*arguments: Any, **options: Any) -> Any:
        out.write_text("mine")
        return plain(*arguments, **options)

    monkeypatch.setattr(generation, "generate_ids", generate_while_another_writes)
    status, _, err = call_command(
        monkeypatch, capsys, "data", "generate", str(prompts), "--by", str(teacher), "--out", str(out),
        "--max-new-tokens", "24",
    )  # fmt: skip
    assert (status, out.read_text()) == (4, "mine"), err
    (aside,) = set(out.parent.iterdir()) - {out}
    assert f"what was to be written is in {aside}" in err
    assert len(read_rows(aside)) == 6


@pytest.fixture(scope="module")
def registered(teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose registry has the teacher as `taught`, and beside it an adapter that changes nothing and a head."""
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("registered")
    adapter, head = folder / "adapter", folder / "head"
    save_adapter(get_peft_model(load_model(teacher), LoraConfig(r=2, target_modules=["q_proj"])), adapter)
    head.mkdir()
    (head / "head.json").write_text("{}")
    save_file({"w": torch.zeros(1)}, head / "head.safetensors")
    prints = fingerprint(teacher)
    common: dict[str, Any] = {
        "base_fingerprint": prints.base,
        "tokenizer_digest": prints.tokenizer,
        "template_digest": prints.template,
    }
    with Registry.open(folder / "state" / "registry") as registry:
        files = base_files(teacher)
        found = registry.register("taught", Manifest("base", describe_files(files), **common), files)
        for path in (adapter, head):
            write_binding(path, prints)
            files = {one.name: one for one in path.iterdir()}
            manifest = Manifest(path.name, describe_files(files), parents=(Parent(found.digest, "base"),), **common)
            registry.register(path.name, manifest, files)
    return folder / "state"


@pytest.mark.parametrize("name", ["taught", "adapter"])
def test_a_registered_version_answers_and_is_named_by_its_digest(
    registered: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], name: str,
) -> None:  # fmt: skip
    out = tmp_path / "new.jsonl"
    status, said, err = call_command(
        monkeypatch, capsys, "data", "generate", str(prompts), "--by", f"{name}:v1", "--out", str(out),
        "--max-new-tokens", "24", "--home", str(registered),
    )  # fmt: skip
    assert status == 0, err
    assert f"6 rows answered by {name}:v1 in {out}" in said
    with Registry.open(registered / "registry") as registry:
        by = {"name": f"{name}:v1", "digest": registry.resolve(f"{name}:v1").digest}
    assert all(row.metadata["generated_by"] == by and row.answer.startswith("SELECT") for row in read_rows(out))


def test_a_head_writes_no_answers(
    registered: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr("components.models.load._load_base", lambda *_, **__: pytest.fail("a model was loaded"))
    status, _, err = call_command(
        monkeypatch, capsys, "data", "generate", str(prompts), "--by", "head:v1", "--out", str(tmp_path / "new.jsonl"),
        "--home", str(registered),
    )  # fmt: skip
    assert (status, "head:v1 is a head, which answers labels or numbers, and a text is wanted" in err) == (2, True), err
    assert "reach" not in err


def test_a_folder_is_named_wherever_it_is_called_from(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(teacher)
    assert given_model(".", None).name == teacher.name


QUESTION = '{"messages": [{"role": "user", "content": "q"}]}'


def saying(content: str, role: str = "user", **metadata: str) -> str:
    return json.dumps({"messages": [{"role": role, "content": content}], "metadata": metadata})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (saying("q " * 2000), "line 2: the prompt has "),
        (saying("<|im_start|>"), "line 2: the content of message 1 holds <|im_start|>"),
        (saying("s", role="system"), "line 2: there is no user message"),
        (saying("a", role="assistant"), "line 2: there is no user message"),
        (saying("q", generated_by="me"), "line 2: metadata.generated_by is there"),
        ('{"messages": [{"role": "user", "content": 1}]}', "line 2: the content of message 1 must be text"),
    ],
)
def test_a_prompt_that_cant_be_answered_is_told_by_its_line_before_the_model_is_loaded(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str,
    problem: str,
) -> None:  # fmt: skip
    monkeypatch.setattr("components.models.load._load_base", lambda *_, **__: pytest.fail("a model was loaded"))
    path = tmp_path / "prompts.jsonl"
    path.write_text(f"{QUESTION}\n{line}\n")
    status, _, err = call_command(
        monkeypatch, capsys, "data", "generate", str(path), "--by", str(teacher), "--out", str(tmp_path / "new.jsonl")
    )
    assert (status, f"{path}, {problem}" in err) == (2, True), err


def test_answers_that_a_file_has_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": ""}]
    path.write_text(f"{QUESTION}\n{json.dumps({'messages': turns})}\n")
    assert [(row.prompt, row.answer) for row in read_prompts(path)] == [((Message("user", "q"),), "")] * 2


@pytest.mark.parametrize(
    ("content", "changes", "status", "problem"),
    [
        ("", {}, 2, "has no rows"),
        (QUESTION, {"--dtype": "int3"}, 2, "unknown dtype"),
        (QUESTION, {"--by": "no-such-base"}, 2, "no-such-base"),
        (QUESTION, {"--out": "/proc/x/new.jsonl"}, 2, "cannot write"),
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
