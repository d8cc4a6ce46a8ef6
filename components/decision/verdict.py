"""From measurements to a verdict: explicit rules in a fixed order, each with its evidence and what would change it.

The first rule that holds decides (rules.py). A tie is never passed off as a decision: it is said to be undecided, with
the sample that would decide it; the cheaper answer is then taken, because it is cheaper to prove.
"""

from __future__ import annotations

from dataclasses import dataclass

from components.decision.evidence import Context, Measured
from components.decision.rules import PROBE_OPEN, RULES, Rule, percent
from components.evaluation.statistics import rows_needed

__all__ = ["VERDICTS", "Context", "Measured", "Rule", "Verdict", "reach_verdict"]

VERDICTS = ("prompt", "rag", "finetune", "rag_then_finetune", "other_base", "more_data")

# A dev sample smaller than this gives intervals wider than 40 points: no difference of use can be told.
MIN_DEV_ROWS = 20


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
        The verdict with the rules tried, the deciding one last. A rule that has nothing to judge by is left out.
    """
    tried: list[Rule] = []
    for make in RULES:
        rule = make(measured)
        if rule is not None:
            tried.append(rule)
            if rule.holds:
                break
    return Verdict(tried[-1].verdict, tuple(tried), _undecided(measured, tried))


def _undecided(m: Measured, tried: list[Rule]) -> tuple[str, ...]:
    said = []
    named = [(m.best, m.score, m.low, m.high, m.rows_to_decide)]
    # where retrieval reaches the target, nothing hangs on what the gold passages would do
    contexts = (m.retrieved, None if m.solved else m.oracle)
    for found in contexts:
        if found is None:
            continue
        rows = rows_needed(found.score, m.target_score, m.compared)
        named.append((found.name, found.score, found.low, found.high, rows))
    for name, score, low, high, rows in named:
        if low < m.target_score <= high and not (name != m.best and m.score >= m.target_score):
            needed = f"{rows} dev rows" if rows else "no number of dev rows (they are equal)"
            said.append(
                f"undecided: whether {name} reaches the target of {percent(m.target_score)} (score {percent(score)}, "
                f"interval {percent(low)} to {percent(high)}, n={m.n}); {needed} would decide"
            )
    if m.probe is not None and m.probe.gain.low <= 0 <= m.probe.gain.high:
        needed = f"{m.probe.pairs_needed} dev rows would decide" if m.probe.pairs_needed else "no difference was seen"
        said.append(f"undecided: whether the probe is better than {m.probe.against} (n={m.n}); {needed}")
    if any(rule.name == PROBE_OPEN for rule in tried) and m.probe is not None:
        if m.probe.slope is None:
            why = "one fraction of the rows gives no curve; a second fraction would"
        else:
            why = "its upper bound reaches the target; more dev rows would tell"
        said.append(f"undecided: whether training on more rows than the probe reaches the target: {why}")
    if m.n < MIN_DEV_ROWS:
        said.append(
            f"undecided: {m.n} dev rows are a small sample (the score is known to "
            f"{100 * (m.high - m.low):.0f} points); {MIN_DEV_ROWS} rows or more are wanted"
        )
    return tuple(said)
