from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from components.data.rows import Message, Row
from components.errors import InputError
from components.evaluation.metrics import (
    METRIC_MODULES,
    check_metric,
    check_option_names,
    known_metrics,
    score,
    summaries,
)


def row(answer: str, **metadata: str) -> Row:
    return Row((Message("user", "question"), Message("assistant", answer)), metadata, line=4)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWRIGHT_CACHE", str(tmp_path / "cache"))


def test_exact_match_ignores_white_space_case_and_unicode_form_only() -> None:
    rows = [row("Twenty  two."), row("Twenty two"), row("ﬁne"), row("a")]
    assert score("exact_match", ["twenty two. ", "twenty-two", "fine", ""], rows, {}) == [1.0, 0.0, 1.0, 0.0]


def test_exact_match_options_change_the_comparison() -> None:
    rows = [row("Yes."), row("Yes.")]
    assert score("exact_match", ["yes", "Yes."], rows, {"ignore_punctuation": True}) == [1.0, 1.0]
    assert score("exact_match", ["yes.", "Yes."], rows, {"ignore_case": False}) == [0.0, 1.0]


def test_execution_match_reads_the_database_from_the_metadata(tmp_path: Path) -> None:
    from components.data.text2sql.schema import Column, Schema, Table

    columns = (Column("id", "number"), Column("name", "text"))
    schema = Schema("shop", (Table("item", columns, primary_key="id"),), ())
    path = tmp_path / "databases.json"
    path.write_text(json.dumps({"databases": {"shop": schema.to_dict()}}))
    rows = [row("SELECT count(*) FROM item", database="shop")] * 2
    predictions = ["SELECT count(id) FROM item", "SELECT max(id) + 1000 FROM item"]
    assert score("execution_match", predictions, rows, {"schemas": str(path)}) == [1.0, 0.0]
    with pytest.raises(InputError, match="line 4: metadata 'database' is missing"):
        score("execution_match", ["x"], [row("SELECT 1")], {"schemas": str(path)})


def test_unknown_metric_lists_the_known() -> None:
    assert {"exact_match", "execution_match"} <= set(known_metrics())
    with pytest.raises(InputError, match="unknown metric 'acuracy'") as caught:
        score("acuracy", [], [], {})
    assert caught.value.allowed == ", ".join(known_metrics())


def test_unknown_and_missing_options_are_refused_before_anything_is_scored() -> None:
    with pytest.raises(InputError, match="exact_match: unknown option 'ignorecase'"):
        check_metric("exact_match", {"ignorecase": True})
    with pytest.raises(InputError, match="execution_match: option 'schemas' is missing"):
        check_metric("execution_match", {})


@pytest.mark.parametrize("metric", known_metrics())
def test_option_names_are_told_from_the_text_as_from_the_module(metric: str) -> None:
    refusals = []
    for check in (check_option_names, check_metric):
        with pytest.raises(InputError) as caught:
            check(metric, {"no_such_option": 1, "predictions": 2})
        refusals.append(str(caught.value))
    assert refusals[0] == refusals[1]
    check_option_names("execution_match", {"schemas": "x", "seed": 1})


def test_predictions_and_rows_must_be_as_many() -> None:
    with pytest.raises(InputError, match="1 predictions for 0 rows"):
        score("exact_match", ["a"], [], {})


def test_modules_load_with_evaluate_by_local_path(tmp_path: Path) -> None:
    # in a process of its own: the library settles where its copies go when it is first imported
    program = (
        "import sys, evaluate\n"
        "for path in sys.argv[2:]:\n"
        "    loaded = evaluate.load(path, cache_dir=sys.argv[1])\n"
        "    assert {'predictions', 'references'} <= set(loaded.features)\n"
    )
    paths = [str(METRIC_MODULES / name) for name in known_metrics()]
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "data"), *paths],
        env={**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_EVALUATE_OFFLINE": "1"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr


def test_scoring_needs_no_network_and_writes_nothing_into_the_home(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    program = (
        "import socket\n"
        "def refuse(*a, **k): raise AssertionError('network')\n"
        "socket.socket.connect = refuse; socket.getaddrinfo = refuse\n"
        "from components.data.rows import Message, Row\n"
        "from components.evaluation.metrics import score\n"
        "r = Row((Message('user', 'q'), Message('assistant', 'a')), {})\n"
        "print(score('exact_match', ['a'], [r], {}))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={"HOME": str(home), "TUNEWRIGHT_CACHE": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.stdout == "[1.0]\n", result.stderr
    assert list(home.rglob("*")) == []


def test_label_accuracy_takes_a_label_for_what_it_says_and_has_macro_f1_beside() -> None:
    rows = [row("positive")] * 4 + [row("negative"), row("neutral")]
    answers = ["Positive.", '"positive"', " POSITIVE ", "negative", "positive", "I feel neutral"]
    assert score("label_accuracy", answers, rows, {}) == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0]
    # positive: 2 x 3 / (4 + 4); negative: 0 of 2; neutral: never answered
    assert summaries("label_accuracy", answers, rows, {}) == {"macro_f1": pytest.approx((6 / 8 + 0 + 0) / 3)}


def test_label_accuracy_tells_labels_apart_that_are_signs() -> None:
    assert score("label_accuracy", ["...", "C++"], [row("..."), row("C")], {}) == [1.0, 0.0]


def test_number_closeness_falls_with_the_distance() -> None:
    rows = [row("1.0"), row("-2"), row("0.5"), row("3")]
    answers = ["1.5", "about -2.0, I think", "no idea", "40"]
    assert score("number_closeness", answers, rows, {"scale": 2}) == [0.75, 1.0, 0.0, 0.0]
    found = summaries("number_closeness", answers, rows, {"scale": 2})
    assert found["answered"] == 0.75
    assert found["mean_absolute_error"] == pytest.approx((0.5 + 0 + 37) / 3)
    assert found["spearman"] == pytest.approx(1.0)


def test_number_closeness_leaves_out_what_the_rows_do_not_define() -> None:
    assert summaries("number_closeness", ["2", "2"], [row("1"), row("3")], {"scale": 4}) == {
        "answered": 1.0,
        "mean_absolute_error": 1.0,
    }
    assert summaries("number_closeness", ["none"], [row("1")], {"scale": 4}) == {"answered": 0.0}


@pytest.mark.parametrize("scale", [0, -1, "wide"])
def test_a_scale_that_is_none_is_refused(scale: object) -> None:
    with pytest.raises(InputError, match="number_closeness: scale is"):
        score("number_closeness", ["1"], [row("1")], {"scale": scale})
    # before anything is answered
    with pytest.raises(InputError, match="number_closeness: scale is"):
        check_metric("number_closeness", {"scale": scale})


@pytest.mark.parametrize("answer", ["many", "3 m", "nan", "1e999"])
def test_a_right_answer_that_is_no_number_is_told_before_anything_is_answered(answer: str) -> None:
    with pytest.raises(InputError, match=r"number_closeness, line 4: the right answer"):
        check_metric("number_closeness", {"scale": 1}, [row("1.5"), row(answer)])


def test_metrics_without_summaries_compute_none() -> None:
    assert summaries("exact_match", ["a"], [row("a")], {}) == {}
