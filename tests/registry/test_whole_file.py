"""A file is there whole or not at all, and what could not be written leaves nothing beside it."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from registry.whole_file import write_whole


def test_file_is_replaced_only_where_it_may_be(tmp_path: Path) -> None:
    path = tmp_path / "one"
    assert write_whole(path, b"first", replace=False)
    assert not write_whole(path, b"second", replace=False)
    assert path.read_bytes() == b"first"
    assert write_whole(path, b"third")
    assert path.read_bytes() == b"third"
    assert list(tmp_path.iterdir()) == [path]


def test_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one"
    path.write_bytes(b"before")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"after")
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("replace", [True, False])
def test_file_and_then_its_folder_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool) -> None:
    flushed: list[tuple[bool, bool]] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        flushed.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), (tmp_path / "one").exists()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_whole(tmp_path / "one", b"x", replace=replace)
    assert flushed == [(False, False), (True, True)]
