"""The task's metric on dev rows in training: what it decides, that it changes no weight, and what it refuses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.data.rows import Message, Row
from components.errors import ConflictError, InputError
from components.evaluation.task import evaluate_task
from components.finetuning.dev import dev_loss, dev_score
from components.finetuning.finetune import DevSettings, DevTask, FinetuneResult, StoppedError, finetune
from components.finetuning.full import FullSettings
from components.finetuning.processes import Processes
from components.models.load import load_model, load_tokenizer
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings
from tests.components.finetuning.test_methods import CASES


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def answered(text: str, count: int) -> list[Row]:
    return [replace(row, messages=(*row.prompt, Message("assistant", text))) for row in rows(count)]


def task(count: int = 4, metric: str = "exact_match", max_new_tokens: int = 4) -> DevTask:
    return DevTask(answered("yes", count), metric, {}, max_new_tokens)


def run(base: Path, folder: Path, **changes: object) -> FinetuneResult:
    """Teach to answer "yes", which comes after step 8 of 9; the dev loss is of other answers, and is best before."""
    chosen = settings(
        method="full",
        attachment=FullSettings(),
        learning_rate=1e-3,
        schedule="constant",
        rows_per_sequence=1,
        epochs=3.0,
    )
    values: dict[str, object] = {"run_folder": folder, "identity": {}, "dev": DevSettings(9), "dev_task": task()}
    return finetune(base, answered("yes", 6), answered("DROP TABLE t", 4), chosen, **(values | changes))  # type: ignore[arg-type]


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


def test_the_score_chooses_the_weights_before_the_loss_does(base: Path, tmp_path: Path) -> None:
    told: list[Mapping[str, float]] = []
    result = run(base, tmp_path, progress=told.append)
    assert len(result.dev) == 9
    by_loss = min(result.dev, key=lambda entry: entry["loss"])
    best = max(result.dev, key=lambda entry: (entry["score"], -entry["loss"]))
    assert best["score"] > by_loss["score"]
    assert result.kept_step == best["step"]
    assert f"dev score {best['score']:.4f}" in result.kept_reason
    # the saved weights score what was measured
    model = load_model(result.weights)
    again = evaluate_task(
        model, load_tokenizer(base), task().rows, metric="exact_match", options={}, max_new_tokens=4, batch_size=2
    )
    assert again.score == best["score"]
    assert told[-1]["dev_score"] == result.dev[-2]["score"]
    assert 0 < result.answering_seconds < result.seconds


def test_processes_share_the_dev_rows(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = load_model(base), load_tokenizer(base)
    shared: list[int] = []
    real = evaluate_task

    def counted(*given: Any, **named: Any) -> Any:
        shared.append(len(given[2]))
        found = real(*given, **named)
        # what is right differs from row to row
        return replace(found, scores=tuple(float(row.line % 3 == 0) for row in given[2]))

    monkeypatch.setattr("components.evaluation.task.evaluate_task", counted)
    monkeypatch.setattr(Processes, "sum", lambda _, value: value)
    asked, chosen = task(5), settings(rows_per_sequence=1)
    for measure in (
        lambda processes: dev_score(model, tokenizer, asked, 64, processes),
        lambda processes: dev_loss(model, tokenizer, rows(5), chosen, processes=processes),
    ):
        alone = measure(Processes())()
        # more processes than rows, too
        for count in (2, 7):
            parts = [measure(Processes(rank, count))() for rank in range(count)]
            assert sum(parts) == pytest.approx(alone, rel=1e-6)
    assert shared == [5, 3, 2, 1, 1, 1, 1, 1]


def test_a_stopped_run_goes_on_to_the_same_choice(base: Path, tmp_path: Path) -> None:
    whole = run(base, tmp_path / "whole")
    calls: list[int] = []
    with pytest.raises(StoppedError):
        run(base, tmp_path / "stopped", stop=lambda: calls.append(1) or len(calls) == 5)
    resumed = run(base, tmp_path / "stopped")
    assert resumed.resumed_from == 5
    assert (resumed.dev, resumed.kept_step) == (whole.dev, whole.kept_step)
    assert digests(resumed.weights) == digests(whole.weights)


@pytest.mark.parametrize("case", ["full", "lora", "qlora", "bottleneck", "prefix_tuning", "prompt_tuning"])
def test_answering_dev_rows_changes_nothing_in_training(base: Path, tmp_path: Path, case: str) -> None:
    method, attachment, rate = CASES[case]
    if case in ("lora", "qlora"):
        attachment = replace(attachment, dropout=0.2)  # type: ignore[type-var]
    chosen = settings(method=method, attachment=attachment, learning_rate=rate, epochs=1.0)

    def trained(folder: Path, asked: DevTask | None) -> FinetuneResult:
        return finetune(
            base, rows(), rows(4), chosen, run_folder=folder, identity={}, dev=DevSettings(3, keep_best=False),
            dev_task=asked,
        )  # fmt: skip

    plain, measured = trained(tmp_path / "plain", None), trained(tmp_path / "measured", task())
    assert digests(measured.weights) == digests(plain.weights)
    assert [entry["loss"] for entry in measured.dev] == [entry["loss"] for entry in plain.dev]
    assert all("score" in entry for entry in measured.dev)


def test_no_more_tokens_are_answered_at_once_than_a_step_has(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def counted(*arguments: object, batch_size: int, **rest: object) -> object:
        sizes.append(batch_size)
        return evaluate_task(*arguments, batch_size=batch_size, **rest)  # type: ignore[arg-type]

    monkeypatch.setattr("components.evaluation.task.evaluate_task", counted)
    for size in (1, 4):
        chosen = settings(micro_batch_size=size, gradient_accumulation_steps=4 // size, epochs=1.0)
        finetune(
            base, rows(), rows(4), chosen, run_folder=tmp_path / str(size), identity={}, dev=DevSettings(1),
            dev_task=task(),
        )  # fmt: skip
    assert 1 <= sizes[0] < sizes[1] <= 4 * (sizes[0] + 1)


def test_what_cannot_be_answered_or_scored_is_refused_before_a_step(base: Path, tmp_path: Path) -> None:
    for asked, message in (
        (task(max_new_tokens=10**6), "positions"),
        (task(metric="no_such_metric"), "no_such_metric"),
    ):
        with pytest.raises(InputError, match=message):
            run(base, tmp_path, dev_task=asked, progress=lambda _: pytest.fail("a step was trained"))


def test_another_task_is_another_run_where_it_decides(base: Path, tmp_path: Path) -> None:
    run(base, tmp_path)
    with pytest.raises(ConflictError, match="dev: "):
        run(base, tmp_path, dev_task=task(3))
