from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from components.data.packing import collate
from components.data.rows import Message, Row
from components.data.texts import encode_text
from components.errors import InputError
from components.evaluation.perplexity import evaluate_texts
from components.finetuning.loss import forward_loss
from components.finetuning.text_schedule import build_text_schedule, pack_texts

TEXTS = ("The quick brown fox", "jumps over the lazy dog and over all the others, one by one", "A. B. C.")
DOCUMENTS = [[0, *range(10, 17)], [0, *range(20, 39)], [0, 30, 31]]


def test_every_token_is_predicted_once_and_sequences_are_full() -> None:
    packed = pack_texts(DOCUMENTS, 8)
    assert [len(sequence) for sequence, _ in packed] == [8, 8, 8, 4]
    labels = [label for sequence, _ in packed for label in sequence.labels]
    assert labels == [token for ids in DOCUMENTS for token in ids[1:]]
    # a document that is cut goes on from its last token
    assert packed[0][0].labels[-1] == packed[1][0].input_ids[0] == 20
    assert packed[0][1] == [0, 1]
    for sequence, _ in packed:
        starts = [place for place, position in enumerate(sequence.position_ids) if position == 0]
        assert len(starts) == sequence.rows
        assert set(sequence.weights) == {1.0}


def test_packed_documents_have_the_loss_that_each_has_alone(tiny_model: Any, tiny_tokenizer: Any) -> None:
    documents = [encode_text(tiny_tokenizer, text) for text in TEXTS]
    with torch.no_grad():
        (together,) = (
            float(forward_loss(tiny_model, collate([packed], 0), 1.0)) for packed, _ in pack_texts(documents, 500)
        )
        alone = sum(
            float(tiny_model(input_ids=torch.tensor([ids]), labels=torch.tensor([ids])).loss) * (len(ids) - 1)
            for ids in documents
        )
    assert together == pytest.approx(alone, rel=1e-5)


def test_a_schedule_is_of_its_seed_and_sees_each_document_once_an_epoch() -> None:
    values = {"micro_batch_size": 1, "gradient_accumulation_steps": 2, "max_tokens": 8}
    one, again = (build_text_schedule(DOCUMENTS, [1, 2, 3], epochs=2, seed=5, **values) for _ in range(2))
    assert one == again
    assert one.tokens == 2 * sum(len(ids) - 1 for ids in DOCUMENTS)
    assert Counter(label for step in one.steps for batch in step for s in batch for label in s.labels)[10] == 2
    assert build_text_schedule(DOCUMENTS, [1, 2, 3], epochs=2, seed=6, **values) != one
    with pytest.raises(InputError, match="no documents"):
        build_text_schedule([], [], epochs=1, seed=5, **values)


def test_perplexity_is_exp_of_the_mean_loss_and_a_documents_score_its_inverse(
    tiny_model: Any, tiny_tokenizer: Any
) -> None:
    rows = [Row((Message("text", text),), {}, number) for number, text in enumerate(TEXTS, start=1)]
    found = evaluate_texts(tiny_model, tiny_tokenizer, rows, max_tokens=500)
    losses, counts = [], []
    for row, score in zip(rows, found.task.scores, strict=True):
        ids = torch.tensor([encode_text(tiny_tokenizer, row.answer)])
        with torch.no_grad():
            loss = float(tiny_model(input_ids=ids, labels=ids).loss)
        assert score == pytest.approx(math.exp(-loss), rel=1e-4)
        losses.append(loss * (ids.shape[1] - 1))
        counts.append(ids.shape[1] - 1)
    assert found.perplexity == pytest.approx(math.exp(sum(losses) / sum(counts)), rel=1e-4)
    assert found.tokens == sum(counts)
    assert found.to_dict()["bits_per_token"] == pytest.approx(math.log2(found.perplexity))
    with pytest.raises(InputError, match="no documents"):
        evaluate_texts(tiny_model, tiny_tokenizer, [], max_tokens=64)
