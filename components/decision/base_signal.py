"""Is there anything in the base that finetuning could refine? Measured by likelihood, without decoding. Read by decide.

Finetuning with few weights works because the base can nearly do the task already (Aghajanyan et al. 2021, "Intrinsic
Dimensionality Explains the Effectiveness of Language Model Fine-Tuning"). Two tests, neither with a threshold of ours:

- word order: does the base find the questions likelier than the same tokens shuffled? A permutation test over few
  questions: each shuffle moves the places of all of them alike, since questions of one template are no independent
  samples. A base that doesn't has not learnt the language of the data. Without a question that has an order to speak
  of, nothing can be told.
- answers: does the base find each question's answer likelier than it finds the answers of the other questions? A
  permutation test on the matrix of log probabilities (Fisher 1935): the sum over the rows' own answers against the
  sums over answers dealt out anew. What every answer has for itself (length, frequency) cancels. Where the
  answers can be dealt out in too few ways for any of them to be rare, nothing can be told either.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import InputError
from components.evaluation.likelihood import ChoiceItem, choice_log_likelihoods
from components.models.forward import causal_model

if TYPE_CHECKING:
    from components.data.rows import Message, Row

__all__ = ["AnswerSignal", "WordOrder", "answer_signal", "word_order"]

# questions are taken until they have this many tokens together: three of full length, more where they are short
ORDER_TOTAL_TOKENS = 40
ORDER_ROWS = 10
ORDER_TOKENS = 16
# fewer different tokens have hardly an order that a language could prefer
MIN_ORDER_TOKENS = 4
SHUFFLES = 24  # the fewest round number of orders with which one that is never beaten is rarer than 5 %
SIGNAL_ROWS = 32
MIN_SIGNAL_ROWS = 8
# answers' tokens behind one question: with long answers fewer rows are used, each of them says more
SIGNAL_TOKENS = 320
PERMUTATIONS = 4000
# a first look at this many rows ends the test where it is as clear as this, which spares most of its time
FIRST_ROWS, CLEAR = 8, 0.005
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


@dataclass(frozen=True)
class AnswerSignal:
    """How much likelier the base finds a question's own answer.

    Attributes:
        nats: Mean log probability of the own answer over that of the others, what answers have for themselves removed.
        p_value: Share of random pairings that fit at least as well, one-sided.
        n: Rows.
        candidate: Whose prompts were used.
    """

    nats: float
    p_value: float
    n: int
    candidate: str

    @property
    def present(self) -> bool:
        """Whether chance is ruled out at 5 %."""
        return self.nats > 0 and self.p_value < LEVEL

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {"nats": self.nats, "p_value": self.p_value, "n": self.n, "candidate": self.candidate,
                "present": self.present}  # fmt: skip


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


def answer_signal(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[Sequence[Message]],
    answers: Sequence[str],
    *,
    candidate: str,
    seed: int = 0,
) -> AnswerSignal | None:
    """Test whether the base's likelihoods tie answers to their questions.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer, with a chat template.
        prompts: The turns before each answer. The first 8 are used, and where they don't decide the first 32; with
            long answers fewer, 8 at least.
        answers: The right answer to each.
        candidate: Whose prompts these are, for the record.
        seed: Seed of the permutations.

    Returns:
        The mean advantage in nats and the permutation test's p-value. None where it can't be tested: the answers are
        the same, or so few differ that no pairing is rarer than 5 %. That is no sign of an absent signal.

    Raises:
        InputError: Another number of answers than of prompts, or none.
    """
    if len(prompts) != len(answers) or not prompts:
        raise InputError(f"{len(answers)} answers for {len(prompts)} prompts", allowed="one for each, at least one")
    tokens = sum(len(tokenizer(answer, add_special_tokens=False)["input_ids"]) + 1 for answer in answers) / len(answers)
    rows = SIGNAL_ROWS
    if len(set(answers[:SIGNAL_ROWS])) * tokens > SIGNAL_TOKENS:
        rows = max(MIN_SIGNAL_ROWS, int(SIGNAL_TOKENS / tokens))
    found = None
    for limit in (FIRST_ROWS, rows):
        if not _testable(answers[:limit]):
            continue
        found = _signal(model, tokenizer, prompts[:limit], answers[:limit], candidate, seed)
        if found.p_value < CLEAR or min(limit, len(prompts)) == min(rows, len(prompts)):
            break
    return found


def _testable(answers: Sequence[str]) -> bool:
    """Whether these answers can be dealt out in so many different ways that one of them is rarer than 5 %."""
    ways = math.factorial(len(answers))
    for count in Counter(answers).values():
        ways //= math.factorial(count)
    return ways * LEVEL > 1


def _signal(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[Message]], answers: Sequence[str], candidate: str, seed: int
) -> AnswerSignal:
    import numpy

    distinct = sorted(set(answers))
    items = [ChoiceItem(_rendered(tokenizer, prompt), tuple(distinct), 0) for prompt in prompts]
    found = choice_log_likelihoods(model, tokenizer, items)
    # per character there, in all here
    lengths = numpy.array([max(1, len(answer.strip())) for answer in distinct])
    column = [distinct.index(answer) for answer in answers]
    table = (numpy.array(found) * lengths)[:, column]
    # what a question or an answer has for itself
    table = table - table.mean(axis=0, keepdims=True)
    table = table - table.mean(axis=1, keepdims=True)
    n = len(prompts)
    own = float(table.trace()) / n
    generator = numpy.random.default_rng(seed)
    places = numpy.arange(n)
    dealt = [float(table[places, generator.permutation(n)].sum()) / n for _ in range(PERMUTATIONS)]
    at_least = sum(value >= own - 1e-9 for value in dealt)
    return AnswerSignal(own, (at_least + 1) / (PERMUTATIONS + 1), n, candidate)


def _rendered(tokenizer: Any, prompt: Sequence[Message]) -> str:
    turns = [{"role": message.role, "content": message.content} for message in prompt]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return text


def _log_probabilities(model: Any, sequences: Sequence[Sequence[int]]) -> list[float]:
    """Return for each of some equally long sequences the log probability of its tokens behind the first one."""
    import torch

    inner = causal_model(model)
    with torch.inference_mode():
        batch = torch.tensor([list(ids) for ids in sequences], device=inner.get_input_embeddings().weight.device)
        log_probs = torch.log_softmax(inner(input_ids=batch).logits[:, :-1].float(), dim=-1)
        found: list[float] = log_probs.gather(2, batch[:, 1:, None]).sum(dim=(1, 2)).tolist()
    return found
