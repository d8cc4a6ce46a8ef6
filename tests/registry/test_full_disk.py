"""A full disk, at every step that may find it full: nothing half-written, a clear error, and the next try works."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import resource
import shutil
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from registry import sqlite_writing
from registry.blobs import BlobStore
from registry.entities import Version
from registry.errors import RegistryPathError
from registry.export import hf_layout, write_folder
from registry.gate import Policy
from registry.http.contents import _write
from registry.http.uploads import Uploads
from registry.manifest import Manifest, describe_files
from registry.oci import oci_layout
from registry.store import Registry

Add = Callable[..., Version]
Write = Callable[..., dict[str, Path]]
Faults = Iterator[AbstractContextManager[None]]
CONTENT = b"some weights" * 100
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture(params=["once", "from then on"])
def fail_each(request: pytest.FixtureRequest, watch_writes: Callable[..., Any]) -> Callable[..., int]:
    """Try an act, with a fault at its first step, then at its second, until it goes through without one."""

    def try_each(folder: Path, act: Callable[[int], object], check: Callable[[int, bool], object]) -> int:
        for deadly in range(1, 200):
            steps = 0

            def step(name: str, deadly: int = deadly) -> None:
                nonlocal steps
                steps += 1
                lasting = request.param == "from then on" and name != "replace"  # which needs no room
                if steps == deadly or (steps > deadly and lasting):
                    raise OSError(errno.ENOSPC, f"No space left on device ({name})")

            with watch_writes(folder, step):
                error = _fails(lambda deadly=deadly: act(deadly))
            # some faults do no harm: a folder that can't be made is there already
            check(deadly, error is None)
            if error is not None:
                assert "No space left" in str(error)
                assert error.next_step
            if steps < deadly:
                assert error is None
                return deadly - 1
            act(deadly)
            check(deadly, True)
        raise AssertionError("the act has more steps than were tried")

    return try_each


def _fails(act: Callable[[], object]) -> RegistryPathError | None:
    try:
        act()
    except RegistryPathError as error:
        return error
    return None


def _files(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_blob(tmp_path: Path, fail_each: Callable[..., int]) -> None:
    def act(turn: int) -> bool:
        blobs = BlobStore(tmp_path / f"blobs{turn}")
        blobs.put(io.BytesIO(CONTENT), DIGEST, len(CONTENT))
        return blobs.read(DIGEST) == len(CONTENT)

    def check(turn: int, whole: bool) -> None:
        assert set(_files(tmp_path / f"blobs{turn}")) <= {f"sha256/{DIGEST[:2]}/{DIGEST}"}
        blobs = BlobStore(tmp_path / f"blobs{turn}")
        assert (blobs.size(DIGEST) is None and not whole) or blobs.read(DIGEST) == len(CONTENT)

    assert fail_each(tmp_path, act, check) >= 6  # two folders and more, the file, a piece, a flush, a rename


def test_upload_to_the_server(tmp_path: Path, fail_each: Callable[..., int]) -> None:
    def act(turn: int) -> bool:
        blobs = BlobStore(tmp_path / f"{turn}" / "blobs")
        uploads = Uploads(tmp_path / f"{turn}" / "uploads", blobs)
        there = uploads.offset(DIGEST)
        if blobs.size(DIGEST) is not None:  # whole already, only its folder's flush failed
            return blobs.read(DIGEST) == len(CONTENT)
        with uploads.appending(DIGEST, there, len(CONTENT)) as stream:
            for start in range(there, len(CONTENT), 500):
                _write(stream, CONTENT[start : start + 500])
            uploads.finish(stream, DIGEST)
        return blobs.read(DIGEST) == len(CONTENT)

    def check(turn: int, whole: bool) -> None:
        blobs = BlobStore(tmp_path / f"{turn}" / "blobs")
        assert not whole or blobs.read(DIGEST) == len(CONTENT)
        part = tmp_path / f"{turn}" / "uploads" / f"{DIGEST}.part"
        if part.exists():
            assert CONTENT.startswith(part.read_bytes()), "it can't be gone on with"

    assert fail_each(tmp_path, act, check) >= 7


def test_registration(tmp_path: Path, write_files: Write, fail_each: Callable[..., int]) -> None:
    with Registry.open(tmp_path / "registry") as registry:

        def act(turn: int) -> Version:
            files = write_files(f"weights {turn}")
            shutil.rmtree(registry.folder / "leases", ignore_errors=True)  # made by the first that needs it
            return registry.register("m", _manifest(files), files)

        def check(turn: int, whole: bool) -> None:
            assert registry.verify().intact
            manifest = _manifest(write_files(f"weights {turn}"))
            found = [v for v in registry.versions() if v.digest == manifest.digest]
            assert len(found) == 1 or (not found and not whole)
            assert not list((registry.folder / "leases").glob("*"))
            assert not list((registry.folder / "leases").glob(".*"))
            assert not list((registry.folder / "blobs" / "incoming").glob("*"))

        assert fail_each(registry.folder, act, check) >= 12
        assert [e.action for e in registry.audit()] == ["register"] * len(registry.versions())


def _manifest(files: dict[str, Path]) -> Manifest:
    return Manifest(kind="base", files=describe_files(files), base_fingerprint="1" * 64)


@pytest.mark.parametrize("form", ["hf", "oci"])
def test_export(tmp_path: Path, write_files: Write, fail_each: Callable[..., int], form: str) -> None:
    (tmp_path / "out").mkdir()
    with Registry.open(tmp_path / "registry") as registry:
        files = write_files()
        version = registry.register("m", _manifest(files), files)
        layout = (hf_layout if form == "hf" else oci_layout)(version, "card")

        def act(turn: int) -> int:
            if (tmp_path / "out" / str(turn)).exists():  # a fault that did no harm
                return 0
            return write_folder(registry.blobs, layout.files, tmp_path / "out" / str(turn))

        def check(turn: int, whole: bool) -> None:
            assert not list((tmp_path / "out").glob(".*")), "half of it is left"
            assert (tmp_path / "out" / str(turn)).exists() == whole
            if whole:
                assert _files(tmp_path / "out" / str(turn)) == sorted(layout.files)

        assert fail_each(tmp_path / "out", act, check) >= 3 * len(layout.files)


@pytest.mark.parametrize("links", [True, False])
def test_checkout(
    tmp_path: Path, write_files: Write, fail_each: Callable[..., int], monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr("registry.checkout._link", lambda *_: False)
    (tmp_path / "out").mkdir()
    with Registry.open(tmp_path / "registry") as registry:
        files = write_files()
        version = registry.register("m", _manifest(files), files)

        def act(turn: int) -> Path:
            return registry.checkout(version.digest, tmp_path / "out" / str(turn))

        def check(turn: int, whole: bool) -> None:
            folder = tmp_path / "out" / str(turn)
            assert not list((tmp_path / "out").glob(".*")), "half of it is left"
            assert folder.exists() == whole
            if whole:
                assert describe_files({name: folder / name for name in _files(folder)}) == dict(version.manifest.files)

        # a folder and the rename; of each file at least a link, or its opening, a piece and two flushes
        assert fail_each(tmp_path / "out", act, check) >= 2 + len(files) * (1 if links else 4)


# The database's own writes


@pytest.fixture
def proven(tmp_path: Path, write_files: Write, make_report: Any) -> Iterator[Registry]:
    """A registry on SQLite with two versions that may be promoted."""
    with Registry.open(tmp_path / "registry") as registry:
        for number in (1, 2):
            files = write_files(str(number))
            version = registry.register("m", _manifest(files), files)
            registry.record_evaluation(version.digest, make_report())
        yield registry


def test_promotion_with_no_page_left(proven: Registry, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite refuses the first page that is more than it may have, then the second, as on a full disk."""
    reason = "because " * 4000
    pages = proven._lookup.query("PRAGMA page_count", ())[0][0]
    allowed = [pages]

    wait = sqlite_writing._wait_at_most

    def limit(connection: Any, seconds: float) -> None:
        wait(connection, seconds)
        connection.execute(f"PRAGMA max_page_count = {allowed[0]}")

    monkeypatch.setattr(sqlite_writing, "_wait_at_most", limit)
    refused = 0
    while error := _fails(lambda: proven.promote("m:v1", "champion", policy=policy, actor="a", reason=reason)):
        assert "full" in str(error)
        assert "nothing was written" in str(error)
        assert error.next_step
        assert proven.history("m", "champion") == []
        assert proven.audit()[-1].action == "evaluate"
        assert {e.topic for e in proven.outbox()} == {"version.registered", "version.evaluated"}
        allowed[0] += 1
        refused += 1
    assert refused > 15
    assert [step.version for step in proven.history("m", "champion")] == [1]
    assert proven.verify().intact


@pytest.mark.parametrize("act", ["promote", "register"])
def test_kernel_that_writes_no_further(proven: Registry, policy: Policy, write_files: Write, act: str) -> None:
    """A limit on the size of files ends the journal within its first page, then within its second, and so on."""
    folder = proven.folder
    proven.close()
    failed = done = 0
    limit = 0
    while not done and limit < 1 << 20:
        limit += 2048
        with Registry.open(folder) as before:
            versions, steps, events = len(before.versions()), len(before.history("m", "champion")), len(before.audit())
        files = write_files(f"limit {limit}")
        child = os.fork()
        if child == 0:
            try:
                with Registry.open(folder) as one:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
                    if act == "promote":
                        one.promote(f"m:v{1 + steps % 2}", "champion", policy=policy, actor="a")
                    else:
                        one.register("m", _manifest(files), files)
                    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                os._exit(0)
            except RegistryPathError:
                os._exit(7)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFEXITED(status)
        assert os.WEXITSTATUS(status) in (0, 7), "an error that doesn't tell"
        done = os.WEXITSTATUS(status) == 0
        failed += not done
        with Registry.open(folder) as after:
            grown = (len(after.versions()) - versions, len(after.history("m", "champion")) - steps)
            assert grown == ((0, 0) if not done else (0, 1) if act == "promote" else (1, 0))
            assert len(after.audit()) == events + done
            assert after.verify().intact
    assert done
    assert failed > 5
    with Registry.open(folder) as registry:
        assert registry.promote("m:v1", "second", policy=policy, actor="a").changed
