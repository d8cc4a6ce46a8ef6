from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from components.evaluation.prefix_tree import PrefixNode, plan_prefixes


def rebuilt(node: PrefixNode, prompts: list[list[int]], before: list[int]) -> dict[int, list[int]]:
    tokens = before + prompts[node.sample][node.start : node.end] if prompts else before
    found = {index: tokens + prompts[index][node.end :] for index in node.prompts}
    assert all(len(prompts[index]) > node.end for index in node.prompts), "the last token is left to the prompt"
    for child in node.children:
        assert child.start == node.end
        found |= rebuilt(child, prompts, tokens)
    return found


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), max_size=12), st.integers(1, 8))
def test_tree_covers_every_prompt_once_with_its_own_tokens(prompts: list[list[int]], minimum: int) -> None:
    tree = plan_prefixes(prompts, minimum)
    assert tree.size == len(prompts)
    assert rebuilt(tree, prompts, []) == dict(enumerate(prompts))


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), max_size=12))
def test_tree_never_computes_more_than_one_by_one(prompts: list[list[int]]) -> None:
    lengths = [len(prompt) for prompt in prompts]
    assert plan_prefixes(prompts, 1).computed_tokens(lengths) <= sum(lengths)


def test_shared_instruction_and_shared_schema_are_two_levels() -> None:
    instruction, one, two = list(range(100)), list(range(200, 300)), list(range(300, 400))
    prompts = [instruction + schema + [question] for schema in (one, two) for question in (7, 8, 9)]
    tree = plan_prefixes(prompts, 48)
    (first,) = tree.children
    assert (first.start, first.end, first.prompts) == (0, 100, ())
    assert [(child.start, child.end, len(child.prompts)) for child in first.children] == [(100, 200, 3)] * 2
    assert tree.computed_tokens([len(prompt) for prompt in prompts]) == 100 + 2 * 100 + 6


def test_short_shared_beginnings_are_not_worth_a_pass_but_do_not_hide_long_ones() -> None:
    prompts = [[1, 2, *range(10, 110), 5], [1, 2, *range(10, 110), 6], [1, 3, 4]]
    tree = plan_prefixes(prompts, 48)
    assert tree.prompts == (2,)
    assert [(child.end, sorted(child.prompts)) for child in tree.children] == [(102, [0, 1])]


def test_equal_prompts_and_prefixes_of_each_other_are_kept_apart() -> None:
    prompts = [[1] * 60, [1] * 60, [1] * 80, [1]]
    tree = plan_prefixes(prompts, 10)
    assert tree.size == 4
    assert rebuilt(tree, prompts, []) == dict(enumerate(prompts))
