"""Decide by measurement whether finetuning is the right answer. After the data in the flow, before the memory plan.

Every candidate answers the same dev rows; the failures of the best simple prompt are told apart; the rules of rules.py
read the result. What costs more than prompting (tests of the base, a probe) is done only where a rule needs it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from components.decision.answer_signal import AnswerLikelihoods, answer_signal
from components.decision.baselines import (
    CANDIDATES,
    ORACLE_CANDIDATES,
    RETRIEVAL_CANDIDATES,
    SIMPLE_CANDIDATES,
    build_prompts,
    counterpart,
)
from components.decision.comparison import (
    CHAMPION,
    PROBE,
    best_deployable,
    best_simple,
    compare_to_all,
    describe,
    gather,
    right_context,
)
from components.decision.context import gold_ids
from components.decision.context_signal import context_signal
from components.decision.cost import finetuned_request, shared_prefix_tokens, tokens_saved
from components.decision.diagnosis import ContextAnswers, diagnose, malformed
from components.decision.document import CandidateResult, Decision
from components.decision.form import learn_form
from components.decision.probe import LearningCurve, run_probe
from components.decision.prompts import CandidatePrompts
from components.decision.verdict import reach_verdict
from components.decision.word_order import word_order
from components.errors import InputError
from components.evaluation.generation import answer_positions
from components.evaluation.task import TaskResult, evaluate_task

if TYPE_CHECKING:
    from components.data.rows import Row
    from components.decision.context import ContextSource

__all__ = ["decide", "default_candidates"]


Progress = Callable[[str, int, int], None]
# Verdicts that say that training comes next, now or later: only then are base and probe looked at.
TRAINING_NEXT = ("finetune", "more_data")
# A probe that was asked for can overrule what the likelihoods say against a base, so it runs there as well.
PROBED = (*TRAINING_NEXT, "other_base")


def default_candidates(
    *, written: bool = False, few_shot: int = 3, corpus: bool = False, gold: bool = False
) -> tuple[str, ...]:
    """Return every candidate that there are means for, in the order in which they cost.

    Args:
        written: A prompt was written for the task.
        few_shot: Examples a prompt; 0 leaves few-shot prompts out.
        corpus: There is a corpus.
        gold: The dev rows name gold passages of it.
    """
    possible = {
        "zero-shot": True,
        "prompt": written,
        "few-shot": few_shot > 0,
        "few-shot-retrieved": few_shot > 0,
        "rag": corpus,
        "rag-few-shot": corpus and few_shot > 0,
        "oracle": corpus and gold,
        "oracle-few-shot": corpus and gold and few_shot > 0,
    }
    return tuple(name for name, there in possible.items() if there)


def decide(
    model: Any,
    tokenizer: Any,
    *,
    dev_rows: Sequence[Row],
    train_rows: Sequence[Row],
    metric: str,
    metric_options: Mapping[str, Any],
    max_new_tokens: int,
    candidates: Sequence[str] = (),
    few_shot: int = 3,
    target_score: float = 0.9,
    min_train_rows: int = 50,
    seed: int = 0,
    batch_size: int = 32,
    written: str | None = None,
    context: ContextSource | None = None,
    champion: Callable[[], Any] | None = None,
    probe: tuple[Sequence[float], Callable[[Sequence[Row]], Any]] | None = None,
    progress: Progress | None = None,
) -> Decision:
    """Measure every candidate on the dev rows and reach a verdict.

    Args:
        model: The base model.
        tokenizer: Its tokenizer.
        dev_rows: The sample that is measured on, at least one row.
        train_rows: What could be trained on; examples are taken from here.
        metric: Name of the task's metric.
        metric_options: Options of the metric.
        max_new_tokens: Most tokens an answer may have.
        candidates: Names out of CANDIDATES; none, all that there are means for.
        few_shot: Examples a few-shot prompt carries.
        target_score: Score at which the task counts as solved, 0 to 1.
        min_train_rows: Fewest rows that finetuning is tried with.
        seed: Seed of the examples.
        batch_size: Prompts decoded at once.
        written: The prompt written for the task.
        context: Where passages come from.
        champion: Loads the model that is there already; it answers the plain prompt.
        probe: Fractions of the training rows, and a function that trains on rows and returns the tuned model.
        progress: Called with (candidate, finished, all) after each answer.

    Returns:
        The decision.

    Raises:
        InputError: No dev rows, no or unknown candidates, one without what it needs, an unknown metric, or a prompt
            that is too long.
    """
    if not dev_rows:
        raise InputError("there are no dev rows to decide on", next_step="name a dev split in the recipe")
    gold = context is not None and all(map(gold_ids, dev_rows))
    names = tuple(candidates) or default_candidates(
        written=bool(written), few_shot=few_shot, corpus=context is not None, gold=gold
    )
    _check(names, few_shot, target_score)
    positions = answer_positions(model)
    results: dict[str, TaskResult] = {}
    prompts: dict[str, CandidatePrompts] = {}
    notes = _sample_notes(dev_rows, candidates, context)

    def answered(name: str, by: Any) -> TaskResult:
        return evaluate_task(
            by,
            tokenizer,
            dev_rows,
            metric=metric,
            options=metric_options,
            max_new_tokens=max_new_tokens,
            prompts=prompts[name].prompts if name in prompts else None,
            batch_size=batch_size,
            progress=_named(progress, name),
        )

    def built(name: str) -> CandidatePrompts:
        return build_prompts(
            name,
            dev_rows,
            train_rows,
            tokenizer=tokenizer,
            positions=positions,
            max_new_tokens=max_new_tokens,
            examples=few_shot,
            seed=seed,
            written=written,
            context=context,
        )

    # all of them before the first answer: what is wrong with the last one is told before time is spent
    for name in names:
        prompts[name] = built(name)
    for name in names:
        notes += [note] if (note := prompts[name].note) else []
        if "few-shot" in name and len(train_rows) < few_shot:
            notes.append(f"{name}: only {len(train_rows)} training rows to take {few_shot} examples from")
        results[name] = answered(name, model)
    if champion is not None:
        results[CHAMPION] = found = answered(CHAMPION, champion())
        # no rule: a second run of a recipe must not be refused for what the first one reached
        reaches = "reaches" if found.score >= target_score else "does not reach"
        notes.append(f"champion: what is there {reaches} the target, with {100 * found.score:.1f} %")

    form = learn_form([row.answer for row in train_rows])

    def malformed_answers(name: str) -> int:
        found = zip(results[name].predictions, dev_rows, results[name].scores, strict=True)
        return sum(score < 1 and malformed(metric, text, row, metric_options, form) for text, row, score in found)

    simple, right = best_simple(results, malformed_answers), right_context(results)
    diagnosis = diagnose(
        metric,
        metric_options,
        dev_rows,
        results[simple].predictions,
        results[simple].scores,
        form=form,
        context=_context_answers(results, right),
    )
    measured = gather(
        results,
        simple,
        diagnosis,
        target_score=target_score,
        train_rows=len(train_rows),
        min_train_rows=min_train_rows,
        seed=seed,
        recall=context.recall(dev_rows) if context and any(name in RETRIEVAL_CANDIDATES for name in names) else None,
        trivial_score=max(Counter(row.answer for row in dev_rows).values()) / len(dev_rows),
        written=bool(written),
    )
    if measured.context is not None and not measured.context.pure:
        notes.append(
            f"{measured.context.name}: compared with {simple}, so that its gain is not that of the passages alone; "
            f"with {counterpart(measured.context.name, written=bool(written))} among the candidates it would be"
        )
    if not measured.solved:
        measured = replace(measured, word_order=word_order(model, tokenizer, dev_rows, seed))
        if measured.word_order is None:
            notes.append("order of words: not tested, for no question has four different tokens")
    unclear = right is not None or diagnosis.capability > diagnosis.form
    if reach_verdict(measured).verdict in TRAINING_NEXT and unclear:
        likelihoods = AnswerLikelihoods(
            model,
            tokenizer,
            [row.answer for row in dev_rows],
            seed,
            (lambda name, done, whole: progress(f"likelihoods, {name}", done, whole)) if progress else None,
        )
        asked = right or simple
        measured = replace(measured, signal=answer_signal(likelihoods, asked, prompts[asked].prompts))
        if measured.signal is None:
            notes.append("likelihoods of answers: not tested, for too few of the sample's answers differ")
        other = counterpart(asked, written=bool(written))
        if other is not None and measured.signal and measured.signal.present:
            # it need not be a candidate: nothing is decoded here
            without = (prompts[other] if other in prompts else built(other)).prompts
            gained = context_signal(likelihoods, opened=(asked, prompts[asked].prompts), closed=(other, without))
            measured = replace(measured, context_signal=gained)
    if probe is not None and len(train_rows) >= min_train_rows and reach_verdict(measured).verdict in PROBED:
        measured = replace(measured, probe=_probe(probe, train_rows, answered, results, simple, seed))
    finetuned = finetuned_request(tokenizer, dev_rows)
    # a model that is finetuned to retrieve is asked so, whether or not the base was
    retrieving = None if context is None else (prompts["rag"] if "rag" in prompts else built("rag")).prompts
    finetuned_with_passages = finetuned_request(tokenizer, dev_rows, retrieving) if retrieving else None
    tokens = {name: result.tokens_per_request for name, result in results.items()}
    saved = tokens_saved(tokens, finetuned.tokens_per_request)
    if finetuned_with_passages is not None:
        # finetuning takes the examples out of such a prompt, not its passages
        retrieving_tokens = {name: number for name, number in tokens.items() if name in RETRIEVAL_CANDIDATES}
        saved |= tokens_saved(retrieving_tokens, finetuned_with_passages.tokens_per_request)

    def described(name: str) -> CandidateResult:
        # a champion and a probe are asked the rows' own prompts
        asked = prompts[name].prompts if name in prompts else [row.prompt for row in dev_rows]
        shared = shared_prefix_tokens(tokenizer, asked)
        return describe(name, results, simple, saved=saved[name], shared=shared, seed=seed, written=bool(written))

    return Decision(
        reach_verdict(measured),
        best_deployable(results),
        simple,
        tuple(described(name) for name in results),
        compare_to_all(results, simple, seed),
        diagnosis,
        finetuned,
        len(dev_rows),
        tuple(sorted({str(row.metadata["subset"]) for row in dev_rows if "subset" in row.metadata})),
        seed,
        few_shot,
        (*notes, diagnosis.note),
        measured.recall,
        measured.word_order,
        measured.signal,
        measured.context_signal,
        measured.probe,
        finetuned_with_passages,
    )


def _check(candidates: Sequence[str], few_shot: int, target_score: float) -> None:
    unknown = [name for name in candidates if name not in CANDIDATES]
    if unknown or len(set(candidates)) < len(candidates):
        problem = f"unknown candidate {unknown[0]!r}" if unknown else f"candidates {list(candidates)}"
        raise InputError(problem, allowed=f"one or more of {', '.join(CANDIDATES)}, each once")
    if not any(name in SIMPLE_CANDIDATES for name in candidates):
        raise InputError(
            f"candidates {list(candidates)} have no prompt without passages to compare with",
            allowed=f"at least one of {', '.join(SIMPLE_CANDIDATES)}",
            next_step="name one of these beside them in decision.candidates",
        )
    if few_shot < 1 and any("few-shot" in name for name in candidates):
        raise InputError(f"few_shot is {few_shot}", allowed="1 or more examples", next_step="raise decision.few_shot")
    if not 0 < target_score <= 1:
        raise InputError(f"target_score is {target_score}", allowed="a fraction above 0, at most 1")


def _sample_notes(rows: Sequence[Row], candidates: Sequence[str], context: ContextSource | None) -> list[str]:
    """Say what the sample lets nobody see: rows that are no rows of their own, gold passages that some rows lack."""
    notes = []
    again = len(rows) - len({row.messages for row in rows})
    if again:
        notes.append(
            f"sample: {again} of {len(rows)} dev rows repeat another one; the intervals take them for rows of their own"
        )
    named = sum(bool(gold_ids(row)) for row in rows) if context is not None else 0
    if not candidates and 0 < named < len(rows):
        left = "oracle: left out, for gold passages are named by"
        notes.append(f"{left} {named} of {len(rows)} dev rows only")
    return notes


def _context_answers(results: Mapping[str, TaskResult], right: str | None) -> ContextAnswers | None:
    if right is None:
        return None
    found = results[right]
    return ContextAnswers(right, right in ORACLE_CANDIDATES, found.predictions, found.scores)


def _probe(
    probe: tuple[Sequence[float], Callable[[Sequence[Row]], Any]],
    train_rows: Sequence[Row],
    answered: Callable[[str, Any], TaskResult],
    results: dict[str, TaskResult],
    simple: str,
    seed: int,
) -> LearningCurve:
    fractions, train = probe

    def train_and_measure(rows: Sequence[Row]) -> TaskResult:
        results[PROBE] = answered(PROBE, train(rows))
        return results[PROBE]

    return run_probe(
        fractions,
        train_rows,
        train_and_measure,
        simple_name=simple,
        simple_scores=results[simple].scores,
        seed=seed,
    )


def _named(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    return (lambda done, total: progress(name, done, total)) if progress else None
