"""Contents over HTTP: whole, in parts that go on where they stopped, verified both ways, bounded."""

from __future__ import annotations

import base64
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from registry import parts
from registry.errors import BlobCorrupted, FileRefused, RegistryPathError, UploadConflict
from registry.http.uploads import Uploads
from registry.manifest import describe_files
from registry.store import Registry

Ask = Callable[..., httpx.Response]
CONTENT = b'{"hidden_size": 64, "note": "' + b"n" * 3_000_000 + b'"}'
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def upload(ask: Ask, part: bytes, offset: int, total: int = len(CONTENT), digest: str = DIGEST) -> httpx.Response:
    headers = {"Upload-Offset": str(offset), "Upload-Length": str(total)}
    return ask("PATCH", f"/v1/uploads/{digest}", "write", content=part, headers=headers)


def test_a_content_goes_in_whole_and_comes_out_described(ask: Ask) -> None:
    assert ask("HEAD", f"/v1/blobs/{DIGEST}").status_code == 404
    put = ask("PUT", f"/v1/blobs/{DIGEST}", "write", content=CONTENT)
    assert put.json() == {"sha256": DIGEST, "size": len(CONTENT), "created": True}
    assert ask("PUT", f"/v1/blobs/{DIGEST}", "write", content=CONTENT).json()["created"] is False
    head = ask("HEAD", f"/v1/blobs/{DIGEST}", "read")
    assert int(head.headers["content-length"]) == len(CONTENT)
    got = ask("GET", f"/v1/blobs/{DIGEST}", "read")
    assert got.content == CONTENT
    assert got.headers["etag"] == f'"{DIGEST}"'
    assert base64.b64decode(got.headers["repr-digest"].split(":")[1]) == bytes.fromhex(DIGEST)
    assert ask("GET", f"/v1/blobs/{DIGEST}", headers={"If-None-Match": f'"{DIGEST}"'}).status_code == 304


def test_what_is_behind_an_offset_can_be_asked_for(ask: Ask) -> None:
    ask("PUT", f"/v1/blobs/{DIGEST}", "write", content=CONTENT)
    for first in (1, 1_500_000, 2**20, len(CONTENT) - 1):
        part = ask("GET", f"/v1/blobs/{DIGEST}", headers={"Range": f"bytes={first}-"})
        assert (part.status_code, part.content) == (206, CONTENT[first:])
        assert part.headers["content-range"] == f"bytes {first}-{len(CONTENT) - 1}/{len(CONTENT)}"
    for whole in ("bytes=0-", "bytes=5-9", "bytes=-5", "lines=1-"):
        assert ask("GET", f"/v1/blobs/{DIGEST}", headers={"Range": whole}).content == CONTENT
    behind = ask("GET", f"/v1/blobs/{DIGEST}", headers={"Range": f"bytes={len(CONTENT)}-"})
    assert (behind.status_code, behind.headers["content-range"]) == (416, f"bytes */{len(CONTENT)}")


def test_an_empty_content_is_a_content(ask: Ask) -> None:
    empty = hashlib.sha256(b"").hexdigest()
    assert ask("PUT", f"/v1/blobs/{empty}", "write", content=b"").json()["size"] == 0
    assert ask("GET", f"/v1/blobs/{empty}").content == b""


def test_another_content_than_announced_is_refused_and_leaves_nothing(ask: Ask, registry: Registry) -> None:
    for answer in (ask("PUT", f"/v1/blobs/{DIGEST}", "write", content=b"other"), upload(ask, b"other", 0, 5)):
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:tunewright:error:FileRefused")
    assert ask("HEAD", f"/v1/blobs/{DIGEST}").status_code == 404
    assert ask("GET", f"/v1/uploads/{DIGEST}", "write").json()["offset"] == 0
    assert list((registry.folder / "uploads").glob("*.part")) == []


def test_an_upload_goes_on_where_it_stopped(ask: Ask) -> None:
    half = len(CONTENT) // 2
    assert ask("GET", f"/v1/uploads/{DIGEST}", "write").json() == {"sha256": DIGEST, "offset": 0, "complete": False}
    assert upload(ask, CONTENT[:half], 0).json() == {"sha256": DIGEST, "offset": half, "complete": False}
    for wrong in (0, half - 1, half + 1):
        clash = upload(ask, CONTENT[wrong:], wrong)
        assert (clash.status_code, clash.json()["offset"]) == (409, half)
    assert ask("GET", f"/v1/uploads/{DIGEST}", "write").json()["offset"] == half
    assert upload(ask, CONTENT[half:], half).json()["complete"] is True
    assert ask("GET", f"/v1/uploads/{DIGEST}", "write").json() == {
        "sha256": DIGEST, "offset": len(CONTENT), "complete": True}  # fmt: skip
    assert ask("GET", f"/v1/blobs/{DIGEST}").content == CONTENT


def test_an_upload_can_be_forgotten(ask: Ask) -> None:
    upload(ask, CONTENT[:10], 0)
    assert ask("DELETE", f"/v1/uploads/{DIGEST}", "write").status_code == 204
    assert ask("DELETE", f"/v1/uploads/{DIGEST}", "write").status_code == 404
    assert ask("GET", f"/v1/uploads/{DIGEST}", "write").json()["offset"] == 0


def test_an_upload_keeps_the_length_that_it_was_announced_with(ask: Ask, registry: Registry) -> None:
    half = len(CONTENT) // 2
    upload(ask, CONTENT[:half], 0)
    for other in (half, len(CONTENT) - 1, len(CONTENT) + 1):
        clash = upload(ask, CONTENT[half:other], half, total=other)
        assert (clash.status_code, clash.json()["type"]) == (409, "urn:tunewright:error:UploadConflict")
        assert (clash.json()["offset"], clash.json()["allowed"]) == (half, f"Upload-Length {len(CONTENT)}")
    assert ask("DELETE", f"/v1/uploads/{DIGEST}", "write").status_code == 204
    assert upload(ask, CONTENT[:10], 0, total=20).status_code == 200  # begun anew
    assert ask("DELETE", f"/v1/uploads/{DIGEST}", "write").status_code == 204
    upload(ask, CONTENT[:half], 0)
    assert upload(ask, CONTENT[half:], half).json()["complete"] is True
    assert list((registry.folder / "uploads").iterdir()) == []


def test_what_an_upload_announced_is_noted_whole_or_not_at_all(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploads = Uploads(registry.folder / "uploads", registry.blobs, kept_seconds=60)
    folder = registry.folder / "uploads"

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.replace", fail)
        with pytest.raises(RegistryPathError, match="No space left"), uploads.appending(DIGEST, 0, 100):
            pass
    assert [path.name for path in folder.iterdir()] == [f"{DIGEST}.part"]
    with uploads.appending(DIGEST, 0, 100):
        pass
    assert (folder / f"{DIGEST}.length").read_text() == "100"
    aside = folder / f".{DIGEST}.length.c0ffee"  # as a killed server leaves it
    aside.write_text("1")
    uploads.sweep()
    assert aside.exists()
    os.utime(aside, (time.time() - 120,) * 2)
    uploads.sweep()
    assert not aside.exists()


def test_more_than_was_announced_or_allowed_is_refused(ask: Ask) -> None:
    assert upload(ask, b"123456", 0, total=5).status_code == 413
    assert upload(ask, b"", 0, total=2**50).status_code == 413
    assert upload(ask, b"", 9, total=5).status_code == 413
    assert (
        ask("PUT", f"/v1/blobs/{DIGEST}", "write", content=b"x", headers={"Content-Length": "9" * 12}).status_code
        == 413
    )
    assert ask("PATCH", f"/v1/uploads/{DIGEST}", "write", content=b"x").status_code == 422
    for path in ("/v1/blobs/xyz", f"/v1/blobs/{DIGEST.upper()}", f"/v1/blobs/{DIGEST}x"):
        assert ask("GET", path).status_code == 422


def test_one_writer_at_a_time_and_the_abandoned_are_swept(registry: Registry) -> None:
    uploads = Uploads(registry.folder / "uploads", registry.blobs, kept_seconds=60)
    with uploads.appending(DIGEST, 0, 100) as stream:
        stream.write(b"12345")
        stream.flush()
        with pytest.raises(UploadConflict, match="somebody else"), uploads.appending(DIGEST, 5, 100):
            pass
    assert uploads.offset(DIGEST) == 5
    assert uploads.sweep() == 0
    old = time.time() - 120
    os.utime(registry.folder / "uploads" / f"{DIGEST}.part", (old, old))
    assert uploads.sweep() == 1
    assert list((registry.folder / "uploads").iterdir()) == []
    assert uploads.offset(DIGEST) == 0


def test_a_disk_without_room_is_told_before_anything_comes(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    real = shutil.disk_usage("/")
    monkeypatch.setattr("registry.http.uploads.shutil.disk_usage", lambda _: real._replace(free=10))
    assert upload(ask, CONTENT, 0).status_code == 507
    assert ask("PUT", f"/v1/blobs/{DIGEST}", "write", content=CONTENT).status_code == 507


def test_a_damaged_blob_is_never_sent_to_its_end(registry: Registry, ask: Ask) -> None:
    ask("PUT", f"/v1/blobs/{DIGEST}", "write", content=CONTENT)
    path = registry.blobs.local_path(DIGEST)
    assert path is not None
    path.chmod(0o644)
    path.write_bytes(CONTENT[:-2] + b"X}")
    sent: list[bytes] = []
    with pytest.raises(BlobCorrupted):
        sent.extend(registry.blobs.pieces(DIGEST))
    assert 0 < sum(map(len, sent)) < len(CONTENT)
    # what a client sees of that over a socket is in test_serving.py; in process the body is cut short
    assert len(ask("GET", f"/v1/blobs/{DIGEST}").content) < len(CONTENT)


def test_a_version_is_registered_from_contents_that_were_sent(
    ask: Ask, registry: Registry, write_files: Callable[..., dict[str, Any]], fingerprints: tuple[str, str]
) -> None:
    files = write_files("weights", **{"extra.json": CONTENT})
    entries = {path: {"size": e.size, "sha256": e.sha256} for path, e in describe_files(files).items()}
    body = {"name": "tiny", "manifest": {"kind": "base", "files": entries, "base_fingerprint": fingerprints[0]}}
    missing = ask("POST", "/v1/versions", "write", json=body)
    assert missing.status_code == 404
    assert missing.json()["missing"] == sorted({entry["sha256"] for entry in entries.values()})
    assert registry.versions() == []
    for path, entry in entries.items():
        ask("PUT", f"/v1/blobs/{entry['sha256']}", "write", content=files[path].read_bytes())
    done = ask("POST", "/v1/versions", "write", json=body)
    assert (done.status_code, done.json()["version"]) == (201, 1)
    assert ask("POST", "/v1/versions", "write", json=body).json() == done.json()  # registered once
    assert registry.checkout("tiny:v1").joinpath("extra.json").read_bytes() == CONTENT
    assert registry.verify().intact
    assert registry.audit()[-1].actor == "writeer"
    listed = ask("GET", "/v1/files/tiny").json()
    assert [file["path"] for file in listed["files"]] == sorted(entries)
    assert ask("GET", listed["files"][0]["url"]).content == files[listed["files"][0]["path"]].read_bytes()

    damaged = registry.blobs.local_path(DIGEST)
    assert damaged is not None
    damaged.chmod(0o644)
    damaged.write_bytes(b"damaged")
    assert ask("POST", "/v1/versions", "write", json=body).json()["missing"] == [DIGEST]
    ask("PUT", f"/v1/blobs/{DIGEST}", "write", content=CONTENT)
    assert ask("POST", "/v1/versions", "write", json=body).status_code == 201
    assert registry.verify().intact


def test_what_may_not_enter_is_refused_at_registration(
    ask: Ask, registry: Registry, fingerprints: tuple[str, str]
) -> None:
    pickle = b"\x80\x04N."
    digest = hashlib.sha256(pickle).hexdigest()
    ask("PUT", f"/v1/blobs/{digest}", "write", content=pickle)

    def body(path: str, size: int) -> dict[str, Any]:
        files = {path: {"size": size, "sha256": digest}}
        return {"name": "x", "manifest": {"kind": "base", "files": files, "base_fingerprint": fingerprints[0]}}

    for path in ("weights.pkl", "config.json", "../escape.json", "a//b.json"):
        answer = ask("POST", "/v1/versions", "write", json=body(path, len(pickle)))
        assert answer.status_code == 422, (path, answer.text)
    answer = ask("POST", "/v1/versions", "write", json=body("notes.txt", 3))
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:tunewright:error:ManifestInvalid")
    assert registry.versions() == []


def test_a_file_that_is_adopted_is_held_to_its_digest(registry: Registry, tmp_path: Any) -> None:
    source = tmp_path / "content"
    source.write_bytes(CONTENT)
    with pytest.raises(FileRefused):
        registry.blobs.adopt(source, hashlib.sha256(b"x").hexdigest(), len(CONTENT))
    with pytest.raises(FileRefused):
        registry.blobs.adopt(source, DIGEST, len(CONTENT) - 1)
    assert source.exists()
    assert registry.blobs.adopt(source, DIGEST, len(CONTENT)) is True
    assert not source.exists()
    source.write_bytes(CONTENT)
    assert registry.blobs.adopt(source, DIGEST, len(CONTENT)) is False
    assert not source.exists()
    assert b"".join(registry.blobs.pieces(DIGEST)) == CONTENT


def test_what_is_sent_again_is_as_young_as_what_came_now(
    ask: Ask, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask("PUT", f"/v1/blobs/{DIGEST}", "write", content=CONTENT)
    blob = registry.blobs.local_path(DIGEST)
    assert blob is not None
    month_ago = time.time() - 30 * 86_400

    def refuse(*_: Any) -> None:
        raise PermissionError(1, "Operation not permitted")  # as of another user's file

    for again in (lambda: ask("PUT", f"/v1/blobs/{DIGEST}", "write", content=CONTENT), lambda: upload(ask, CONTENT, 0)):
        os.utime(blob, (month_ago, month_ago))
        assert again().json().get("created") in (False, None)
        assert time.time() - blob.stat().st_mtime < 3600
        assert ask("POST", "/v1/collections", json={}).json()["blobs"] == 0
    os.utime(blob, (month_ago, month_ago))
    with monkeypatch.context() as patched:
        patched.setattr("registry.blobs.os.utime", refuse)
        assert ask("PUT", f"/v1/blobs/{DIGEST}", "write", content=CONTENT).json()["created"] is True
    assert time.time() - blob.stat().st_mtime < 3600
    assert ask("GET", f"/v1/blobs/{DIGEST}").content == CONTENT
    os.utime(blob, (month_ago, month_ago))
    assert ask("POST", "/v1/collections", json={}).json()["blobs"] == 1


def test_an_adopted_file_and_its_name_are_on_the_disk_before_anybody_is_told(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what the kernel was told to keep outlives a power cut: first the bytes, then the folder that names them."""
    source = tmp_path / "content"
    source.write_bytes(CONTENT)
    place = registry.blobs.local_path(DIGEST)
    assert place is not None
    place.parent.mkdir(parents=True)  # its own name is another flush's
    inode, flushed = source.stat().st_ino, []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        flushed.append((os.fstat(descriptor).st_ino, place.exists()))
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", noted)
    assert registry.blobs.adopt(source, DIGEST, len(CONTENT)) is True
    assert flushed == [(inode, False), (place.parent.stat().st_ino, True)]


def test_who_waited_for_a_part_that_is_gone_writes_into_nothing(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a part's opening and its lock its writer may finish it: what is appended then would be lost, or worse."""
    uploads = Uploads(registry.folder / "uploads", registry.blobs)
    part = registry.folder / "uploads" / f"{DIGEST}.part"
    locked = parts._locked

    def finished(*given: Any) -> Any:
        part.rename(part.with_name("a-blob"))
        return locked(*given)

    def finished_and_begun_anew(*given: Any) -> Any:
        part.rename(part.with_name("a-blob"))
        part.write_bytes(b"")
        return locked(*given)

    for meanwhile in (finished, finished_and_begun_anew):
        monkeypatch.setattr(parts, "_locked", meanwhile)
        with pytest.raises(UploadConflict, match="was finished just now"), uploads.appending(DIGEST, 0, 100):
            pass


def test_abandoned_uploads_are_swept_while_a_server_runs(
    ask: Ask, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = registry.folder / "uploads"
    now = time.monotonic()
    monkeypatch.setattr("registry.http.uploads.time.monotonic", lambda: now)
    other = hashlib.sha256(b"other").hexdigest()

    def abandon() -> None:
        upload(ask, CONTENT[:10], 0)
        two_days_ago = time.time() - 2 * 86_400
        os.utime(folder / f"{DIGEST}.part", (two_days_ago, two_days_ago))

    for send in (lambda: ask("PUT", f"/v1/blobs/{other}", "write", content=b"other"),
                 lambda: upload(ask, b"other", 0, 5, other)):  # fmt: skip
        abandon()
        send()
        assert (folder / f"{DIGEST}.part").exists()  # this server has swept less than an hour ago
        now += 3601
        send()
        assert list(folder.iterdir()) == []
    abandon()
    ask("POST", "/v1/collections", json={"dry_run": True})
    assert (folder / f"{DIGEST}.part").exists()
    ask("POST", "/v1/collections", json={})
    assert list(folder.iterdir()) == []


def test_an_upload_that_is_gone_on_with_is_not_swept(registry: Registry) -> None:
    uploads = Uploads(registry.folder / "uploads", registry.blobs, kept_seconds=60)
    part = registry.folder / "uploads" / f"{DIGEST}.part"
    with uploads.appending(DIGEST, 0, 10) as stream:
        stream.write(b"12345")
    os.utime(part, (time.time() - 50,) * 2)
    with uploads.appending(DIGEST, 5, 10):
        assert time.time() - part.stat().st_mtime < 30
        assert uploads.sweep() == 0
