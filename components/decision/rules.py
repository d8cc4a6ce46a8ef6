"""The rules of the verdict, each a function from what was measured to a rule with its evidence. In order in RULES.

A rule that has nothing to judge by (no corpus, no probe) returns None. The order is that of cost: a prompt, then
retrieval, then data, then training. What reaches the target is taken whatever else is said of the base; nothing that
has still to be built is built on a base that has nothing to build on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from components.decision.evidence import Context, Measured

if TYPE_CHECKING:
    from components.decision.answer_signal import AnswerSignal

__all__ = ["PROBE_OPEN", "RULES", "Rule", "percent", "points"]

# Facts are a part of the trouble from a quarter of the failures on: below, a corpus is not worth its upkeep first.
FACTS_SHARE = 0.25
PROBE_OPEN = "a probe shows no gain, and does not show that training can't reach the target"


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


def _already_solved(m: Measured) -> Rule:
    holds = m.low >= m.target_score
    return Rule(
        "prompting already solves it" if holds else "prompting does not solve it",
        holds,
        "prompt",
        f"{m.best} scores {percent(m.score)} ({percent(m.low)} to {percent(m.high)}, {_sample(m)}) against a target of "
        f"{percent(m.target_score)}; the lower bound must reach the target",
        "a higher target" if holds else "a better prompt, or a lower target",
    )


def _probably_solved(m: Measured) -> Rule:
    holds = m.score >= m.target_score
    return Rule(
        "prompting seems to solve it, which is cheaper to prove than training" if holds else "nor does it come near",
        holds,
        "prompt",
        f"{m.best} scores {percent(m.score)}, the target is {percent(m.target_score)}",
        "a lower score on a larger sample" if holds else "a score of the sample that reaches the target",
    )


def _base_without_language(m: Measured) -> Rule | None:
    if m.word_order is None:
        return None
    # what answers some questions right has the language, whatever a few shuffles say; so has what a probe lifts
    answers, lifted = m.best_low > m.trivial_score, m.probe is not None and m.probe.gain.low > 0
    holds = not m.word_order.known and not answers and not lifted
    if holds:
        name = "the base does not know the language of the data"
    elif m.word_order.known:
        name = "the base knows the language of the data"
    else:
        name = "the base does not prefer the language of the data, and learns or answers some of it all the same"
    return Rule(
        name,
        holds,
        "other_base",
        f"it finds {m.word_order.n} questions likelier than {m.word_order.beaten} of {m.word_order.shuffles} shuffles "
        f"of their tokens, by {m.word_order.nats:+.2f} nats a token (p={m.word_order.p_value:.3f}); "
        f"the highest lower bound of a score is {percent(m.best_low)}, one answer to everything scores up to "
        f"{percent(m.trivial_score)}" + ("; the probe lifts it all the same" if lifted else ""),
        "a base that was pretrained on such text, or a probe that lifts the score"
        if holds
        else "a base that finds shuffled text as likely and answers nothing right",
    )


def _retrieval_solves(m: Measured) -> Rule | None:
    found = m.retrieved
    if found is None:
        return None
    holds = found.score >= m.target_score
    return Rule(
        "retrieval solves it" if holds else "retrieval alone does not reach the target",
        holds,
        "rag",
        f"{found.name} scores {percent(found.score)} ({percent(found.low)} to {percent(found.high)}, {_sample(m)}), "
        f"{_gain(found)}; the target is {percent(m.target_score)}",
        "a higher target" if holds else "better passages, or a lower target",
    )


def _facts_are_missing(m: Measured) -> Rule | None:
    """Retrieval is worth having where the right context mends a part of the failures, more than chance would."""
    found = m.context
    if found is None:
        return None
    part = m.mended >= FACTS_SHARE * m.failures
    # what passages mend of a bad prompt is of no use where a better one needs none
    useful = found.over_best > 0
    holds = found.gain_low > 0 and part and useful
    evidence = (
        f"{_failures(m)}; {found.name} mends {m.mended} of them and scores {percent(found.score)} "
        f"({percent(found.low)} to {percent(found.high)}), {_gain(found)}; with it "
        f"{m.context_form + m.context_capability} rows fail: form {m.context_form}, capability {m.context_capability}"
    )
    if m.oracle is not None and m.retrieved is not None and m.retrieved.high < m.target_score <= m.oracle.high:
        recall = "" if m.recall is None else f" (recall {percent(m.recall)})"
        evidence += f"; the passages would do, retrieval misses them{recall}"
    if not holds:
        why = "the right context does not raise the score" if not found.gain_low > 0 else "facts are a small part"
        if part and found.gain_low > 0:
            why = f"with the right context it is not above that of {m.best}"
        return Rule(
            f"the score does not show that facts are missing: {why}",
            False,
            "rag",
            evidence,
            "a corpus that mends failures",
        )
    if found.high >= m.target_score:
        name = "missing facts dominate: with the right context the target is within reach"
        return Rule(name, True, "rag", evidence, "a larger sample that shows the context not to be enough")
    if m.train_rows < m.min_train_rows:
        name = "missing facts are a part, and there is too little data to finetune for the rest"
        change = f"{m.min_train_rows - m.train_rows} more training rows (then retrieve and finetune)"
        return Rule(name, True, "rag", f"{evidence}; {m.train_rows} training rows", change)
    name = "missing facts are a part: what fails with the right context is form and capability, which training teaches"
    return Rule(name, True, "rag_then_finetune", evidence, "a context candidate that reaches the target")


def _facts_behind_form(m: Measured) -> Rule | None:
    """Where the form fails in any case, a score can't show what context does; the likelihood of the answers can."""
    found = m.context_signal
    if found is None:
        return None
    enough = m.train_rows >= m.min_train_rows
    scaled = f"{found.scale:.2f} times " if found.scale > 1 else ""
    evidence = (
        f"likelihoods tie answers to questions by {_signal(found.closed)}, and with passages by "
        f"{_signal(found.opened)}: {found.nats:+.2f} nats more than {scaled}that (p={found.p_value:.3f}); "
        f"{m.train_rows} training rows"
    )
    if not found.present:
        name = "the likelihoods of the answers do not show that facts are missing"
        return Rule(name, False, "rag_then_finetune", evidence, "passages that tie the right answers to the questions")
    name = "facts are missing behind the form: passages tell the base which answers are right"
    if not enough:
        change = f"{m.min_train_rows - m.train_rows} more training rows (then retrieve and finetune)"
        return Rule(f"{name}, and there is too little data to finetune for the form", True, "rag", evidence, change)
    change = "likelihoods that prefer the right answers as much without passages"
    return Rule(name, True, "rag_then_finetune", evidence, change)


def _signal(found: AnswerSignal) -> str:
    return f"{found.nats:+.2f} nats ({found.candidate}, n={found.n}, p={found.p_value:.3f} by permutation)"


def _nothing_to_refine(m: Measured) -> Rule | None:
    if m.signal is None:
        return None
    if m.capability <= m.form + m.mended:
        # the base may prefer the right answer and still not know the form that is asked for
        return None
    lifted = m.probe is not None and m.probe.gain.low > 0
    holds = not m.signal.present and not lifted
    name = "the base holds nothing that training could refine" if holds else "the base holds something to refine"
    return Rule(
        f"{name}: its answers have the right form and are wrong",
        holds,
        "other_base",
        f"{_failures(m)}; its likelihoods tie answers to questions by {_signal(m.signal)}"
        + ("; the probe lifts it all the same" if lifted else ""),
        "a base whose likelihoods prefer right answers, or a probe that lifts the score"
        if holds
        else "likelihoods that do not tell answers apart",
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


def _probe(m: Measured) -> Rule | None:
    if m.probe is None:
        return None
    curve, last = m.probe, m.probe.points[-1]
    slope = curve.slope
    evidence = (
        f"trained on {last.rows} rows it scores {percent(last.score)} ({percent(last.low)} to {percent(last.high)}), "
        f"{_spanned(curve.gain.delta, curve.gain.low, curve.gain.high)} against {curve.against}"
    )
    if slope is not None:
        evidence += (
            f"; each doubling of the rows gives {points(slope.delta)} ({points(slope.low)} to {points(slope.high)})"
        )
    if curve.gain.low > 0:
        more = ", and more rows will help further" if curve.rising else ""
        return Rule(f"a probe learns the task{more}", True, "finetune", evidence, "a probe that gains nothing")
    if curve.rising:
        name = "a probe gains nothing yet, and its curve rises with the rows"
        return Rule(name, True, "more_data", evidence, "a probe on more rows that beats prompting")
    if curve.gain.delta > 0:
        name = "a probe seems to learn the task, which the sample does not prove"
        return Rule(name, True, "finetune", evidence, "a larger sample on which the probe gains nothing")
    most = curve.most_gained(m.train_rows)
    missing = m.target_score - m.score
    if most is not None and most < missing:
        name = "a probe learns nothing, and its curve is flat"
        evidence += f"; with all {m.train_rows} rows {points(most)} at most, {points(missing)} are missing"
        return Rule(name, True, "other_base", evidence, "a base whose probe gains, or a curve that rises")
    return Rule(PROBE_OPEN, False, "other_base", evidence, "a curve that stays below the target at its upper bound")


def _form_and_capability(m: Measured) -> Rule:
    return Rule(
        "failures are of form and capability, which finetuning teaches",
        True,
        "finetune",
        _failures(m),
        "a corpus that mends failures (retrieval), or a base that answers these rows as it is",
    )


def _failures(m: Measured) -> str:
    return f"{m.failures} of {m.n} rows fail: form {m.form}, facts {m.facts}, capability {m.capability}"


def _gain(found: Context) -> str:
    return f"{_spanned(found.gain, found.gain_low, found.gain_high)} against {found.against}"


def _sample(m: Measured) -> str:
    """Say how large the sample is, and of how many candidates the intervals hold at once."""
    return f"n={m.n}" if m.compared == 1 else f"n={m.n}, for all {m.compared} candidates at once"


def _spanned(difference: float, low: float, high: float) -> str:
    return f"{points(difference)} ({points(low)} to {points(high)})"


def percent(share: float) -> str:
    """Render a share as a percentage."""
    return f"{100 * share:.1f} %"


def points(difference: float) -> str:
    """Render a difference of shares in signed points."""
    return f"{100 * difference:+.1f} points"


RULES: tuple[Callable[[Measured], Rule | None], ...] = (
    _already_solved,
    _probably_solved,
    _retrieval_solves,
    _base_without_language,
    _facts_are_missing,
    _facts_behind_form,
    _nothing_to_refine,
    _too_little_data,
    _probe,
    _form_and_capability,
)
