from __future__ import annotations

import pytest

from components.decision.form import AnswerForm, learn_form

LABELS = ["positive", "negative"] * 8
DATES = [f"{day:02d}.{month}.{1900 + day}" for day in range(1, 9) for month in ("IV", "XII")]
JSON = [f'{{"name": "n{n}", "age": {n}}}' if n % 2 else f'{{"name": "n{n}", "age": {n}, "more": 1}}' for n in range(12)]
FREE = [f"{'very ' * n}long answer: {'and ' * (n % 3)}so on, {n}" for n in range(12)]


@pytest.mark.parametrize(
    ("answers", "right", "wrong"),
    [
        (LABELS, ["Positive", " negative "], ["neutral", "positive, I think", ""]),
        (DATES, ["30.I.2020"], ["30 January 2020", "30.1.2020", "The date is 30.I.2020"]),
        (
            JSON,
            ['{"age": 1, "name": "x", "other": []}'],
            ['{"name": "x"}', "name: x", '["name", "age"]', '{"name": "x"'],
        ),
        ([f"<<{n}|{n * n}>>" for n in range(10, 30)], ["<<1|2>>"], ["<<1|2", "1|2", "<1|2>"]),
        (FREE, ["quite another answer"], ["word " * 99]),
    ],
)
def test_form_that_all_training_answers_share_is_asked_of_an_answer(
    answers: list[str], right: list[str], wrong: list[str]
) -> None:
    form = learn_form(answers)
    assert [form.problem(text) for text in right] == [None] * len(right)
    assert None not in [form.problem(text) for text in wrong]


def test_every_training_answer_has_the_form_that_was_learnt() -> None:
    for answers in (LABELS, DATES, JSON, FREE):
        form = learn_form(answers)
        assert [form.problem(answer) for answer in answers] == [None] * len(answers)


def test_few_answers_teach_no_pattern() -> None:
    assert learn_form(DATES[:9]) == AnswerForm(longest_words=1)
    assert learn_form([]) == AnswerForm()
    assert learn_form([]).problem("anything of any length") is None
    assert learn_form([]).problem(" ") == "nothing was written"


def test_names_that_repeat_are_not_a_closed_set() -> None:
    names = [f"name{'abcdefgh'[n % 8]}" for n in range(24)]
    assert learn_form(names).labels == frozenset()
    assert learn_form(names).problem("namez") is None
