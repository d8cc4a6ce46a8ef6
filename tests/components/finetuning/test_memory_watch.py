"""Idle heap is given back when steps have left a process larger than one step makes it, and only then."""

from __future__ import annotations

import pytest

from components.finetuning.memory_watch import HeapGuard


class Heap:
    """A process of 100, whose steps each leave some more behind; giving back takes it to 60, and a step to `needed`."""

    def __init__(self, left_by_step: int, needed: int = 100) -> None:
        self.bytes, self.left, self.needed = needed, left_by_step, needed
        self.released: list[int] = []

    def run(self, steps: int) -> None:
        guard = HeapGuard(lambda: self.bytes, self.give_back)
        for self.step in range(steps):
            self.bytes = max(self.bytes + self.left, self.needed)
            guard.after_step()

    def give_back(self) -> None:
        self.released.append(self.step)
        self.bytes = 60


@pytest.mark.parametrize(("left", "least", "most"), [(0, 0, 0), (1, 2, 5), (20, 10, 20)])
def test_it_gives_back_as_often_as_steps_leave_something(left: int, least: int, most: int) -> None:
    heap = Heap(left)
    heap.run(40)
    assert least <= len(heap.released) <= most
    assert heap.bytes <= 1.1 * (100 + 2 * left) + left


def test_a_longer_step_raises_what_one_step_needs() -> None:
    heap = Heap(0)
    guard = HeapGuard(lambda: heap.bytes, heap.give_back)
    for heap.step, needed in enumerate([100, 100, 150, 150, 150, 150, 150]):
        heap.bytes = max(heap.bytes, needed)
        guard.after_step()
    assert heap.released == [2], "once, and from then on the longer step is what a step needs"
