"""Whether a folder can be written is found out by writing."""

from __future__ import annotations

from pathlib import Path

import pytest

from components.files import existing_part, write_problem


def test_a_folder_to_be_made_is_judged_by_the_nearest_one_that_is_there(tmp_path: Path) -> None:
    assert existing_part(tmp_path / "a" / "b") == tmp_path
    assert write_problem(tmp_path / "a" / "b") is None
    assert list(tmp_path.iterdir()) == []


def test_below_a_file_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    problem = write_problem(tmp_path / "file" / "home")
    assert problem is not None
    assert problem.startswith(f"{tmp_path / 'file'}: ")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux's /proc")
def test_a_virtual_folder_is_not_writable_whatever_its_mode_says() -> None:
    # root may write by mode
    assert (write_problem(Path("/proc/x")) or "").startswith("/proc: ")
