from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from components.data.chat import prompt_ids
from components.data.rows import Message, Row
from components.decision.baselines import CANDIDATES, build_prompts, few_shot, few_shot_retrieved, zero_shot
from components.errors import InputError


def row(question: str, answer: str, schema: str = "t(id)") -> Row:
    return Row((Message("system", schema), Message("user", question), Message("assistant", answer)), {}, line=1)


TRAIN = [row(f"how many {word}", f"count {word}", f"{word}(id)") for word in ("dogs", "cats", "cars", "ships", "songs")]
ASKED = [row("how old are cats", "age", "pets(age)"), row("which songs", "names", "music(name)")]


def always(_messages: Sequence[Message]) -> bool:
    return True


def words(texts: Sequence[str]) -> Any:
    """An embedding of the words that occur: length 1, and near for texts that share words."""
    import torch

    vocabulary = sorted({word for text in texts for word in text.split()})
    vectors = torch.tensor([[float(word in text.split()) for word in vocabulary] for text in texts])
    return torch.nn.functional.normalize(vectors, dim=1)


def test_zero_shot_asks_as_the_rows_do() -> None:
    assert zero_shot(ASKED).prompts == tuple(row.prompt for row in ASKED)


def test_few_shot_carries_the_same_seeded_examples_with_their_own_schema() -> None:
    found = few_shot(ASKED, TRAIN, 2, 0, always)
    first, second = found.prompts
    assert [message.role for message in first] == ["user", "assistant", "user", "assistant", "user"]
    assert first[:4] == second[:4], "examples come first, so that their tokens are shared"
    for question, answer in (first[0:2], first[2:4]):
        source = next(row for row in TRAIN if row.answer == answer.content)
        assert question.content == f"{source.prompt[0].content}\n\n{source.prompt[1].content}"
    assert first[-1].content == "pets(age)\n\nhow old are cats"
    assert few_shot(ASKED, TRAIN, 2, 0, always) == found
    assert len({few_shot(ASKED, TRAIN, 2, seed, always).prompts for seed in range(6)}) > 1


def test_row_to_be_answered_is_never_its_own_example() -> None:
    for built in (
        few_shot(TRAIN[:1], TRAIN[:2], 2, 0, always),
        few_shot_retrieved(TRAIN[:1], TRAIN[:2], 2, always, words),
    ):
        answers = [message.content for message in built.prompts[0] if message.role == "assistant"]
        assert answers == ["count cats"]


def test_retrieved_examples_are_the_most_similar_with_the_nearest_last() -> None:
    found = few_shot_retrieved(ASKED, TRAIN, 2, always, words)
    answers = [[message.content for message in prompt if message.role == "assistant"] for prompt in found.prompts]
    assert answers[0][-1] == "count cats"
    assert answers[1][-1] == "count songs"
    assert [len(each) for each in answers] == [2, 2]


def test_prompts_beyond_the_positions_drop_examples_and_say_so(tiny_tokenizer: Any) -> None:
    whole = few_shot(ASKED, TRAIN, 3, 0, always).prompts
    limit = max(len(prompt_ids(tiny_tokenizer, prompt)) for prompt in whole)
    settings = {"tokenizer": tiny_tokenizer, "max_new_tokens": 10, "examples": 3, "seed": 0}
    roomy = build_prompts("few-shot", ASKED, TRAIN, positions=limit + 10, **settings)
    assert (roomy.prompts, roomy.note) == (whole, None)
    tight = build_prompts("few-shot", ASKED, TRAIN, positions=limit, **settings)
    assert tight.shortened >= 1
    assert tight.note == f"few-shot: {tight.shortened} of 2 prompts carry fewer than 3 examples"
    assert all(len(prompt_ids(tiny_tokenizer, prompt)) + 10 <= limit for prompt in tight.prompts)
    assert tight.prompts[0][-1] == whole[0][-1], "the question itself is never cut"


def test_prompt_that_fits_in_no_way_is_refused(tiny_tokenizer: Any) -> None:
    with pytest.raises(InputError, match="line 1 of the dev rows: the prompt does not fit"):
        few_shot(ASKED, TRAIN, 3, 0, lambda messages: False)
    settings = {"tokenizer": tiny_tokenizer, "max_new_tokens": 10, "examples": 3, "seed": 0, "written": "Be brief."}
    for name in ("zero-shot", "prompt"):
        with pytest.raises(InputError, match="line 1 of the dev rows: the prompt does not fit"):
            build_prompts(name, ASKED, TRAIN, positions=12, **settings)
    with pytest.raises(InputError, match="max_new_tokens is 10, which leaves a prompt no room") as caught:
        build_prompts("zero-shot", ASKED, TRAIN, positions=10, **settings)
    assert caught.value.allowed == "fewer than 10"


def test_without_training_rows_the_plain_prompt_is_asked() -> None:
    assert few_shot(ASKED, [], 3, 0, always).prompts == zero_shot(ASKED).prompts
    assert few_shot_retrieved(ASKED, [], 3, always, words).prompts == zero_shot(ASKED).prompts


def test_unknown_candidate_lists_the_known(tiny_tokenizer: Any) -> None:
    with pytest.raises(InputError, match="unknown candidate 'guess'") as caught:
        build_prompts(
            "guess", ASKED, TRAIN, tokenizer=tiny_tokenizer, positions=99, max_new_tokens=1, examples=1, seed=0
        )
    assert caught.value.allowed == ", ".join(CANDIDATES)
