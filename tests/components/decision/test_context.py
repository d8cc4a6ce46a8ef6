from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from components.data.chat import prompt_ids
from components.data.rows import Message, Row
from components.decision.baselines import build_prompts
from components.decision.context import ContextSource, gold_ids, with_passages
from components.decision.corpus import Passage
from components.errors import InputError

PASSAGES = [Passage(f"p{n}", f"The {word} is number {n}.") for n, word in enumerate(("apple", "pear", "plum", "fig"))]


def alike(texts: Sequence[str]) -> Any:
    """An embedding that knows which fruit a text is about."""
    import torch

    return torch.tensor([[float(word in text) for word in ("apple", "pear", "plum", "fig")] for text in texts])


def row(word: str, number: int, gold: bool = True) -> Row:
    metadata = {"gold": [f"p{number}"]} if gold else {}
    return Row(
        (Message("user", f"Which number is the {word}?"), Message("assistant", str(number))), metadata, line=number
    )


ASKED, TRAIN = [row("apple", 0), row("fig", 3)], [row("pear", 1), row("plum", 2)]


def build(name: str, tokenizer: Any, **settings: Any) -> Any:
    chosen: dict[str, Any] = {"positions": 1024, "context": ContextSource(PASSAGES, 2, alike), **settings}
    return build_prompts(
        name, chosen.pop("asked", ASKED), TRAIN, tokenizer=tokenizer, max_new_tokens=4, examples=2, seed=0, **chosen
    )


def test_retrieved_passages_stand_before_the_question_with_the_best_next_to_it(tiny_tokenizer: Any) -> None:
    found = build("rag", tiny_tokenizer)
    (message,) = found.prompts[1]
    first, second, blank, question = message.content.split("\n")
    assert (second, blank, question) == ("The fig is number 3.", "", "Which number is the fig?")
    assert first != second


def test_oracle_has_the_gold_passages_alone_and_so_have_its_examples(tiny_tokenizer: Any) -> None:
    (message,) = build("oracle", tiny_tokenizer).prompts[0]
    assert message.content == "The apple is number 0.\n\nWhich number is the apple?"
    shown = build("oracle-few-shot", tiny_tokenizer).prompts[0]
    assert [m.role for m in shown] == ["user", "assistant", "user", "assistant", "user"]
    for question, answer in (shown[0:2], shown[2:4]):
        assert question.content.startswith("The ")
        assert f"number {answer.content}." in question.content
        assert question.content.count("is number") == 1


def test_examples_of_rag_few_shot_carry_retrieved_passages(tiny_tokenizer: Any) -> None:
    shown = build("rag-few-shot", tiny_tokenizer).prompts[0]
    assert all(m.content.count("is number") == 2 for m in shown if m.role == "user")


def test_written_prompt_stands_before_the_system_message_or_is_one(tiny_tokenizer: Any) -> None:
    with_system = Row((Message("system", "s"), *ASKED[0].messages), ASKED[0].metadata)
    for name in ("prompt", "rag"):
        found = build(name, tiny_tokenizer, asked=[ASKED[0], with_system], written="Be brief.")
        assert [prompt[0] for prompt in found.prompts] == [
            Message("system", "Be brief."),
            Message("system", "Be brief.\n\ns"),
        ]
    assert all(m.role != "system" for m in build("rag-few-shot", tiny_tokenizer, written="Be brief.").prompts[0])


def test_passages_that_do_not_fit_are_dropped_worst_first_and_told(tiny_tokenizer: Any) -> None:
    whole = build("rag", tiny_tokenizer)
    longest = max(len(prompt_ids(tiny_tokenizer, prompt)) for prompt in whole.prompts)
    tight = build("rag", tiny_tokenizer, positions=longest + 3)
    assert tight.note == f"rag: {tight.cut} of 2 prompts carry fewer passages than were found"
    assert tight.cut >= 1
    assert all("is number 0" in p[0].content or "is number 3" in p[0].content for p in tight.prompts)


def test_recall_counts_questions_whose_gold_passages_were_found() -> None:
    source = ContextSource(PASSAGES, 1, alike)
    assert source.recall(ASKED) == 1.0
    wrong = Row(ASKED[0].messages, {"gold": ["p3"]})
    assert source.recall([ASKED[1], wrong]) == 0.5
    assert source.recall([row("apple", 0, gold=False)]) is None


def test_gold_passages_that_are_missing_are_told_by_line(tiny_tokenizer: Any) -> None:
    with pytest.raises(InputError, match=r"line 3 of the rows: metadata.gold names no passage"):
        build("oracle", tiny_tokenizer, asked=[row("fig", 3, gold=False)])
    with pytest.raises(InputError, match="no passage 'p9'"):
        build("oracle", tiny_tokenizer, asked=[row("kiwi", 9)])
    with pytest.raises(InputError, match=r"metadata.gold is 'p1'") as caught:
        gold_ids(Row(ASKED[0].messages, {"gold": "p1"}))
    assert caught.value.next_step == "write it as a list, such as ['p1']"


def test_candidate_without_its_means_says_what_to_write(tiny_tokenizer: Any) -> None:
    with pytest.raises(InputError, match="needs a corpus") as caught:
        build("rag", tiny_tokenizer, context=None)
    assert "data.corpus" in str(caught.value.next_step)
    with pytest.raises(InputError, match="needs a prompt"):
        build("prompt", tiny_tokenizer)


def test_row_without_passages_stays_as_it_is() -> None:
    assert with_passages(ASKED[0], []) is ASKED[0]
