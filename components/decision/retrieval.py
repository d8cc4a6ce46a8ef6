"""Find the passages of a corpus that a question needs: by words and by meaning, both rankings fused.

Words: Okapi BM25 (Robertson & Zaragoza 2009, "The Probabilistic Relevance Framework", equation 3.15). Meaning: the
cosine of sentence embeddings. Fusion: reciprocal rank fusion (Cormack, Clarke & Büttcher 2009), which needs no scale
that the two would have to share.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from components.decision.corpus import Passage

__all__ = ["Bm25", "HybridIndex", "fuse_ranks", "word_tokens"]

K1, B = 1.2, 0.75
# Cormack et al. found 60 to do well on every collection that they tried
RANK_CONSTANT = 60


def word_tokens(text: str) -> list[str]:
    """Return the words of a text, case folded."""
    return re.findall(r"\w+", text.casefold())


class Bm25:
    """Documents that can be scored by the words that they share with a query.

    Args:
        documents: Words of each document.
    """

    def __init__(self, documents: Sequence[Sequence[str]]) -> None:
        self._lengths = [len(document) for document in documents]
        self._mean_length = sum(self._lengths) / max(1, len(documents)) or 1.0
        self._holding: dict[str, list[tuple[int, int]]] = {}
        for number, document in enumerate(documents):
            for word, times in Counter(document).items():
                self._holding.setdefault(word, []).append((number, times))

    def scores(self, query: Sequence[str]) -> dict[int, float]:
        """Return the score of every document that shares a word with the query; a repeated word counts again."""
        scores: dict[int, float] = {}
        for word in query:
            holding = self._holding.get(word, [])
            # the +1 keeps words of more than half of the documents from counting against a document
            rarity = math.log(1 + (len(self._lengths) - len(holding) + 0.5) / (len(holding) + 0.5))
            for number, times in holding:
                length = 1 - B + B * self._lengths[number] / self._mean_length
                scores[number] = scores.get(number, 0.0) + rarity * times * (K1 + 1) / (times + K1 * length)
        return scores


def fuse_ranks(rankings: Sequence[Sequence[int]]) -> list[int]:
    """Fuse rankings of the same documents, best first: the sum of 1 / (60 + rank) decides, then the lower number."""
    fused: dict[int, float] = {}
    for ranking in rankings:
        for rank, number in enumerate(ranking, start=1):
            fused[number] = fused.get(number, 0.0) + 1 / (RANK_CONSTANT + rank)
    return sorted(fused, key=lambda number: (-fused[number], number))


class HybridIndex:
    """A corpus that can be searched by words and by meaning.

    Args:
        passages: The corpus.
        embed: Gives one vector of length 1 a text [n, d]; the MiniLM of components/data/embeddings when not given.
    """

    def __init__(self, passages: Sequence[Passage], embed: Callable[[Sequence[str]], Any] | None = None) -> None:
        if embed is None:
            from components.data.embeddings import embed as minilm

            embed = minilm
        self.passages = tuple(passages)
        self._embed = embed
        self._words = Bm25([word_tokens(passage.text) for passage in passages])
        self._vectors = embed([passage.text for passage in passages])

    def search(self, queries: Sequence[str], k: int) -> list[tuple[Passage, ...]]:
        """Return the k best passages for each query, best first.

        Args:
            queries: Questions.
            k: Passages a query; all of them where the corpus has fewer.
        """
        if not queries:
            return []
        similarity = (self._embed(queries) @ self._vectors.T).tolist()
        return [
            tuple(self.passages[number] for number in self._fused(query, row)[:k])
            for query, row in zip(queries, similarity, strict=True)
        ]

    def _fused(self, query: str, similarity: Sequence[float]) -> list[int]:
        # a passage without a common word has no rank among the words, rather than an arbitrary one
        words = self._words.scores(word_tokens(query))
        by_words = sorted(words, key=lambda n: (-words[n], n))
        by_meaning = sorted(range(len(self.passages)), key=lambda n: (-similarity[n], n))
        return fuse_ranks([by_words, by_meaning])
