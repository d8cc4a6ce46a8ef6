"""Which leading tokens do prompts share? A tree of prefixes, each to be computed once; read by generation.

Questions about one database share its schema, few-shot prompts share their examples. The tree is the plan; it holds
token places only (the radix tree of Zheng et al. 2024, "SGLang", arXiv:2312.07104, built in advance for a known set).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

__all__ = ["PrefixNode", "plan_prefixes"]

# A forward pass of its own costs about as much as this many tokens within a larger one (measured on a 135M model).
MINIMUM_SAVED_TOKENS = 48


@dataclass(frozen=True)
class PrefixNode:
    """Tokens `start` to `end` of the prompts below, computed once.

    Attributes:
        start: Number of tokens that the parent has computed.
        end: Number of tokens computed after this node.
        sample: Index of a prompt whose tokens [start, end) are this node's.
        prompts: Indices of the prompts whose remaining tokens follow directly.
        children: Longer prefixes.
    """

    start: int
    end: int
    sample: int
    prompts: tuple[int, ...]
    children: tuple[PrefixNode, ...]

    @property
    def size(self) -> int:
        """Return the number of prompts in this tree."""
        return len(self.prompts) + sum(child.size for child in self.children)

    def computed_tokens(self, lengths: Sequence[int]) -> int:
        """Return how many prompt tokens go through the model in this tree, given every prompt's length."""
        own = self.end - self.start + sum(lengths[prompt] - self.end for prompt in self.prompts)
        return own + sum(child.computed_tokens(lengths) for child in self.children)


def plan_prefixes(prompts: Sequence[Sequence[int]], minimum_saved_tokens: int = MINIMUM_SAVED_TOKENS) -> PrefixNode:
    """Find the prefixes that are worth computing once.

    Args:
        prompts: Token ids of every prompt, none empty.
        minimum_saved_tokens: A prefix becomes a node where it saves at least so many tokens.

    Returns:
        The root, which ends at token 0. A prompt's last token is never part of a node: its logits are needed.
    """
    order = sorted(range(len(prompts)), key=lambda index: tuple(prompts[index]))
    return _node(prompts, order, 0, 0, minimum_saved_tokens)


def _node(prompts: Sequence[Sequence[int]], members: list[int], start: int, end: int, minimum: int) -> PrefixNode:
    leaves: list[int] = []
    children: list[PrefixNode] = []
    _split(prompts, members, end, end, minimum, leaves, children)
    leaves.sort(key=lambda index: len(prompts[index]))
    return PrefixNode(start, end, members[0] if members else 0, tuple(leaves), tuple(children))


def _split(
    prompts: Sequence[Sequence[int]],
    members: list[int],
    base: int,
    depth: int,
    minimum: int,
    leaves: list[int],
    children: list[PrefixNode],
) -> None:
    """Sort members (in token order, alike up to `depth`) into leaves and children of the node that ends at `base`."""
    for _, same in groupby(members, key=lambda index: prompts[index][depth]):
        group = list(same)
        shared = _shared_length(prompts, group)
        if len(group) > 1 and (len(group) - 1) * (shared - base) >= minimum:
            children.append(_node(prompts, group, base, shared, minimum))
        elif len(group) == 1:
            leaves += group
        else:
            # prompts that end here can't be split further; the others may share more among themselves
            leaves += [index for index in group if len(prompts[index]) == shared + 1]
            longer = [index for index in group if len(prompts[index]) > shared + 1]
            if longer:
                _split(prompts, longer, base, max(shared, depth), minimum, leaves, children)


def _shared_length(prompts: Sequence[Sequence[int]], group: list[int]) -> int:
    """Return how many leading tokens a group in token order shares, leaving each prompt its last token."""
    first, last = prompts[group[0]], prompts[group[-1]]
    limit = min(len(prompts[index]) for index in group) - 1
    shared = 0
    while shared < limit and first[shared] == last[shared]:
        shared += 1
    return shared
