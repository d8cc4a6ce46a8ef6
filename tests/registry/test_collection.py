"""What a collection frees and what it never touches: beside writers, after crashes, and on other filesystems."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import sqlite3
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry import leases
from registry.blobs import BlobStore
from registry.entities import Version
from registry.errors import AuditBroken, RegistryBusy, RegistryPathError, VersionRetired
from registry.gate import Policy
from registry.layout import DATABASE
from registry.leases import Leases
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

Add = Callable[..., Version]
Write = Callable[..., dict[str, Path]]
WHO: dict[str, Any] = {"actor": "ada", "reason": "no use"}
WEIGHTS = "model.safetensors"
DAY = 86_400.0


def _blobs(registry: Registry) -> set[str]:
    return {sha256 for sha256, _ in registry.blobs.stored()}


def _needed(*versions: Version) -> set[str]:
    return {entry.sha256 for version in versions for entry in version.manifest.files.values()}


def _age(registry: Registry, sha256: str, days: float) -> None:
    path = registry.blobs.local_path(sha256)
    assert path is not None
    os.utime(path, (time.time() - days * DAY,) * 2)


def _orphan(registry: Registry, write_files: Write, content: str = "never registered") -> str:
    """Store a blob as a writer does that is killed before its row."""
    entry = describe_files(files := write_files(content))[WEIGHTS]
    with files[WEIGHTS].open("rb") as stream:
        registry.blobs.put(stream, entry.sha256, entry.size)
    return entry.sha256


def test_retired_version_frees_what_no_other_has(registry: Registry, add_adapter: Add, add_base: Add) -> None:
    one, two, base = add_adapter("one"), add_adapter("two"), add_base()
    own = one.manifest.files[WEIGHTS]
    path = registry.checkout("text2sql:v1")
    kept = registry.checkout("text2sql:v2")
    registry.retire("text2sql:v1", **WHO)
    dry = registry.collect(grace_seconds=0, dry_run=True)
    assert (dry.blobs, dry.bytes, dry.checkouts, dry.kept, dry.dry_run) == (1, own.size, 1, 0, True)
    assert path.is_dir()
    assert _blobs(registry) == _needed(one, two, base)
    found = registry.collect(grace_seconds=0, actor="eve")
    assert (found.blobs, found.bytes, found.checkouts) == (1, own.size, 1)
    assert _blobs(registry) == _needed(two, base)
    assert not path.exists()
    assert list(kept.parent.iterdir()) == [kept]
    entry = registry.audit()[-1]
    assert (entry.actor, entry.action, entry.payload["blobs"]) == ("eve", "collect", [own.sha256])
    assert registry.verify().intact
    assert registry.collect(grace_seconds=0).blobs == 0
    assert registry.audit()[-1] == entry, "a collection that frees nothing leaves no row"
    assert add_adapter("one") == one
    assert registry.verify("text2sql:v1").files == 2


def test_grace_counts_from_the_writing_and_from_the_retirement(
    registry: Registry, add_adapter: Add, write_files: Write
) -> None:
    version = add_adapter("one")
    own, orphan = version.manifest.files[WEIGHTS].sha256, _orphan(registry, write_files)
    for sha256 in (own, orphan):
        _age(registry, sha256, 8)
    registry.retire("text2sql", **WHO)
    young = _orphan(registry, write_files, "just now")
    found = registry.collect()
    assert (found.blobs, found.kept) == (1, 2)
    assert own in _blobs(registry), "it was retired just now, and may have been so by mistake"
    assert orphan not in _blobs(registry)
    assert young in _blobs(registry)
    assert registry.restore("text2sql", **WHO).changed


def test_everything_in_use_stays_whatever_its_age(
    registry: Registry, passing: Add, add_adapter: Add, policy: Policy
) -> None:
    active, deprecated, champion, past = passing("one"), add_adapter("two"), passing("three"), passing("four")
    registry.deprecate(deprecated.digest, **WHO)
    for version in (past, champion):
        registry.promote(version.digest, "champion", policy=policy, actor="ada")
    before = _blobs(registry)
    for sha256 in before:
        _age(registry, sha256, 1000)
    assert registry.collect(grace_seconds=0).blobs == 0
    registry.demote("text2sql", "champion", **WHO)
    assert registry.collect(grace_seconds=0).blobs == 0
    assert _blobs(registry) == before >= _needed(active, deprecated, champion, past)


def test_blobs_that_an_alias_history_reaches_stay_though_a_row_says_retired(
    registry: Registry, passing: Add, policy: Policy, backend: Any
) -> None:
    """The collector marks by itself what the rules keep from being retired."""
    version = passing("one")
    registry.promote(version.digest, "champion", policy=policy, actor="ada")
    registry.demote("text2sql", "champion", **WHO)
    raw = backend.connect(registry.folder)
    raw.execute("DROP TRIGGER version_events_held" + (" ON version_events" if raw.postgres else ""))
    for number in (1, 2):  # the base, and what was made from it
        raw.execute(
            "INSERT INTO version_events VALUES (?, ?, 'retire', 'eve', 'r', '2020-01-01T00:00:00Z')", [number] * 2
        )
    before = _blobs(registry)
    assert registry.collect(grace_seconds=0).blobs == 0
    assert _blobs(registry) == before


def test_other_files_among_the_blobs_stay(registry: Registry, add_base: Add) -> None:
    add_base()
    notes = registry.folder / "blobs" / "sha256" / "notes.txt"
    notes.write_text("mine")
    os.utime(notes, (0, 0))
    assert registry.collect(grace_seconds=0).blobs == 0
    assert notes.read_text() == "mine"


def test_changed_manifest_stops_the_collection(
    registry: Registry, add_base: Add, write_files: Write, backend: Any
) -> None:
    add_base()
    orphan = _orphan(registry, write_files)
    raw = backend.connect(registry.folder)
    raw.lift("versions")
    raw.execute("UPDATE versions SET manifest = replace(manifest, 'Apache', 'apache')")
    with pytest.raises(AuditBroken, match="nothing is collected"):
        registry.collect(grace_seconds=0)
    assert orphan in _blobs(registry)


def test_lease_protects_until_it_ends(registry: Registry, write_files: Write) -> None:
    orphan = _orphan(registry, write_files)
    with registry.leases.hold([orphan]):
        assert registry.collect(grace_seconds=0).kept == 1
        assert orphan in _blobs(registry)
    assert list(registry.leases.folder.iterdir()) == []
    abandoned = Leases(registry.leases.folder).hold([orphan], seconds=0.05)
    abandoned.__enter__()  # its holder is killed
    time.sleep(0.1)
    found = registry.collect(grace_seconds=0)
    assert (found.blobs, found.leases) == (1, 1)
    assert list(registry.leases.folder.iterdir()) == []


@pytest.mark.parametrize("left", [b"", b"\0" * 150])
def test_lease_that_a_power_cut_left_empty_holds_nothing_up(
    registry: Registry, write_files: Write, left: bytes
) -> None:
    orphan = _orphan(registry, write_files)
    registry.leases.folder.mkdir()
    (registry.leases.folder / "left").write_bytes(left)
    found = registry.collect(grace_seconds=0)
    assert (found.blobs, found.leases) == (1, 1)
    assert orphan not in _blobs(registry)
    assert list(registry.leases.folder.iterdir()) == []


def test_lease_that_a_power_cut_could_leave_half_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: list[int] = []
    monkeypatch.setattr(leases.os, "fsync", lambda descriptor: flushed.append(os.fstat(descriptor).st_size))
    for count in (1, 50, 100):
        digests = frozenset(f"{number:064d}" for number in range(count))
        with Leases(tmp_path / "leases").hold(digests):
            assert Leases(tmp_path / "leases").held() == digests
            (path,) = (tmp_path / "leases").iterdir()
            assert flushed == ([] if path.stat().st_size <= 4096 else [path.stat().st_size])
    assert len(flushed) == 1


@pytest.mark.parametrize("content", ["{", "{}", '{"expires_at": 1e12, "digests": ["x"]}', "[1]"])
def test_lease_that_cannot_be_read_stops_the_collection(registry: Registry, write_files: Write, content: str) -> None:
    orphan = _orphan(registry, write_files)
    registry.leases.folder.mkdir()
    (registry.leases.folder / "odd").write_text(content)
    with pytest.raises(RegistryPathError, match="what it protects can't be told"):
        registry.collect(grace_seconds=0)
    assert orphan in _blobs(registry)


@pytest.mark.parametrize("leased", [True, False])
def test_blob_that_was_there_already_is_not_lost_to_a_collection_before_the_row(
    open_registry: Callable[[], Registry],
    write_files: Write,
    fingerprints: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    leased: bool,
) -> None:
    registry, other = open_registry(), open_registry()
    orphan = _orphan(registry, write_files, "weights")
    monkeypatch.setattr(leases, "LEASE_SECONDS", DAY if leased else -1.0)
    freed: list[int] = []
    store = registry._store_files

    def store_and_collect(*given: Any) -> None:
        store(*given)
        if len(freed) < 2:
            freed.append(other.collect(grace_seconds=0).blobs)

    monkeypatch.setattr(registry, "_store_files", store_and_collect)
    files = write_files("weights")
    registry.register("m", Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0]), files)
    assert freed == ([0] if leased else [2, 2])
    assert orphan in _blobs(registry)
    assert registry.verify().intact
    freed.clear()
    if not leased:  # taken away again and again, the row is never written without its bytes
        monkeypatch.setattr(registry, "_store_files", lambda *given: (store(*given), other.collect(grace_seconds=0)))
        files = write_files("more weights")
        manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[1])
        with pytest.raises(RegistryBusy, match="3 times"):
            registry.register("n", manifest, files)
        assert [v.name for v in registry.versions()] == ["m"]


def test_blobs_that_were_all_there_are_leased_once_a_collection_took_them(
    open_registry: Callable[[], Registry],
    write_files: Write,
    fingerprints: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    registry, other = open_registry(), open_registry()
    files = write_files("weights")
    described = describe_files(files)
    for path, entry in described.items():
        with files[path].open("rb") as stream:
            assert registry.blobs.put(stream, entry.sha256, entry.size)
    store, held = registry._store_files, registry.leases.held
    seen: list[tuple[frozenset[str], int]] = []

    def store_and_collect(*given: Any) -> None:
        store(*given)
        seen.append((held(), other.collect(grace_seconds=0).blobs))

    monkeypatch.setattr(registry, "_store_files", store_and_collect)
    registry.register("m", Manifest(kind="base", files=described, base_fingerprint=fingerprints[0]), files)
    needed = frozenset(entry.sha256 for entry in described.values())
    assert seen == [(frozenset(), len(needed)), (needed, 0)]
    assert needed <= _blobs(registry)
    assert held() == frozenset()
    assert registry.verify().intact


def test_parent_that_is_retired_between_the_look_and_the_lock_is_none(
    registry: Registry, add_base: Add, write_files: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = add_base()
    files = write_files("new contents")
    store = registry._store_files

    def store_and_retire(*given: Any) -> None:
        store(*given)
        registry.retire(base.label, **WHO)

    monkeypatch.setattr(registry, "_store_files", store_and_retire)
    manifest = Manifest(
        kind="adapter",
        files=describe_files(files),
        base_fingerprint=base.base_fingerprint,
        parents=(Parent(base.digest, "base"),),
    )
    with pytest.raises(VersionRetired, match="a parent"):
        registry.register("m", manifest, files)
    assert registry.versions("m") == []


def test_what_is_there_is_registered_again_without_the_write_lock(
    tmp_path: Path, write_files: Write, fingerprints: tuple[str, str]
) -> None:
    with Registry.open(tmp_path / "registry") as registry:
        files = write_files("weights")
        manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
        version = registry.register("m", manifest, files)
        other = sqlite3.connect(registry.folder / DATABASE, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert registry.register("m", manifest, files) == version
        other.close()


def test_collection_works_where_blobs_are_not_on_this_disk(
    registry: Registry, add_adapter: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = BlobStore(f"memory://{registry.folder.name}-{time.monotonic_ns()}")
    monkeypatch.setattr(registry, "blobs", elsewhere)
    one, two = add_adapter("one"), add_adapter("two")
    registry.retire("text2sql:v1", **WHO)
    assert registry.collect().blobs == 0
    found = registry.collect(grace_seconds=0)
    assert (found.blobs, found.bytes) == (1, one.manifest.files[WEIGHTS].size)
    assert _needed(two) <= _blobs(registry)
    assert not (registry.folder / "blobs").exists()
    assert registry.verify().intact


def test_many_removals_are_made_in_batches_with_a_row_each(
    registry: Registry, write_files: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    from registry import collection

    orphans = {_orphan(registry, write_files, str(number)) for number in range(7)}
    monkeypatch.setattr(collection, "BATCH", 3)
    assert registry.collect(grace_seconds=0).blobs == 7
    told = [entry.payload["blobs"] for entry in registry.audit() if entry.action == "collect"]
    assert [len(row) for row in told] == [3, 3, 1]
    assert {sha256 for row in told for sha256 in row} == orphans


def test_writers_get_in_between_the_batches_of_a_long_collection(
    open_registry: Callable[[], Registry],
    write_files: Write,
    fingerprints: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from registry import collection

    registry, other = open_registry(), open_registry()
    for number in range(60):
        _orphan(registry, write_files, str(number))
    remove, delay = registry.blobs.remove, [0.1]  # ten seconds in all, unless the writer comes through
    monkeypatch.setattr(registry.blobs, "remove", lambda sha256: (time.sleep(delay[0]), remove(sha256))[1])
    monkeypatch.setattr(collection, "HOLD_SECONDS", 0.25)
    files = write_files("meanwhile")
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
    collecting = threading.Thread(target=registry.collect, kwargs={"grace_seconds": 0})
    collecting.start()
    time.sleep(0.05)
    other.register("m", manifest, files)
    assert collecting.is_alive(), "the writer waited for the whole collection"
    delay[0] = 0
    collecting.join()
    assert _blobs(other) == _needed(other.resolve("m"))


def test_killed_at_any_step_nothing_marked_is_lost_and_the_next_one_finishes(
    registry: Registry,
    add_adapter: Add,
    write_files: Write,
    run_and_die: Callable[..., bool],
) -> None:
    kept = [add_adapter("kept"), registry.resolve("tiny-base")]
    registry.close()
    folder = registry.folder
    deaths = 0
    for deadly in range(1, 150):
        with Registry.open(folder) as before:
            files = write_files(f"adapter {deadly}")
            manifest = replace(kept[0].manifest, files=describe_files(files), content_key=str(deadly))
            version = before.register("text2sql", manifest, files)
            before.checkout(version.digest)
            before.retire(version.digest, **WHO)
            _orphan(before, write_files, f"orphan {deadly}")

        def act() -> None:
            with Registry.open(folder) as mine:
                mine.collect(grace_seconds=0, actor="ada")

        died = run_and_die(act, folder, deadly, statements=False)
        deaths += died
        with Registry.open(folder) as after:
            assert _needed(*kept) <= _blobs(after)
            assert after.verify().intact
            after.collect(grace_seconds=0)
            assert _blobs(after) == _needed(*kept)
            left = folder / "checkouts"
            assert list(left.iterdir()) == []
        if not died:
            break
    assert not died
    assert deaths > 10


def _fork(work: Callable[[], object]) -> int:
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _write(folder: Path, sources: list[dict[str, Path]], fingerprint: str, seed: int, end: Path) -> None:
    """Register contents that others register, too, read them back, and retire most of them, which makes garbage."""
    chance = random.Random(seed)
    if seed % 2:
        leases.LEASE_SECONDS = -1.0  # as if every lease had ended: what is left is the look under the lock
    with Registry.open(folder) as registry:
        for turn in itertools.count():
            if end.exists():
                return
            files = chance.choice(sources)
            manifest = Manifest(
                kind="base", files=describe_files(files), base_fingerprint=fingerprint, seed=seed * 100_000 + turn
            )
            with contextlib.suppress(RegistryBusy):
                version = registry.register(f"m{seed}", manifest, files)
                for sha256 in manifest.file_digests.values():
                    registry.blobs.read(sha256)
                if chance.random() < 0.95:
                    registry.retire(version.digest, **WHO)


def _collect(folder: Path, end: Path, notes: Path) -> None:
    freed = 0
    with Registry.open(folder) as registry:
        while not end.exists():
            freed += registry.collect(grace_seconds=0).blobs
            notes.write_text(str(freed))


def test_collectors_beside_writers_never_take_what_a_version_needs(
    registry: Registry, write_files: Write, fingerprints: tuple[str, str], tmp_path: Path
) -> None:
    folder, end = registry.folder, tmp_path / "end"
    registry.close()  # nothing open goes through a fork
    sources = [write_files(f"content {number}") for number in range(6)]
    children = [
        *(
            _fork(lambda seed=seed: _write(folder, sources, fingerprints[0], seed, end))  # type: ignore[misc]
            for seed in range(4)
        ),
        *(_fork(lambda name=name: _collect(folder, end, tmp_path / name)) for name in ("a", "b")),  # type: ignore[misc]
    ]
    begun = time.monotonic()
    try:
        while (passed := time.monotonic() - begun) < 2 or (passed < 20 and _freed(tmp_path) < 20):
            time.sleep(0.1)
        end.touch()
        statuses = [os.waitpid(child, 0)[1] for child in children]
    except BaseException:
        for child in children:
            os.kill(child, signal.SIGKILL)
        raise
    assert statuses == [0] * len(children), "a writer could not read what it had registered, or an act failed"
    with Registry.open(folder) as after:
        assert _freed(tmp_path) >= 20, "the collectors met no garbage"
        assert len(after.versions()) > 20
        assert after.verify().problems == ()
        in_use = [v for v in after.versions() if after.status(v.digest).state == "active"]
        assert _needed(*in_use) <= _blobs(after)
        after.collect(grace_seconds=0)
        assert _blobs(after) == _needed(*in_use)


def _freed(folder: Path) -> int:
    return sum(int((folder / name).read_text() or 0) for name in ("a", "b") if (folder / name).exists())


def test_uploads_that_nobody_went_on_with_are_swept_by_whoever_collects(registry: Registry, write_files: Write) -> None:
    uploads = registry.folder / "uploads"  # a server's; it need not run
    assert registry.collect().blobs == 0
    uploads.mkdir()
    for name, days in (("a.part", 2), ("a.length", 2), ("b.part", 0.9), ("b.length", 0.9), ("c.0f.part", 2)):
        (uploads / name).write_bytes(b"x")
        os.utime(uploads / name, (time.time() - days * 86_400,) * 2)
    registry.collect(dry_run=True)
    assert len(list(uploads.iterdir())) == 5
    registry.collect()
    assert sorted(path.name for path in uploads.iterdir()) == ["b.length", "b.part"]
