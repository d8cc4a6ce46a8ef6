"""Sentence embeddings: pooling that padding can't disturb, checked on a tiny random BERT; meaning on the real one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from components.data import embeddings
from components.data.embeddings import embed

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "how", "many", "singers", "cats", "are", "there", "old", "?"]
TEXTS = ["how many singers are there ?", "cats", "how old are cats ?", "how many cats are there are there are there"]


@pytest.fixture
def tiny_bert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=384, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64
    )
    BertModel(config).save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    words = BertWordPieceTokenizer(str(tmp_path / "vocab.txt"))
    PreTrainedTokenizerFast(
        tokenizer_object=words._tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(tmp_path)
    monkeypatch.setattr(embeddings, "model_folder", lambda cache=None: tmp_path)
    return tmp_path


def test_each_text_gets_a_unit_vector_in_the_order_given(tiny_bert: Path) -> None:
    vectors = embed(TEXTS)
    assert vectors.shape == (4, 384)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(4), atol=1e-5)
    assert torch.allclose(embed(TEXTS[::-1]), vectors.flip(0), atol=1e-5)


def test_neighbours_in_a_batch_and_their_padding_do_not_change_a_vector(tiny_bert: Path) -> None:
    assert torch.allclose(embed(TEXTS, batch_size=1), embed(TEXTS, batch_size=64), atol=1e-5)


def test_no_texts_give_no_vectors_without_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(cache: Path | None = None) -> Path:
        raise AssertionError("the model was fetched")

    monkeypatch.setattr(embeddings, "model_folder", refuse)
    assert embed([]).shape == (0, 384)


@pytest.mark.real
def test_paraphrases_are_nearer_than_other_questions() -> None:
    vectors = embed(["How many singers do we have?", "What is the number of singers?", "List cats older than three."])
    similarity = vectors @ vectors.T
    assert similarity[0, 1] > 0.8
    assert similarity[0, 2] < 0.5
