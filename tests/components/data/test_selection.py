"""Which rows are taken: by subset, by number, in a place that only the rows, the numbers and the seed decide."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.data.rows import Message, Row
from components.data.selection import sample_subsets, select_subsets
from components.errors import InputError

PATH = Path("test.jsonl")
ROWS = [
    Row((Message("user", f"question {n}"), Message("assistant", "x")), {"subset": "ab"[n % 2]}, n) for n in range(20)
]


def test_equal_counts_give_the_same_rows_in_the_same_places() -> None:
    one = sample_subsets(ROWS, {"a": 3, "b": 4}, 7, PATH)
    assert sample_subsets(ROWS, {"b": 4, "a": 3}, 7, PATH) == one
    assert [row.metadata["subset"] for row in one] == ["a"] * 3 + ["b"] * 4
    assert sample_subsets(ROWS, {"a": 3, "b": 4}, 8, PATH) != one


def test_an_unknown_subset_names_the_key_and_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"gate\.subset") as caught:
        select_subsets(ROWS, ["c"], PATH, "gate.subset")
    assert caught.value.allowed == "a, b"
