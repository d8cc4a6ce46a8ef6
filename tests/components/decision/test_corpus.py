from __future__ import annotations

import json
from pathlib import Path

import pytest

from components.decision.corpus import WORDS_A_PASSAGE, Passage, corpus_files, read_corpus
from components.errors import InputError


def test_lines_of_a_file_are_passages(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text('{"id": "a", "text": " One. "}\n\n{"id": "b", "text": "Two.", "source": "kept out"}\n')
    assert read_corpus(path) == [Passage("a", "One."), Passage("b", "Two.")]
    assert corpus_files(path) == [path]


def test_texts_of_a_folder_are_cut_at_blank_lines_and_joined_up_to_the_length(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    half = " ".join(["word"] * (WORDS_A_PASSAGE // 2))
    (tmp_path / "b.md").write_text(f"{half}\n\n{half}\n\n{half}\n")
    (tmp_path / "sub" / "a.txt").write_text(" ".join(["long"] * (WORDS_A_PASSAGE + 5)))
    (tmp_path / "ignored.png").write_bytes(b"\x00")
    found = read_corpus(tmp_path)
    assert [passage.id for passage in found] == ["b.md#0", "b.md#1", "sub/a.txt#0", "sub/a.txt#1"]
    assert [len(passage.text.split()) for passage in found] == [
        WORDS_A_PASSAGE,
        WORDS_A_PASSAGE // 2,
        WORDS_A_PASSAGE,
        5,
    ]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        (["{"], "line 1: malformed JSON"),
        ([json.dumps({"id": "a"})], "line 1: `id` and `text`"),
        ([json.dumps({"id": "a", "text": " "})], "line 1: `id` and `text`"),
        ([json.dumps(["a", "b"])], "line 1: `id` and `text`"),
        ([json.dumps({"id": "a", "text": "x"})] * 2, "the id 'a' stands twice"),
        ([], "has no passages"),
    ],
)
def test_what_is_no_corpus_is_refused_by_line(tmp_path: Path, lines: list[str], problem: str) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=problem) as caught:
        read_corpus(path)
    assert caught.value.allowed
    assert caught.value.next_step


def test_text_that_is_not_utf8_is_told_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "corpus.jsonl"
    path.write_bytes(b'{"id": "a", "text": "x"}\n{"id": "b", "text": "caf\xe9"}\n')
    with pytest.raises(InputError, match="line 2: not UTF-8 text: byte 24 of the line"):
        read_corpus(path)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.md").write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"cannot read .*a\.md") as caught:
        read_corpus(tmp_path / "texts")
    assert "UTF-8" in str(caught.value.next_step)


def test_missing_corpus_and_empty_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no corpus at"):
        read_corpus(tmp_path / "absent")
    with pytest.raises(InputError, match="holds no text"):
        read_corpus(tmp_path)
