"""Packed rows give exactly what they give alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from components.data.chat import encode, prompt_ids
from components.data.packing import collate, common_prefix, pack_branches, pack_rows
from components.data.rows import Message
from components.errors import InputError
from components.finetuning.loss import forward_loss
from components.models.forward import token_log_probs
from components.models.load import load_model, load_tokenizer
from components.models.tiny import make_tiny

SCHEMA = "singer(id, name, country, age)\nconcert(id, title, year)"
QUESTIONS = [
    ("How many singers are there?", "SELECT count(*) FROM singer"),
    ("What are the names?", "SELECT name FROM singer"),
    ("Which years?", "SELECT DISTINCT year FROM concert WHERE id > 3"),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("tiny"))


def rows() -> list[list[Message]]:
    return [
        [Message("system", SCHEMA), Message("user", question), Message("assistant", answer)]
        for question, answer in QUESTIONS
    ]


@pytest.mark.parametrize("prompt_loss_weight", [0.0, 0.1])
def test_packed_loss_is_the_loss_of_the_rows_alone(base: Path, prompt_loss_weight: float) -> None:
    tokenizer, model = load_tokenizer(base), load_model(base)
    encoded = [encode(tokenizer, row, prompt_loss_weight=prompt_loss_weight) for row in rows()]
    if prompt_loss_weight:
        # a prompt that carries weight is scored once a row, so it stays in the branches
        assert pack_rows(encoded).segments.count(0) < 3
    packed = pack_rows(encoded)
    expected = torch.zeros(())
    for row in encoded:
        ids = torch.tensor([row.input_ids])
        log_probs = model(input_ids=ids).logits[0, :-1].float().log_softmax(-1)
        picked = log_probs.gather(1, ids[0, 1:, None])[:, 0]
        expected = expected - (picked * torch.tensor(row.weights[1:])).sum()
    found = forward_loss(model, collate([packed], tokenizer.pad_token_id), 1.0)
    assert abs(float(found - expected)) <= 1e-4 * abs(float(expected))


def test_padding_and_companions_change_nothing(base: Path) -> None:
    tokenizer, model = load_tokenizer(base), load_model(base)
    encoded = [encode(tokenizer, row) for row in rows()]
    long, short = pack_rows(encoded), pack_rows(encoded[:1])
    alone = token_log_probs(model, collate([short], tokenizer.pad_token_id))
    together = token_log_probs(model, collate([long, short], tokenizer.pad_token_id))[1, : len(short)]
    assert torch.allclose(alone[0], together, atol=1e-5)
    assert float(together.sum()) < 0


def test_shared_prefix_is_stored_once(base: Path) -> None:
    encoded = [encode(load_tokenizer(base), row) for row in rows()]
    packed = pack_rows(encoded)
    shared = common_prefix([row.input_ids for row in encoded])
    assert packed.rows == 3
    assert packed.segments.count(0) == shared - 1
    assert len(packed) == sum(len(row.input_ids) for row in encoded) - 2 * shared + 2
    assert sum(packed.weights) == sum(sum(row.weights) for row in encoded)


def test_turn_end_is_trained_and_prompt_is_not(base: Path) -> None:
    tokenizer = load_tokenizer(base)
    row = rows()[0]
    encoded = encode(tokenizer, row)
    trained = [token for token, weight in zip(encoded.input_ids, encoded.weights, strict=True) if weight > 0]
    assert tokenizer.decode(trained) == QUESTIONS[0][1] + tokenizer.eos_token
    assert encoded.input_ids[: len(prompt_ids(tokenizer, row[:2]))] == prompt_ids(tokenizer, row[:2])


def test_branch_without_tokens_is_refused() -> None:
    with pytest.raises(InputError, match="branch 2"):
        pack_branches([1, 2], [([3], [1.0]), ([], [])])


def test_rows_without_anything_in_common_are_refused() -> None:
    from components.data.chat import Encoded

    with pytest.raises(InputError, match="share no leading token"):
        pack_rows([Encoded([1, 2], [0.0, 1.0]), Encoded([3, 2], [0.0, 1.0])])
