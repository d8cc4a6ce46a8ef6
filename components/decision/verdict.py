"""From measurements to a verdict: explicit rules in a fixed order, each with its evidence and what would change it.

The first rule that holds decides. Prompting is tried before data, data before training; a tie is never passed off as
a decision: it is said to be undecided, with the sample that would decide it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["VERDICTS", "Measured", "Rule", "Verdict", "reach_verdict"]

VERDICTS = ("prompt", "rag", "finetune", "rag_then_finetune", "other_base", "more_data")

# A dev sample smaller than this gives intervals wider than 40 points: no difference of use can be told.
MIN_DEV_ROWS = 20


@dataclass(frozen=True)
class Measured:
    """What the rules read.

    Attributes:
        best: Name of the best candidate.
        score: Its score.
        low: Lower bound of the score's 95 % interval.
        high: Upper bound.
        n: Number of dev rows.
        form: Its failures of form.
        facts: Its failures for missing facts.
        capability: Its failures of capability.
        target_score: Score at which the task counts as solved.
        train_rows: Number of training rows.
        min_train_rows: Fewest rows that finetuning is tried with.
        rows_to_decide: Dev rows that would tell the best score from the target; None where they are equal.
    """

    best: str
    score: float
    low: float
    high: float
    n: int
    form: int
    facts: int
    capability: int
    target_score: float
    train_rows: int
    min_train_rows: int
    rows_to_decide: int | None


@dataclass(frozen=True)
class Rule:
    """One rule, in the order in which it was tried.

    Attributes:
        name: Its name.
        holds: Whether it holds; the first that does decides.
        verdict: What it decides.
        evidence: The numbers that it was judged by.
        would_change: What would turn its outcome round.
    """

    name: str
    holds: bool
    verdict: str
    evidence: str
    would_change: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """The verdict, every rule that was tried, and what stays undecided."""

    verdict: str
    rules: tuple[Rule, ...]
    undecided: tuple[str, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """Return the evidence in order, of the rule that decided and of those before it, and what is undecided."""
        tried = [f"{rule.name}: {rule.evidence}. Would change with {rule.would_change}." for rule in self.rules]
        return (*tried, *self.undecided)


def reach_verdict(measured: Measured) -> Verdict:
    """Apply the rules in order.

    Args:
        measured: What was measured on the dev sample.

    Returns:
        The verdict with the rules tried, the deciding one last.
    """
    tried: list[Rule] = []
    for make in (_already_solved, _probably_solved, _too_little_data, _facts_dominate, _form_and_capability):
        tried.append(make(measured))
        if tried[-1].holds:
            break
    return Verdict(tried[-1].verdict, tuple(tried), _undecided(measured))


def _already_solved(m: Measured) -> Rule:
    holds = m.low >= m.target_score
    return Rule(
        "prompting already solves it" if holds else "prompting does not solve it",
        holds,
        "prompt",
        f"{m.best} scores {_percent(m.score)} ({_percent(m.low)} to {_percent(m.high)}, n={m.n}) against a target of "
        f"{_percent(m.target_score)}; the lower bound must reach the target",
        "a higher target" if holds else "a better prompt, or a lower target",
    )


def _probably_solved(m: Measured) -> Rule:
    holds = m.score >= m.target_score
    return Rule(
        "prompting seems to solve it, which is cheaper to prove than training" if holds else "nor does it come near",
        holds,
        "prompt",
        f"{m.best} scores {_percent(m.score)}, the target is {_percent(m.target_score)}",
        "a lower score on a larger sample" if holds else "a score of the sample that reaches the target",
    )


def _too_little_data(m: Measured) -> Rule:
    holds = m.train_rows < m.min_train_rows
    return Rule(
        "too little data to finetune" if holds else "there is data to finetune on",
        holds,
        "more_data",
        f"{m.train_rows} training rows, at least {m.min_train_rows} wanted",
        f"{m.min_train_rows - m.train_rows} more rows" if holds else f"fewer than {m.min_train_rows} rows",
    )


def _facts_dominate(m: Measured) -> Rule:
    holds = m.facts > 0 and m.facts > m.form + m.capability
    some = m.facts > 0 and not holds and m.facts >= 0.25 * (m.form + m.facts + m.capability)
    return Rule(
        "missing facts dominate" if holds else "missing facts are a part" if some else "missing facts do not dominate",
        holds or some,
        "rag_then_finetune" if some else "rag",
        _failures(m),
        "failures that the right context does not mend" if holds or some else "a corpus whose passages mend failures",
    )


def _form_and_capability(m: Measured) -> Rule:
    return Rule(
        "failures are of form and capability, which finetuning teaches",
        True,
        "finetune",
        _failures(m),
        "a corpus that mends failures (retrieval), or a base that answers these rows as it is",
    )


def _undecided(m: Measured) -> tuple[str, ...]:
    said = []
    if m.low < m.target_score <= m.high:
        needed = f"{m.rows_to_decide} dev rows" if m.rows_to_decide else "no number of dev rows (they are equal)"
        said.append(
            f"undecided: whether {m.best} reaches the target of {_percent(m.target_score)} "
            f"(interval {_percent(m.low)} to {_percent(m.high)}, n={m.n}); {needed} would decide"
        )
    if m.n < MIN_DEV_ROWS:
        said.append(
            f"undecided: {m.n} dev rows are a small sample (the score is known to "
            f"{100 * (m.high - m.low):.0f} points); {MIN_DEV_ROWS} rows or more are wanted"
        )
    return tuple(said)


def _failures(m: Measured) -> str:
    failed = m.form + m.facts + m.capability
    return f"{failed} of {m.n} rows fail: form {m.form}, facts {m.facts}, capability {m.capability}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
