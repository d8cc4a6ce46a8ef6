"""Does the base know the language of the data? A permutation test by likelihood, without decoding. Read by decide.

Finetuning with few weights works because the base can nearly do the task already (Aghajanyan et al. 2021, "Intrinsic
Dimensionality Explains the Effectiveness of Language Model Fine-Tuning"). Does it find the questions likelier than the
same tokens shuffled? A permutation test over few questions, without a threshold of ours: each shuffle moves the places
of all of them alike, since questions of one template are no independent samples. A base that doesn't has not learnt
the language of the data. Without a question that has an order to speak of, nothing can be told.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.models.forward import causal_model

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = ["WordOrder", "word_order"]

# questions are taken until they have this many tokens together: three of full length, more where they are short
ORDER_TOTAL_TOKENS = 40
ORDER_ROWS = 10
ORDER_TOKENS = 16
# fewer different tokens have hardly an order that a language could prefer
MIN_ORDER_TOKENS = 4
SHUFFLES = 24  # the fewest round number of orders with which one that is never beaten is rarer than 5 %
# the usual level; a base that passes by accident costs a finetuning run, which the gate then refuses
LEVEL = 0.05


@dataclass(frozen=True)
class WordOrder:
    """How much likelier the base finds questions than their own tokens shuffled.

    Attributes:
        nats: Mean difference of the log probability of a token.
        beaten: Shuffles that it finds less likely.
        shuffles: Shuffles tried.
        n: Questions.
    """

    nats: float
    beaten: int
    shuffles: int
    n: int

    @property
    def p_value(self) -> float:
        """Share of orders, the real one among them, that are at least as likely."""
        return (self.shuffles - self.beaten + 1) / (self.shuffles + 1)

    @property
    def known(self) -> bool:
        """Whether chance is ruled out at 5 %."""
        return self.p_value < LEVEL

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {"nats": self.nats, "p_value": self.p_value, "n": self.n, "known": self.known}


def word_order(model: Any, tokenizer: Any, rows: Sequence[Row], seed: int = 0) -> WordOrder | None:
    """Test whether the base knows the language of the questions.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        rows: Rows of the task. Questions with four different tokens or more are drawn until they have 40 tokens
            together, ten at most; of each the first 16 tokens are used.
        seed: Seed of the draw and of the shuffles.

    Returns:
        What was found; None where no question has four different tokens, so that there is no order to test.
    """
    chosen = random.Random(f"word order/{seed}")
    texts = list(dict.fromkeys(row.prompt[-1].content for row in rows if row.prompt))
    chosen.shuffle(texts)
    usable: list[list[int]] = []
    for text in texts:
        ids = list(tokenizer(text, add_special_tokens=False)["input_ids"][:ORDER_TOKENS])
        if len(set(ids)) >= MIN_ORDER_TOKENS:
            usable.append(ids)
        if sum(map(len, usable)) >= ORDER_TOTAL_TOKENS or len(usable) == ORDER_ROWS:
            break
    if not usable:
        return None
    orders = [_other_order(chosen, usable) for _ in range(SHUFFLES)]
    totals = [0.0] * (1 + SHUFFLES)
    for ids in usable:
        shuffled = [_in_order(ids, order) for order in orders]
        for index, value in enumerate(_log_probabilities(model, [ids, *shuffled])):
            totals[index] += value
    own, others = totals[0], totals[1:]
    tokens = sum(len(ids) - 1 for ids in usable)
    nats = (own - sum(others) / SHUFFLES) / tokens
    return WordOrder(nats, sum(own > other for other in others), SHUFFLES, len(usable))


def _other_order(chosen: random.Random, questions: Sequence[Sequence[int]]) -> list[int]:
    """Draw an order of places that leaves none of the questions as it is: that would be no shuffle to be beaten."""
    while True:
        order = chosen.sample(range(ORDER_TOKENS), ORDER_TOKENS)
        if all(_in_order(ids, order) != list(ids) for ids in questions):
            return order


def _in_order(ids: Sequence[int], order: Sequence[int]) -> list[int]:
    return [ids[place] for place in order if place < len(ids)]


def _log_probabilities(model: Any, sequences: Sequence[Sequence[int]]) -> list[float]:
    """Return for each of some equally long sequences the log probability of its tokens behind the first one."""
    import torch

    inner = causal_model(model)
    with torch.inference_mode():
        batch = torch.tensor([list(ids) for ids in sequences], device=inner.get_input_embeddings().weight.device)
        logits = inner(input_ids=batch).logits[:, :-1].float()
        # the probabilities of all other tokens are not written down: there are as many as the vocabulary has
        own = logits.gather(2, batch[:, 1:, None])[..., 0]
        found: list[float] = (own - logits.logsumexp(dim=-1)).sum(dim=1).tolist()
    return found
