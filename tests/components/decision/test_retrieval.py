from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from components.decision.corpus import Passage
from components.decision.retrieval import Bm25, HybridIndex, fuse_ranks, word_tokens

TEXTS = ["the cat sat on the mat", "the dog sat on the log by the river", "cats and dogs"]


def bag(texts: Sequence[str]) -> Any:
    """An embedding that knows one thing: whether a text is about animals of the dog kind."""
    import torch

    return torch.tensor([[1.0, 0.0] if "dog" in text or "hound" in text else [0.0, 1.0] for text in texts])


def test_bm25_is_the_published_formula() -> None:
    index = Bm25([word_tokens(text) for text in TEXTS])
    scores = index.scores(["cat"])
    assert set(scores) == {0}, "documents without the word are not scored"
    rarity = math.log(1 + (3 - 1 + 0.5) / (1 + 0.5))
    length = 1 - 0.75 + 0.75 * 6 / ((6 + 9 + 3) / 3)
    assert scores[0] == pytest.approx(rarity * (1.2 + 1) / (1 + 1.2 * length))


def test_bm25_prefers_rare_words_and_short_documents() -> None:
    index = Bm25([word_tokens(text) for text in TEXTS])
    assert index.scores(["cat"])[0] > index.scores(["sat"])[0], "sat is in two of three"
    sat = index.scores(["sat"])
    assert sat[0] > sat[1], "the shorter of two that hold the word once"
    assert index.scores(["sat", "sat"])[0] == pytest.approx(2 * sat[0])


def test_fused_rank_is_high_where_both_rankings_are() -> None:
    assert fuse_ranks([[0, 1, 2], [1, 2, 0]]) == [1, 0, 2]
    assert fuse_ranks([[2], [0, 1, 2]])[0] == 2, "a document that only one ranking lacks"


def test_search_finds_by_words_and_by_meaning() -> None:
    passages = [Passage(str(number), text) for number, text in enumerate(TEXTS)]
    index = HybridIndex(passages, bag)
    by_word, by_meaning = index.search(["Where is the mat?", "a hound"], 2)
    assert by_word[0].id == "0"
    assert {passage.id for passage in by_meaning} == {"1", "2"}, "no word is shared; the meaning is"
    assert index.search(["river"], 99)[0][0].id == "1"
    assert index.search([], 3) == []
