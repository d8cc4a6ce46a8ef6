from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from components.errors import InputError
from components.evaluation import suites
from components.evaluation.likelihood import score_choices
from components.evaluation.suite_data import SUITES
from components.evaluation.suites import FORMATS, Suite, SuiteItem, known_suites, load_suite, run_suite
from components.files import sha256_file


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that already holds a suite of 40 items, so that nothing is fetched."""
    folder = tmp_path / "suites"
    folder.mkdir()
    stem = f"piqa-v{SUITES['piqa'].version}"
    items = [
        {"id": f"piqa-{number:05d}", "question": f"question {number}", "choices": ["yes", "no"], "answer": number % 2}
        for number in range(40)
    ]
    path = folder / f"{stem}.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in items))
    record = {"version": 1, "digest": sha256_file(path), "metric": "accuracy", "licence": "AFL-3.0"}
    (folder / f"{stem}.json").write_text(json.dumps(record))
    return tmp_path


def test_sample_is_seeded_and_its_digest_names_the_items(cache: Path) -> None:
    one, again = load_suite("piqa", 10, 3, cache=cache), load_suite("piqa", 10, 3, cache=cache)
    assert one == again
    assert (len(one.items), one.available, one.metric, one.licence) == (10, 40, "accuracy", "AFL-3.0")
    others = [
        load_suite("piqa", 10, 4, cache=cache),
        load_suite("piqa", 11, 3, cache=cache),
        load_suite("piqa", 10, 3, cache=cache, prompt_format="chat-1"),
    ]
    assert len({one.digest, *(other.digest for other in others)}) == 4


def test_sample_larger_than_the_suite_is_the_suite(cache: Path) -> None:
    whole = load_suite("piqa", 1000, 0, cache=cache)
    assert len(whole.items) == 40
    assert whole.digest == load_suite("piqa", 40, 9, cache=cache).digest, "the same items whatever the seed"


def test_changed_item_changes_the_digest(cache: Path) -> None:
    before = load_suite("piqa", 40, cache=cache).digest
    path = next((cache / "suites").glob("*.jsonl"))
    path.write_text(path.read_text().replace("question 7", "another 7"))
    record = path.with_suffix(".json")
    record.write_text(json.dumps(json.loads(record.read_text()) | {"digest": sha256_file(path)}))
    assert load_suite("piqa", 40, cache=cache).digest != before


@pytest.mark.parametrize(
    ("name", "rows", "prompt_format", "problem"),
    [
        ("hellaswag", 5, "plain-1", "unknown suite 'hellaswag'"),
        ("piqa", 0, "plain-1", "0 rows"),
        ("piqa", 5, "x", "'x'"),
    ],
)
def test_unknown_suite_size_or_format_is_refused(
    cache: Path, name: str, rows: int, prompt_format: str, problem: str
) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        load_suite(name, rows, cache=cache, prompt_format=prompt_format)
    assert caught.value.exit_status == 2
    if "suite '" in problem:
        assert caught.value.allowed == ", ".join(known_suites())


@pytest.mark.parametrize("prompt_format", FORMATS)
def test_result_counts_the_items_whose_gold_choice_is_likeliest(
    tiny_model: Any, tiny_tokenizer: Any, cache: Path, prompt_format: str
) -> None:
    suite = load_suite("piqa", 12, cache=cache, prompt_format=prompt_format)
    found = run_suite(tiny_model, tiny_tokenizer, suite)
    asked = [suites._asked(tiny_tokenizer, item, prompt_format) for item in suite.items]
    best = score_choices(tiny_model, tiny_tokenizer, asked, batch_size=1)
    assert found.correct == tuple(choice == item.gold for choice, item in zip(best, suite.items, strict=True))
    assert 0 < sum(found.correct) < 12, "both outcomes occur"
    assert found.score == sum(found.correct) / 12
    assert found.low < found.score < found.high
    assert found.to_dict()["n"] == 12


def test_both_formats_put_the_choice_right_behind_the_prompt(tiny_tokenizer: Any) -> None:
    item = SuiteItem("x", "Is it?", ("yes", "no"), 0)
    plain, chat = (suites._asked(tiny_tokenizer, item, name) for name in FORMATS)
    assert plain.prompt + plain.choices[0] == "Question: Is it?\nAnswer: yes"
    assert (chat.prompt + chat.choices[0]).endswith("<|im_start|>assistant\nyes")


def test_suite_is_plain_data() -> None:
    suite = Suite("piqa", "d", 1, "accuracy", "l", (SuiteItem("a", "q", ("x", "y"), 0),), 1, 0)
    assert suite.prompt_format in FORMATS
