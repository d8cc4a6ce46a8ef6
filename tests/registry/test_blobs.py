"""The blob store, on a folder and in memory: the same promises on every filesystem."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import os
import random
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path
from uuid import uuid4

import pytest

from registry import parts
from registry.blobs import BlobStore
from registry.checkout import check_out
from registry.errors import BlobCorrupted, FileRefused, RegistryPathError, UploadConflict
from registry.manifest import FileEntry, Manifest
from registry.parts import held

CONTENT = b"some weights" * 1000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(params=["folder", "memory"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "blobs" if request.param == "folder" else f"memory://{uuid4().hex}")


def test_content_comes_back_by_its_digest(blobs: BlobStore) -> None:
    assert blobs.put(io.BytesIO(CONTENT), DIGEST, len(CONTENT))
    out = io.BytesIO()
    assert blobs.read(DIGEST, out.write) == blobs.size(DIGEST) == len(CONTENT)
    assert out.getvalue() == CONTENT
    assert blobs.path(DIGEST).endswith(f"/sha256/{DIGEST[:2]}/{DIGEST}")


def test_content_that_is_there_is_not_written_again(blobs: BlobStore) -> None:
    blobs.put(io.BytesIO(CONTENT), DIGEST, len(CONTENT))
    assert not blobs.put(io.BytesIO(CONTENT), DIGEST, len(CONTENT))


def test_a_content_is_streamed_and_told_of_as_it_grows(tmp_path: Path) -> None:
    """Neither way is a content held in memory; what counts it sees Python's own allocations alone."""
    source, size = tmp_path / "large", 48 << 20
    with source.open("wb") as stream:
        for start in range(0, size, 1 << 20):
            stream.write(start.to_bytes(8) * (1 << 17))
    with source.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    blobs, told = BlobStore(tmp_path / "blobs"), list[int]()
    tracemalloc.start()
    try:
        with source.open("rb") as stream:
            blobs.put(stream, digest, size, told.append)
        assert blobs.read(digest) == size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < size // 8, f"{peak} bytes in memory"
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0, size)
    assert len(told) > 40


@pytest.mark.parametrize("content", [CONTENT[:-1], CONTENT + b"x", b""])
def test_other_content_is_refused_and_leaves_nothing(blobs: BlobStore, content: bytes) -> None:
    with pytest.raises(FileRefused):
        blobs.put(io.BytesIO(content), DIGEST, len(CONTENT))
    assert blobs.size(DIGEST) is None
    with pytest.raises(BlobCorrupted, match="gone"):
        blobs.read(DIGEST)


def test_damaged_blob_is_refused_and_replaced_by_the_next_put(blobs: BlobStore) -> None:
    blobs.put(io.BytesIO(CONTENT), DIGEST, len(CONTENT))
    blobs._files.rm_file(blobs.path(DIGEST))
    blobs._files.pipe_file(blobs.path(DIGEST), CONTENT[:-1] + b"!")
    with pytest.raises(BlobCorrupted, match="damaged"):
        blobs.read(DIGEST)
    assert blobs.put(io.BytesIO(CONTENT), DIGEST, len(CONTENT))
    assert blobs.read(DIGEST) == len(CONTENT)


def test_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = BlobStore(tmp_path / "blobs")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RegistryPathError, match="No space left"):
        blobs.put(io.BytesIO(CONTENT), DIGEST, len(CONTENT))
    assert [p for p in (tmp_path / "blobs").rglob("*") if p.is_file()] == []


def test_stored_file_is_plain_and_read_only(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    blobs.put(io.BytesIO(CONTENT), DIGEST, len(CONTENT))
    path = tmp_path / "sha256" / DIGEST[:2] / DIGEST
    assert path.read_bytes() == CONTENT
    assert path.stat().st_mode & 0o777 == 0o444


def test_half_written_leftovers_go_once_they_are_old(blobs: BlobStore) -> None:
    blobs.put(io.BytesIO(CONTENT), DIGEST, len(CONTENT))
    leftover = f"{blobs._root}/incoming/abc"
    blobs._files.pipe_file(leftover, b"half")
    assert blobs.sweep_incoming() == 0
    assert blobs.sweep_incoming(older_than_seconds=-1) == 1
    assert blobs.read(DIGEST) == len(CONTENT)


def test_what_was_cut_off_is_gone_on_with_and_never_trusted(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path)
    content = os.urandom(5 << 20)
    digest = hashlib.sha256(content).hexdigest()

    def cut_off(done: int) -> None:
        if done >= 3 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        blobs.put(io.BytesIO(content), digest, len(content), cut_off)
    assert blobs.size(digest) is None
    part = tmp_path / "incoming" / f"{digest}.part"
    assert part.stat().st_size == 3 << 20
    told: list[int] = []
    assert blobs.put(io.BytesIO(content), digest, len(content), told.append)
    assert told[0] == 3 << 20
    assert told[-1] == blobs.read(digest) == len(content)
    assert not part.exists()
    blobs.remove(digest)
    for left in (b"!" + content[1 : 2 << 20], content + b"more", b"!" * len(content)):
        part.write_bytes(left)
        told.clear()
        assert blobs.put(io.BytesIO(content), digest, len(content), told.append)
        assert (told[0], blobs.read(digest)) == (0, len(content))
        blobs.remove(digest)


def test_two_writers_of_one_content_do_each_other_no_harm(tmp_path: Path) -> None:
    one, other = BlobStore(tmp_path), BlobStore(tmp_path)
    stored: list[bool] = []

    def meanwhile(done: int) -> None:
        if not stored:
            stored.append(False)
            stored[0] = other.put(io.BytesIO(CONTENT), DIGEST, len(CONTENT))

    assert one.put(io.BytesIO(CONTENT), DIGEST, len(CONTENT), meanwhile)
    assert stored == [True]
    assert one.read(DIGEST) == len(CONTENT)
    assert list((tmp_path / "incoming").iterdir()) == []


@pytest.mark.parametrize(("length", "bits"), [(200, None), (3 << 20, 40)])
def test_no_flipped_bit_is_loaded(tmp_path: Path, length: int, bits: int | None) -> None:
    """Every bit of a small file, and some of one that is read in several pieces."""
    chance = random.Random(length)
    content = chance.randbytes(length)
    digest = hashlib.sha256(content).hexdigest()
    blobs = BlobStore(tmp_path / "blobs")
    blobs.put(io.BytesIO(content), digest, length)
    manifest = Manifest(kind="base", files={"config.json": FileEntry(length, digest)}, base_fingerprint="1" * 64)
    path = Path(blobs.path(digest))
    path.chmod(0o644)
    for bit in range(8 * length) if bits is None else chance.sample(range(8 * length), bits):
        with path.open("r+b") as stream:
            stream.seek(bit // 8)
            stream.write(bytes([content[bit // 8] ^ 1 << bit % 8]))
        seen: list[bytes] = []
        with pytest.raises(BlobCorrupted, match="damaged"):
            blobs.read(digest, seen.append)
        assert sum(map(len, seen)) < length, "its end was given away"
        with pytest.raises(BlobCorrupted, match="damaged"):
            check_out(blobs, manifest, tmp_path / "out")
        with path.open("r+b") as stream:
            stream.seek(bit // 8)
            stream.write(content[bit // 8 : bit // 8 + 1])
    assert [one.name for one in tmp_path.iterdir()] == ["blobs"]
    assert (check_out(blobs, manifest, tmp_path / "out") / "config.json").read_bytes() == content


def test_where_there_is_no_fcntl_the_store_is_imported_and_a_part_has_one_writer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = "import sys; sys.modules['fcntl'] = None; import registry.store, registry.http.uploads"
    done = subprocess.run([sys.executable, "-c", without], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with held(tmp_path / "a.part") as part:
        part.write(b"x")
        with pytest.raises(UploadConflict, match="somebody else"), held(tmp_path / "a.part"):
            pass
    with held(tmp_path / "a.part") as part:
        assert part.tell() == 1
    blobs = BlobStore(tmp_path / "blobs")
    assert blobs.put(io.BytesIO(CONTENT), DIGEST, len(CONTENT))
    assert blobs.read(DIGEST) == len(CONTENT)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel copies between files on Linux alone")
@pytest.mark.parametrize("refuses", [None, errno.EINVAL, errno.ENOSPC])
def test_a_file_is_copied_by_the_kernel_and_without_it_where_it_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refuses: int | None
) -> None:
    blobs, content = BlobStore(tmp_path / "blobs"), os.urandom((5 << 20) + 7)
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "source").write_bytes(content)
    asked: list[int] = []
    copy = os.sendfile

    def third_refused(target: int, source: int, place: int, count: int) -> int:
        asked.append(place)
        if refuses is not None and len(asked) == 3:
            raise OSError(refuses, os.strerror(refuses))
        return copy(target, source, place, count)

    monkeypatch.setattr(os, "sendfile", third_refused)
    told: list[int] = []
    with (tmp_path / "source").open("rb") as source:
        if refuses == errno.ENOSPC:
            with pytest.raises(RegistryPathError, match="No space left"):
                blobs.put(source, digest, len(content), told.append)
            assert [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()] == []
            return
        assert blobs.put(source, digest, len(content), told.append)
    assert asked == [number << 20 for number in range(3 if refuses else 6)] + ([] if refuses else [len(content)])
    assert told == [*(number << 20 for number in range(6)), len(content)]
    assert blobs.read(digest) == len(content)


def test_a_file_that_was_cut_off_is_gone_on_with_from_its_own_bytes(tmp_path: Path) -> None:
    blobs, content = BlobStore(tmp_path / "blobs"), os.urandom(4 << 20)
    digest = hashlib.sha256(content).hexdigest()
    (tmp_path / "source").write_bytes(content)

    def cut_off(done: int) -> None:
        if done == 3 << 20:
            raise KeyboardInterrupt

    with (tmp_path / "source").open("rb") as source:
        with pytest.raises(KeyboardInterrupt):
            blobs.put(source, digest, len(content), cut_off)
        source.seek(0)
        told: list[int] = []
        assert blobs.put(source, digest, len(content), told.append)
    assert told == [3 << 20, 4 << 20]
    # what changed since its manifest was made is refused, whoever copies it
    with (tmp_path / "source").open("r+b") as source:
        source.seek(2 << 20)
        source.write(b"x")
        source.seek(0)
        blobs.remove(digest)
        with pytest.raises(FileRefused):
            blobs.put(source, digest, len(content))
    assert blobs.size(digest) is None


def test_leftovers_are_looked_for_once_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs, sweeps = BlobStore(tmp_path), []
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr(blobs, "sweep_incoming", lambda: sweeps.append(now))
    for _ in range(3):
        blobs.sweep_now_and_then()
    now += 3600
    blobs.sweep_now_and_then()
    assert len(sweeps) == 2


def test_without_a_thread_contents_are_hashed_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs, content = BlobStore(tmp_path / "blobs"), os.urandom(4 << 20)
    digest = hashlib.sha256(content).hexdigest()
    start = threading.Thread.start
    tries = 0

    def second_try(thread: threading.Thread) -> None:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", second_try)
    assert blobs.put(io.BytesIO(content), digest, len(content))
    assert (tries, blobs.read(digest)) == (1, len(content))


def test_what_is_interrupted_is_not_hashed_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[int] = []
    running, told = threading.Event(), threading.Event()

    def slowly(count: int) -> None:
        hashed.append(count)
        running.set()
        told.wait(60)

    def interrupted() -> None:
        with parts._beside(slowly) as later:
            for count in range(10):
                later(count)
            running.wait(60)
            threading.Timer(0.2, told.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert hashed == [0]


def test_what_only_looks_like_a_file_is_read(tmp_path: Path) -> None:
    blobs, content = BlobStore(tmp_path / "blobs"), os.urandom(3 << 20)
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(content, 1))
    with gzip.open(packed) as source:
        assert blobs.put(source, hashlib.sha256(content).hexdigest(), len(content))
