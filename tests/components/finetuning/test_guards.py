"""What would train for nothing is refused before the first step, and a gradient that isn't finite ends the run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.data.rows import Row
from components.errors import InputError
from components.finetuning.finetune import FinetuneResult, finetune
from components.finetuning.full import FullSettings
from components.finetuning.methods import METHODS
from components.finetuning.trainer import DivergedError
from components.models.tiny import make_tiny
from tests.components.finetuning.conftest import rows, settings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def spoilt(base: Path, tmp_path: Path) -> Callable[..., Path]:
    """Copy the base with other settings of its tokenizer."""

    def copy(**values: object) -> Path:
        folder = Path(shutil.copytree(base, tmp_path / "spoilt"))
        path = folder / "tokenizer_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
        return folder

    return copy


def train(base: Path, folder: Path, given: list[Row] | None = None, **changes: object) -> FinetuneResult:
    return finetune(
        base, given or rows(), [], settings(**{"epochs": 1.0, **changes}), run_folder=folder / "run", identity={},
        progress=lambda _: pytest.fail("a step was trained"),
    )  # fmt: skip


def attached(monkeypatch: pytest.MonkeyPatch, method: str, change: Callable[[Any], None]) -> None:
    """Let something be done to the model behind what a method does to it."""
    plain = METHODS[method].attach

    def attach(model: Any, chosen: Any) -> Any:
        found = plain(model, chosen)
        change(found)
        return found

    monkeypatch.setitem(METHODS, method, replace(METHODS[method], attach=attach))


def test_nothing_to_train(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    attached(monkeypatch, "lora", lambda model: model.requires_grad_(False))
    with pytest.raises(InputError, match="no parameter is trainable"):
        train(base, tmp_path)


def test_a_row_whose_every_label_is_masked_is_named(base: Path, tmp_path: Path) -> None:
    given = rows()
    given[5] = replace(given[5], messages=given[5].prompt)
    with pytest.raises(InputError, match="the training row of line 6 has no token that is trained"):
        train(base, tmp_path, given)


def test_a_pad_token_that_is_the_turn_end(spoilt: Callable[..., Path], tmp_path: Path) -> None:
    # and no unknown token that could be the pad token in its place
    with pytest.raises(InputError, match=r"padding and turn end are both '<\|im_end\|>'"):
        train(spoilt(pad_token="<|im_end|>", unk_token=None), tmp_path)


def test_a_turn_end_that_no_row_trains(spoilt: Callable[..., Path], tmp_path: Path) -> None:
    # as with bases whose template ends turns by another token than their generation stops at
    with pytest.raises(InputError, match="would never learn to stop"):
        train(spoilt(eos_token="<|endoftext|>", pad_token="<|im_start|>"), tmp_path)


def test_a_missing_template(spoilt: Callable[..., Path], tmp_path: Path) -> None:
    folder = spoilt(chat_template=None)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(InputError, match="has no chat template"):
        train(folder, tmp_path)


def test_tokens_that_the_embedding_has_no_rows_for(spoilt: Callable[..., Path], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = spoilt()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    known = len(tokenizer)
    tokenizer.add_tokens(["SELECT count"])
    tokenizer.save_pretrained(folder)
    with pytest.raises(InputError, match=f"the rows use token {known}, the embedding has {known} rows") as refused:
        train(folder, tmp_path)
    assert "resize and save" in str(refused.value.next_step)


def test_an_embedding_that_was_resized_and_will_not_be_saved(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resize(model: Any) -> None:
        model.resize_token_embeddings(408, mean_resizing=False)

    attached(monkeypatch, "lora", resize)
    with pytest.raises(InputError, match="was resized from 400 rows to 408, and an adapter doesn't save it"):
        train(base, tmp_path)
    # whole weights have it with them
    attached(monkeypatch, "full", resize)
    result = finetune(
        base, rows(), [], settings(method="full", attachment=FullSettings(), epochs=1.0), run_folder=tmp_path / "full",
        identity={},
    )  # fmt: skip
    assert json.loads((result.weights / "config.json").read_text())["vocab_size"] == 408


def test_a_gradient_that_is_not_finite_ends_the_run_naming_step_and_rows(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []

    def spoil(gradient: Any) -> Any:
        passes.append(1)
        # two micro-batches a step: the second step's
        return gradient * (float("inf") if len(passes) > 2 else 1.0)

    def hook(model: Any) -> None:
        next(value for value in model.parameters() if value.requires_grad).register_hook(spoil)

    attached(monkeypatch, "lora", hook)
    seen: list[float] = []
    with pytest.raises(DivergedError, match=r"the gradient norm of step 2 is not finite; .* on the lines \d+, \d+"):
        finetune(
            base, rows(), [], settings(), run_folder=tmp_path, identity={},
            progress=lambda log: seen.append(log["step"]),
        )  # fmt: skip
    assert seen == [1]
    assert not (tmp_path / "adapter").exists()
