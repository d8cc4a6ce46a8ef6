from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from components.data.rows import Message, Row
from components.decision.baselines import build_prompts
from components.decision.context import ContextSource
from components.decision.corpus import Passage
from components.decision.decide import decide, default_candidates
from components.decision.document import Decision
from components.errors import InputError
from components.evaluation.generation import generate
from components.evaluation.statistics import paired_interval

QUESTIONS = [
    f"How many singers are {word}?" for word in ("young", "old", "here", "there", "quick", "brown", "lazy", "A")
]


def rows(answers: list[str], start: int = 0) -> list[Row]:
    return [
        Row((Message("user", question), Message("assistant", answer)), {"id": f"r{start + number}"}, line=number + 1)
        for number, (question, answer) in enumerate(zip(QUESTIONS, answers, strict=True))
    ]


TRAIN = [Row((Message("user", f"q {n}"), Message("assistant", f"a {n}")), {"id": f"t{n}"}) for n in range(30)]


def run(model: Any, tokenizer: Any, dev: list[Row], **settings: Any) -> Decision:
    chosen = {"candidates": ("zero-shot", "few-shot"), "few_shot": 2, "min_train_rows": 20, "seed": 1, **settings}
    return decide(
        model, tokenizer, dev_rows=dev, train_rows=chosen.pop("train_rows", TRAIN), metric="exact_match",
        metric_options={}, max_new_tokens=6, **chosen,
    )  # fmt: skip


def answers_of(model: Any, tokenizer: Any, candidate: str) -> list[str]:
    """What the model really answers, so that rows can be made which it gets right."""
    built = build_prompts(
        candidate, rows(["?"] * 8), TRAIN, tokenizer=tokenizer, positions=1024, max_new_tokens=6, examples=2, seed=1
    )
    return [completion.text for completion in generate(model, tokenizer, built.prompts, max_new_tokens=6)]


def test_random_model_is_no_base_and_the_document_holds_its_keys(tiny_model: Any, tiny_tokenizer: Any) -> None:
    seen: list[tuple[str, int, int]] = []
    found = run(tiny_model, tiny_tokenizer, rows(["42"] * 8), progress=lambda *event: seen.append(event))
    document = json.loads(json.dumps(found.to_dict()))
    assert document["verdict"] == "other_base"
    assert document["word_order"]["known"] is False
    assert document["rules"][-1]["verdict"] == "other_base"
    assert set(document["failures"]) == {"form", "facts", "capability"}
    assert sum(document["failures"].values()) == document["n"] == 8
    assert [candidate["name"] for candidate in document["candidates"]] == ["zero-shot", "few-shot"]
    for candidate in document["candidates"]:
        assert set(candidate) >= {"name", "score", "low", "high", "n", "tokens_per_request", "seconds_per_request"}
        assert (candidate["delta"] is None) == (candidate["name"] == document["best_simple"])
    assert any("no corpus given" in reason for reason in document["reasons"])
    assert seen[0] == ("zero-shot", 1, 8)
    assert seen[-1] == ("few-shot", 8, 8)


def test_questions_of_one_word_and_equal_answers_are_no_evidence_against_the_base(
    tiny_model: Any, tiny_tokenizer: Any
) -> None:
    dev = [replace(row, messages=(Message("user", f"{n}"), row.messages[-1])) for n, row in enumerate(rows(["42"] * 8))]
    train = [
        replace(row, messages=(row.messages[0], Message("assistant", "w x" * (n + 1)))) for n, row in enumerate(TRAIN)
    ]
    found = run(tiny_model, tiny_tokenizer, dev, candidates=("zero-shot",), train_rows=train)
    assert (found.word_order, found.signal) == (None, None)
    assert found.verdict.verdict == "finetune"
    assert any("order of words: not tested" in note for note in found.notes)


def test_equal_scores_go_to_the_cheaper_candidate_and_are_said_to_be_undecided(
    tiny_model: Any, tiny_tokenizer: Any
) -> None:
    found = run(tiny_model, tiny_tokenizer, rows(["42"] * 8), candidates=("few-shot", "zero-shot"))
    assert found.best_candidate == "zero-shot"
    (comparison,) = found.comparisons
    assert {comparison.best, comparison.other} == {"zero-shot", "few-shot"}
    assert (comparison.best, comparison.decided, comparison.pairs_needed) == (found.best_simple, False, None)
    said = f"{comparison.best} is better than {comparison.other}"
    assert any(said in text for text in found.to_dict()["undecided"])


def test_better_candidate_wins_although_it_costs_more(tiny_model: Any, tiny_tokenizer: Any) -> None:
    plain, shown = (
        answers_of(tiny_model, tiny_tokenizer, "zero-shot"),
        answers_of(tiny_model, tiny_tokenizer, "few-shot"),
    )
    assert plain != shown, "the examples must change what this model says"
    found = run(tiny_model, tiny_tokenizer, rows(shown))
    by_name = {candidate.name: candidate for candidate in found.candidates}
    assert found.best_candidate == "few-shot"
    assert by_name["few-shot"].score == 1.0 > by_name["zero-shot"].score
    assert by_name["few-shot"].tokens_saved_by_finetuning > by_name["zero-shot"].tokens_saved_by_finetuning + 10
    assert found.verdict.verdict == "prompt"
    (comparison,) = found.comparisons
    right = [float(one == other) for one, other in zip(plain, shown, strict=True)]
    assert comparison.delta == paired_interval(right, [1.0] * 8).delta


def test_too_few_training_rows_are_told(tiny_model: Any, tiny_tokenizer: Any) -> None:
    found = run(tiny_model, tiny_tokenizer, rows(["42"] * 8), train_rows=TRAIN[:1])
    assert "few-shot: only 1 training rows to take 2 examples from" in found.to_dict()["reasons"]


def test_same_seed_gives_the_same_decision(tiny_model: Any, tiny_tokenizer: Any) -> None:
    def without_times(found: Decision) -> dict[str, Any]:
        document = found.to_dict()
        for candidate in document["candidates"]:
            del candidate["seconds_per_request"]
        return document

    dev = rows(["42"] * 8)
    first, second = (run(tiny_model, tiny_tokenizer, dev, seed=4) for _ in range(2))
    assert without_times(first) == without_times(second)
    assert first.seed == 4


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"candidates": ("zero-shot", "guess")}, "unknown candidate 'guess'"),
        ({"candidates": ("zero-shot", "zero-shot")}, "candidates"),
        ({"candidates": ("rag",)}, "no prompt without passages"),
        ({"few_shot": 0}, "few_shot is 0"),
        ({"target_score": 90}, "target_score is 90"),
        ({"target_score": 0}, "target_score is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(tiny_tokenizer: Any, settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        run(None, tiny_tokenizer, rows(["42"] * 8), **settings)
    with pytest.raises(InputError, match="no dev rows"):
        run(None, tiny_tokenizer, [])


def test_no_examples_are_needed_where_no_few_shot_prompt_is_named(tiny_model: Any, tiny_tokenizer: Any) -> None:
    found = run(tiny_model, tiny_tokenizer, rows(["42"] * 8), candidates=("zero-shot",), few_shot=0)
    assert found.best_candidate == "zero-shot"


def shown(model: Any, tokenizer: Any, name: str, asked: list[Row], context: ContextSource) -> list[str]:
    built = build_prompts(
        name, asked, TRAIN, tokenizer=tokenizer, positions=1024, max_new_tokens=6, examples=2, seed=1, context=context
    )
    return [completion.text for completion in generate(model, tokenizer, built.prompts, max_new_tokens=6)]


def test_rows_that_only_the_context_gets_right_make_retrieval_the_answer(tiny_model: Any, tiny_tokenizer: Any) -> None:
    passages = [Passage(f"p{n}", f"singer {n} is {'old' * n}") for n in range(8)]
    context = ContextSource(passages, 1, one_hot)
    asked = [replace(row, metadata={**row.metadata, "gold": [f"p{n}"]}) for n, row in enumerate(rows(["?"] * 8))]
    answers = shown(tiny_model, tiny_tokenizer, "rag", asked, context)
    plain = shown(tiny_model, tiny_tokenizer, "zero-shot", asked, context)
    assert all(one != other for one, other in zip(answers, plain, strict=True)), "passages must change what it says"
    dev = [
        replace(row, messages=(*row.prompt, Message("assistant", text)))
        for row, text in zip(asked, answers, strict=True)
    ]
    found = run(tiny_model, tiny_tokenizer, dev, context=context, candidates=("zero-shot", "rag"))
    document = found.to_dict()
    by_name = {candidate["name"]: candidate for candidate in document["candidates"]}
    assert by_name["rag"]["score"] == 1.0
    assert by_name["rag"]["delta_low"] > 0
    assert document["best_candidate"] == "rag"
    assert document["best_simple"] == "zero-shot"
    assert document["failures_with_context"] == {"mended": 8, "form": 0, "capability": 0}
    assert document["verdict"] == "rag", "what reaches the target is not asked for its language"
    assert document["word_order"] is None
    everything = run(tiny_model, tiny_tokenizer, dev, context=context, candidates=())
    assert [c.name for c in everything.candidates] == list(default_candidates(few_shot=2, corpus=True, gold=True))


def test_finetuning_saves_the_examples_of_a_retrieving_prompt_and_not_its_passages(
    tiny_model: Any, tiny_tokenizer: Any
) -> None:
    context = ContextSource([Passage(f"p{n}", f"singer {n} is {'old ' * 9}") for n in range(8)], 1, one_hot)
    names = ("zero-shot", "rag-few-shot")
    found = run(tiny_model, tiny_tokenizer, rows(["42"] * 8), context=context, candidates=names)
    request = found.finetuned_with_passages
    assert request is not None, "there is a corpus, whether or not `rag` is a candidate"
    assert request.prompt_tokens_per_request > found.finetuned.prompt_tokens_per_request + 9
    plain, retrieving = found.candidates
    assert retrieving.tokens_saved_by_finetuning == retrieving.tokens_per_request - request.tokens_per_request
    assert plain.tokens_saved_by_finetuning == plain.tokens_per_request - found.finetuned.tokens_per_request


def test_candidate_with_passages_whose_counterpart_was_not_measured_is_said_to_be_confounded(
    tiny_model: Any, tiny_tokenizer: Any
) -> None:
    context = ContextSource([Passage(f"p{n}", f"singer {n} is old") for n in range(8)], 1, one_hot)
    found = run(tiny_model, tiny_tokenizer, rows(["42"] * 8), context=context, candidates=("zero-shot", "rag-few-shot"))
    assert any("with few-shot among the candidates" in note for note in found.notes)
    document = found.to_dict()
    assert document["candidates"][1]["passages"]["pure"] is False
    assert document["candidates"][1]["passages"]["against"] == "zero-shot"
    names = ("zero-shot", "few-shot", "rag-few-shot")
    whole = run(tiny_model, tiny_tokenizer, rows(["42"] * 8), context=context, candidates=names).to_dict()
    assert whole["candidates"][2]["passages"]["against"] == "few-shot"
    assert not any("among the candidates" in note for note in whole["reasons"])


def test_what_is_wrong_with_the_last_candidate_is_told_before_the_first_answer(
    tiny_model: Any, tiny_tokenizer: Any
) -> None:
    context = ContextSource([Passage(f"p{n}", f"singer {n} is old") for n in range(8)], 1, one_hot)
    seen: list[Any] = []
    with pytest.raises(InputError, match="names no passage"):
        run(
            tiny_model, tiny_tokenizer, rows(["42"] * 8), context=context, candidates=("zero-shot", "oracle"),
            progress=lambda *event: seen.append(event),
        )  # fmt: skip
    assert seen == []


def test_repeated_dev_rows_and_gold_passages_that_some_lack_are_told(tiny_model: Any, tiny_tokenizer: Any) -> None:
    context = ContextSource([Passage(f"p{n}", f"singer {n} is old") for n in range(8)], 1, one_hot)
    dev = rows(["42"] * 8)
    some = [replace(row, metadata={"gold": ["p1"]} if n < 3 else {}) for n, row in enumerate([*dev[:6], *dev[:2]])]
    found = run(tiny_model, tiny_tokenizer, some, context=context, candidates=())
    assert "sample: 2 of 8 dev rows repeat another one; the intervals take them for rows of their own" in found.notes
    assert "oracle: left out, for gold passages are named by 3 of 8 dev rows only" in found.notes
    assert "oracle" not in {candidate.name for candidate in found.candidates}


def one_hot(texts: Any) -> Any:
    """An embedding under which the n-th text of a call is like the n-th passage."""
    import torch

    return torch.eye(8)[[n % 8 for n in range(len(texts))]]


def test_champion_is_measured_beside_the_prompts_and_decides_nothing(
    tiny_model: Any, tiny_tokenizer: Any, tiny_folder: Path
) -> None:
    from transformers import AutoModelForCausalLM

    champion = AutoModelForCausalLM.from_pretrained(tiny_folder).eval()
    answers = answers_of(champion, tiny_tokenizer, "zero-shot")
    found = run(tiny_model, tiny_tokenizer, rows(answers), champion=lambda: champion)
    assert [candidate.kind for candidate in found.candidates] == ["simple", "simple", "champion"]
    assert found.candidates[-1].score == 1.0
    assert found.candidates[-1].delta == 1.0
    assert found.best_candidate in ("zero-shot", "few-shot"), "the champion is no way of prompting the base"
    assert found.verdict.verdict != "prompt"
    assert "champion: what is there reaches the target, with 100.0 %" in found.notes


def test_the_subsets_of_the_rows_measured_are_named(tiny_model: Any, tiny_tokenizer: Any) -> None:
    dev = [replace(row, metadata={"subset": ("joined", "single")[n % 2]}) for n, row in enumerate(rows(["42"] * 8))]
    assert run(tiny_model, tiny_tokenizer, dev, candidates=("zero-shot",)).to_dict()["subsets"] == ["joined", "single"]
    assert run(tiny_model, tiny_tokenizer, rows(["42"] * 8), candidates=("zero-shot",)).subsets == ()
