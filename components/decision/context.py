"""Put passages before a row's question: those that retrieval finds, or the gold ones (the oracle). Read by baselines.

The oracle tells missing facts from everything else: what is wrong with the right passage before it is not mended by
any retrieval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from components.data.rows import Message
from components.decision.corpus import Passage
from components.decision.retrieval import HybridIndex
from components.errors import InputError

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["ContextSource", "gold_ids", "with_passages"]


def gold_ids(row: Row) -> tuple[str, ...]:
    """Return the ids of the passages that hold a row's answer: `metadata.gold`, a list of texts; none where absent.

    Raises:
        InputError: `gold` is something else.
    """
    found = row.metadata.get("gold", ())
    if not isinstance(found, list | tuple) or not all(isinstance(item, str) for item in found):
        raise InputError(
            f"line {row.line} of the rows: metadata.gold is {found!r}",
            allowed="a list of passage ids",
            next_step=f"write it as a list, such as {[found] if isinstance(found, str) else ['some-id']}",
        )
    return tuple(found)


def with_passages(row: Row, passages: Sequence[Passage]) -> Row:
    """Return the row with passages before its last question, a blank line between; the best stands next to it.

    What stands at the edges of a prompt is used best (Liu et al. 2023, "Lost in the Middle").
    """
    if not passages:
        return row
    *before, question, answer = row.messages
    text = "\n".join(passage.text for passage in reversed(passages))
    return replace(row, messages=(*before, Message(question.role, f"{text}\n\n{question.content}"), answer))


class ContextSource:
    """A corpus as the place where prompts take their passages from.

    Args:
        passages: The corpus.
        k: Passages a prompt.
        embed: Gives one vector of length 1 a text [n, d]; MiniLM when not given.
    """

    def __init__(
        self, passages: Sequence[Passage], k: int, embed: Callable[[Sequence[str]], Any] | None = None
    ) -> None:
        self.k = k
        self._by_id = {passage.id: passage for passage in passages}
        self._passages = tuple(passages)
        self._embed = embed
        self._index: HybridIndex | None = None
        self._found: dict[str, tuple[Passage, ...]] = {}

    def retrieved(self, rows: Sequence[Row]) -> list[tuple[Passage, ...]]:
        """Return the k passages found for each row's question, best first; each question is searched once."""
        if self._index is None:
            self._index = HybridIndex(self._passages, self._embed)
        questions = [row.prompt[-1].content for row in rows]
        fresh = [question for question in dict.fromkeys(questions) if question not in self._found]
        self._found.update(zip(fresh, self._index.search(fresh, self.k), strict=True))
        return [self._found[question] for question in questions]

    def gold(self, rows: Sequence[Row]) -> list[tuple[Passage, ...]]:
        """Return each row's gold passages.

        Raises:
            InputError: A row names none, or one that the corpus hasn't.
        """
        found = []
        for row in rows:
            ids = gold_ids(row)
            unknown = [name for name in ids if name not in self._by_id]
            if unknown or not ids:
                problem = f"the corpus has no passage {unknown[0]!r}" if unknown else "metadata.gold names no passage"
                raise InputError(
                    f"line {row.line} of the rows: {problem}",
                    allowed="ids of passages in data.corpus",
                    next_step="correct metadata.gold, or drop the oracle candidates from decision.candidates",
                )
            found.append(tuple(self._by_id[name] for name in ids))
        return found

    def recall(self, rows: Sequence[Row]) -> float | None:
        """Return the share of rows whose gold passages were all retrieved; None where some row names none."""
        if not rows or not all(map(gold_ids, rows)):
            return None
        found = self.retrieved(rows)
        hits = sum(
            set(gold_ids(row)) <= {passage.id for passage in passages}
            for row, passages in zip(rows, found, strict=True)
        )
        return hits / len(rows)
