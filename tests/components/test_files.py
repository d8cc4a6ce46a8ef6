"""Whether a folder can be written is found out by writing; one that is replaced is there whole or not at all."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from components.errors import ConflictError
from components.files import existing_part, place_folder, write_atomic, write_problem


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


def folder_with(path: Path, content: str) -> Path:
    path.mkdir()
    for name in ("a", "b"):
        (path / name).write_text(content)
    return path


def test_a_folder_takes_the_place_of_another_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    final = folder_with(tmp_path / "final", "old")
    place_folder(folder_with(tmp_path / "aside", "new"), final)
    assert {path.name: path.read_text() for path in final.iterdir()} == {"a": "new", "b": "new"}
    assert list(tmp_path.iterdir()) == [final]


def test_a_process_killed_while_the_old_folder_is_removed_leaves_the_whole_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed_half_way(folder: Path, **_: object) -> None:
        (folder / "a").unlink()
        raise KeyboardInterrupt

    final = folder_with(tmp_path / "final", "old")
    monkeypatch.setattr("components.files.shutil.rmtree", killed_half_way)
    with pytest.raises(KeyboardInterrupt):
        place_folder(folder_with(tmp_path / "aside", "new"), final)
    assert {path.name: path.read_text() for path in final.iterdir()} == {"a": "new", "b": "new"}


def test_a_file_that_replaces_nothing_takes_a_free_name(tmp_path: Path) -> None:
    path = tmp_path / "new.jsonl"
    write_atomic(path, "text", replace=False)
    assert path.read_text() == "text"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("taken", ["file", "link to nowhere", "no hard links"])
def test_a_name_that_cant_be_taken_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: str) -> None:
    path = tmp_path / "new.jsonl"
    if taken == "file":
        path.write_text("mine")
    elif taken == "link to nowhere":
        path.symlink_to(tmp_path / "nowhere")
    else:

        def refuse(*_: object) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr("components.files.os.link", refuse)
    with pytest.raises(ConflictError) as refused:
        write_atomic(path, "text", replace=False)
    (aside,) = (one for one in tmp_path.iterdir() if one != path)
    assert str(aside) in str(refused.value.next_step)
    assert aside.read_text() == "text"
    assert not path.exists() or path.read_text() == "mine"
