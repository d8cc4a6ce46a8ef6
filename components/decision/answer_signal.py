"""Does the base tie answers to their questions? A permutation test on likelihoods, without decoding. Read by decide.

Does it find each question's answer likelier than it finds the answers of the other questions? The sum over the rows'
own answers in the matrix of log probabilities is held against the sums over answers dealt out anew (Fisher 1935, "The
Design of Experiments"); no threshold of ours. What every answer has for itself (length, frequency) cancels. Where the
answers can be dealt out in too few ways for any of them to be rare, nothing can be told.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from components.errors import InputError
from components.evaluation.likelihood import ChoiceItem, choice_log_likelihoods

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from components.data.rows import Message

__all__ = ["CLEAR", "LEVEL", "AnswerLikelihoods", "AnswerSignal", "answer_signal", "pairings", "permutation_p", "tied"]

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


class AnswerLikelihoods:
    """How likely the base finds every row's answer behind every row's question: a table for each way of prompting.

    Tables are computed when they are asked for, and once.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer, with a chat template.
        answers: The right answer of each row.
        seed: Seed of the permutations.
        progress: Called with (candidate, questions done, all) while a table is computed.

    Raises:
        InputError: No answers.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        answers: Sequence[str],
        seed: int = 0,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self._progress = progress
        if not answers:
            raise InputError("there are no answers to find likelihoods of", allowed="at least one row")
        self.seed = seed
        self._model, self._tokenizer, self._answers = model, tokenizer, list(answers)
        self._tables: dict[tuple[str, int], NDArray[Any]] = {}

    @property
    def looks(self) -> tuple[int, ...]:
        """Return the numbers of rows to test with, one after the other; none where the answers differ too little.

        The first 8 rows, and where they don't decide the first 32; with long answers fewer, 8 at least.
        """
        lengths = [len(self._tokenizer(answer, add_special_tokens=False)["input_ids"]) + 1 for answer in self._answers]
        tokens = sum(lengths) / len(lengths)
        rows = SIGNAL_ROWS
        if len(set(self._answers[:SIGNAL_ROWS])) * tokens > SIGNAL_TOKENS:
            rows = max(MIN_SIGNAL_ROWS, int(SIGNAL_TOKENS / tokens))
        limits = dict.fromkeys(min(limit, len(self._answers)) for limit in (FIRST_ROWS, rows))
        return tuple(limit for limit in limits if _testable(self._answers[:limit]))

    def table(self, candidate: str, prompts: Sequence[Sequence[Message]], rows: int) -> NDArray[Any]:
        """Return the log probabilities of the answers behind the questions, what each has for itself taken out.

        Args:
            candidate: Name of the way of prompting.
            prompts: Its turns before each answer.
            rows: How many of the rows to use.

        Returns:
            [rows, rows] in nats: a line a question, a column an answer, so that a row's own answer is on the diagonal.
            The mean of every line and of every column is zero.

        Raises:
            InputError: Another number of prompts than of answers.
        """
        import numpy

        if len(prompts) != len(self._answers):
            raise InputError(f"{len(self._answers)} answers for {len(prompts)} prompts", allowed="one for each")
        if (candidate, rows) not in self._tables:
            answers = self._answers[:rows]
            distinct = sorted(set(answers))
            items = [ChoiceItem(_rendered(self._tokenizer, prompt), tuple(distinct), 0) for prompt in prompts[:rows]]
            told = self._progress
            watched = None if told is None else lambda done, whole: told(candidate, done, whole)
            found = choice_log_likelihoods(self._model, self._tokenizer, items, progress=watched)
            # per character there, in all here
            lengths = numpy.array([max(1, len(answer.strip())) for answer in distinct])
            table = (numpy.array(found) * lengths)[:, [distinct.index(answer) for answer in answers]]
            table = table - table.mean(axis=0, keepdims=True)
            self._tables[candidate, rows] = table - table.mean(axis=1, keepdims=True)
        return self._tables[candidate, rows]


def answer_signal(
    likelihoods: AnswerLikelihoods, candidate: str, prompts: Sequence[Sequence[Message]]
) -> AnswerSignal | None:
    """Test whether the base's likelihoods tie answers to their questions.

    Args:
        likelihoods: The base's, for the rows' answers.
        candidate: Whose prompts these are, for the record.
        prompts: The turns before each answer.

    Returns:
        The mean advantage in nats and the permutation test's p-value. None where it can't be tested: the answers are
        the same, or so few differ that no pairing is rarer than 5 %. That is no sign of an absent signal.

    Raises:
        InputError: Another number of prompts than of answers.
    """
    found = None
    for look, rows in enumerate(likelihoods.looks):
        found = tied(likelihoods.table(candidate, prompts, rows), candidate, likelihoods.seed, looked_before=look > 0)
        if found.p_value < CLEAR:
            break
    return found


def tied(table: NDArray[Any], candidate: str, seed: int, *, looked_before: bool = False) -> AnswerSignal:
    """Test one table: does it favour its diagonal more than it favours pairings at random?

    Args:
        table: As `AnswerLikelihoods.table` gives it, [n, n].
        candidate: Whose prompts these are, for the record.
        seed: Seed of the permutations.
        looked_before: A first look has been taken, and was not clear.
    """
    n = len(table)
    own = float(table.trace()) / n
    dealt = table[range(n), pairings(n, seed)].mean(axis=1)
    return AnswerSignal(own, permutation_p(own, dealt, looked_before=looked_before), n, candidate)


def pairings(n: int, seed: int) -> NDArray[Any]:
    """Return random pairings of n questions with n answers, [4000, n]: the place of the answer for each question."""
    import numpy

    generator = numpy.random.default_rng(seed)
    return numpy.stack([generator.permutation(n) for _ in range(PERMUTATIONS)])


def permutation_p(own: float, dealt: NDArray[Any], *, looked_before: bool = False) -> float:
    """Return the share of pairings, the real one among them, that fit at least as well.

    Args:
        own: The statistic of the real pairing.
        dealt: That of each random one.
        looked_before: A first look has been taken, and was not clear: the share of false alarms that it could have
            given is added, so that both looks together keep to the level.
    """
    share = (int((dealt >= own - 1e-9).sum()) + 1) / (len(dealt) + 1)
    return min(1.0, share + CLEAR) if looked_before else share


def _testable(answers: Sequence[str]) -> bool:
    """Whether these answers can be dealt out in so many different ways that one of them is rarer than 5 %."""
    ways = math.factorial(len(answers))
    for count in Counter(answers).values():
        ways //= math.factorial(count)
    return ways * LEVEL > 1


def _rendered(tokenizer: Any, prompt: Sequence[Message]) -> str:
    turns = [{"role": message.role, "content": message.content} for message in prompt]
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return text
