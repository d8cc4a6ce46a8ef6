"""Blobs in S3, against a real server of its protocol on loopback: stored, gone on with, verified, shared, collected."""

from __future__ import annotations

import hashlib
import io
import json
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

import pytest

from registry import s3
from registry.blob_place import VARIABLE
from registry.blobs import BlobStore
from registry.entities import Version
from registry.errors import (
    BlobCorrupted,
    BlobsUnreachable,
    FileRefused,
    RegistryNotFound,
    RegistryPathError,
    WrongBlobs,
)
from registry.layout import BLOBS_PLACE
from registry.manifest import Manifest, describe_files
from registry.s3 import check_s3_url
from registry.s3_owner import OWNER, owner_document
from registry.store import Registry

pytestmark = pytest.mark.integration

SMALL = b"some weights" * 1000
# three parts, the last a short one
LARGE = bytes(range(256)) * (11 << 12)
WHO = {"actor": "ann", "reason": "test"}


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    pytest.importorskip("s3fs")
    moto = pytest.importorskip("moto.server")
    one = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    one.start()
    yield "http://{}:{}".format(*one.get_host_and_port())
    one.stop()


@pytest.fixture
def url(server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket's address; the server and the credentials are known by the environment alone."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key-of-ann")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret-of-ann")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setattr(s3, "PART_BYTES", 5 << 20)
    bucket = f"bucket-{uuid4().hex[:12]}"
    files, _ = s3.open_s3(f"s3://{bucket}")
    files.call_s3("create_bucket", Bucket=bucket)
    return f"s3://{bucket}/some/prefix"


@pytest.fixture
def blobs(url: str) -> BlobStore:
    return BlobStore(url)


@pytest.fixture
def registry(url: str, tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "registry", blobs=url) as one:
        yield one


def objects(blobs: BlobStore) -> list[str]:
    return [str(path) for path in blobs._files.find(f"{blobs._root}/sha256")]


class Breaking(io.BytesIO):
    """A content whose reader is cut off behind so many bytes."""

    def __init__(self, content: bytes, behind: int) -> None:
        super().__init__(content)
        self._behind = behind

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() >= self._behind:
            raise KeyboardInterrupt
        return super().read(size)


@pytest.mark.parametrize("content", [b"", SMALL, LARGE])
def test_a_content_comes_back_by_its_digest_and_is_stored_once(blobs: BlobStore, content: bytes) -> None:
    told: list[int] = []
    assert blobs.put(io.BytesIO(content), digest(content), len(content), told.append)
    assert told == sorted(told)
    assert told[-1] == len(content)
    out = io.BytesIO()
    assert blobs.read(digest(content), out.write) == blobs.size(digest(content)) == len(content)
    assert out.getvalue() == content
    assert not blobs.put(io.BytesIO(content), digest(content), len(content))
    assert list(blobs.stored()) == [(digest(content), len(content))]
    assert blobs.uri(digest(content)).startswith("s3://bucket-")
    assert abs(float(blobs.written_at(digest(content)) or 0) - time.time()) < 60
    assert blobs.remove(digest(content))
    assert not blobs.remove(digest(content))


@pytest.mark.parametrize("content", [SMALL, LARGE])
def test_another_content_is_refused_and_leaves_nothing(blobs: BlobStore, content: bytes) -> None:
    for wrong in (content[:-1], content + b"x", b"!" + content[1:]):
        with pytest.raises(FileRefused):
            blobs.put(io.BytesIO(wrong), digest(content), len(content))
        assert objects(blobs) == []
        assert blobs.sweep_incoming(older_than_seconds=-1) == 0
    with pytest.raises(BlobCorrupted, match="gone"):
        blobs.read(digest(content))


def test_an_upload_that_is_cut_off_shows_nothing_and_is_gone_on_with(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        blobs.put(Breaking(LARGE, 10 << 20), digest(LARGE), len(LARGE))
    assert objects(blobs) == []
    assert blobs.size(digest(LARGE)) is None
    sent: list[int] = []
    real = blobs._files.call_s3

    def watch(method: str, *rest: Any, **named: Any) -> Any:
        if method == "upload_part":
            sent.append(named["PartNumber"])
        return real(method, *rest, **named)

    monkeypatch.setattr(blobs._files, "call_s3", watch)
    assert blobs.put(io.BytesIO(LARGE), digest(LARGE), len(LARGE))
    assert sent == [3]
    assert blobs.read(digest(LARGE)) == len(LARGE)
    assert blobs.sweep_incoming(older_than_seconds=-1) == 0


def test_a_part_that_is_not_the_content_is_sent_again(blobs: BlobStore) -> None:
    bucket, _, key = blobs.path(digest(LARGE)).partition("/")
    upload = blobs._files.call_s3("create_multipart_upload", Bucket=bucket, Key=key)["UploadId"]
    named = {"Bucket": bucket, "Key": key, "UploadId": upload}
    blobs._files.call_s3("upload_part", Body=b"?" * (5 << 20), PartNumber=1, **named)
    blobs._files.call_s3("upload_part", Body=LARGE[5 << 20 : 10 << 20], PartNumber=2, **named)
    assert blobs.put(io.BytesIO(LARGE), digest(LARGE), len(LARGE))
    assert blobs.read(digest(LARGE)) == len(LARGE)


def test_uploads_that_nobody_goes_on_with_are_swept(blobs: BlobStore) -> None:
    with pytest.raises(KeyboardInterrupt):
        blobs.put(Breaking(LARGE, 5 << 20), digest(LARGE), len(LARGE))
    assert blobs.sweep_incoming(older_than_seconds=1e10) == 0  # this server says of each that it began in 2010
    assert blobs.sweep_incoming(older_than_seconds=-1) == 1


def test_two_writers_of_one_content_do_each_other_no_harm(url: str) -> None:
    one, other = BlobStore(url), BlobStore(url)

    class Meanwhile(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() == 10 << 20:  # the other goes on with this upload, and completes it
                assert other.put(io.BytesIO(LARGE), digest(LARGE), len(LARGE))
            return super().read(size)

    assert not one.put(Meanwhile(LARGE), digest(LARGE), len(LARGE))
    assert one.read(digest(LARGE)) == len(LARGE)


@pytest.mark.parametrize("method", ["put_object", "upload_part"])
def test_what_comes_back_otherwise_than_it_was_sent_is_taken_away(
    blobs: BlobStore, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    content = SMALL if method == "put_object" else LARGE
    real = blobs._files.call_s3

    def damage(called: str, *rest: Any, **named: Any) -> Any:
        if called == method:
            named["Body"] = b"!" + named["Body"][1:]
        return real(called, *rest, **named)

    monkeypatch.setattr(blobs._files, "call_s3", damage)
    with pytest.raises(RegistryPathError, match="other bytes came back"):
        blobs.put(io.BytesIO(content), digest(content), len(content))
    assert objects(blobs) == []


def test_a_registry_with_its_contents_in_s3(
    registry: Registry, add_adapter: Callable[..., Version], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = add_adapter("one"), add_adapter("two")
    assert not (registry.folder / "blobs").exists()
    assert not [path for path in registry.folder.rglob("*") if path.is_file() and b"secret-of-ann" in path.read_bytes()]
    assert len(objects(registry.blobs)) == 4  # base's and adapters' weights, and one config for all
    folder = registry.checkout(one.digest, tmp_path / "out")
    assert describe_files({path: folder / path for path in one.manifest.files}) == dict(one.manifest.files)
    assert registry.verify().intact
    with Registry.open(registry.folder) as again:  # remembered
        assert again.blobs.size(two.manifest.files["model.safetensors"].sha256)
    weights = two.manifest.files["model.safetensors"]
    registry.blobs._files.pipe_file(registry.blobs.path(weights.sha256), b"!" * weights.size)
    with pytest.raises(BlobCorrupted, match="damaged"):
        registry.checkout(two.digest, tmp_path / "damaged")
    assert not (tmp_path / "damaged").exists()
    assert not registry.verify().intact
    add_adapter("two")  # the same files mend it
    assert registry.verify().intact


def test_a_collection_heeds_leases_and_what_is_needed(
    registry: Registry, add_adapter: Callable[..., Version], tmp_path: Path
) -> None:
    one = add_adapter("one")
    add_adapter("two")
    registry.retire("text2sql:v1", **WHO)
    gone = one.manifest.files["model.safetensors"].sha256
    assert registry.collect().blobs == 0
    with registry.leases.hold([gone]):
        assert registry.collect(grace_seconds=0).blobs == 0
    assert registry.collect(grace_seconds=0, dry_run=True).blobs == 1
    assert registry.collect(grace_seconds=0).blobs == 1
    assert registry.blobs.size(gone) is None
    assert registry.verify("text2sql:v2").intact
    add_adapter("one")
    assert registry.verify().intact


def test_a_registration_is_told_of_bytes_and_goes_on(registry: Registry, tmp_path: Path) -> None:
    weights = tmp_path / "model.safetensors"
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(LARGE)], "data_offsets": [0, len(LARGE)]}}).encode()
    weights.write_bytes(len(header).to_bytes(8, "little") + header + LARGE)
    (tmp_path / "config.json").write_text("{}")
    files = {"model.safetensors": weights, "config.json": tmp_path / "config.json"}
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint="a" * 64)
    told: list[tuple[int, int]] = []

    def cut_off(done: int, total: int) -> None:
        told.append((done, total))
        if done > 6 << 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        registry.register("large", manifest, files, progress=cut_off)
    registry.register("large", manifest, files, progress=lambda *one: told.append(one))
    total = sum(entry.size for entry in manifest.files.values())
    assert told[-1] == (total, total)
    assert registry.verify().intact


def test_addresses_and_what_cannot_be_reached(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_files: Callable[..., dict[str, Path]]
) -> None:
    for wrong in (
        "s3://",
        "http://bucket",
        "s3://key:hunter22@bucket/x",
        "s3://bucket?secret=hunter22",
        "s3://b#hunter22",
    ):
        with pytest.raises(RegistryPathError) as caught:
            check_s3_url(wrong)
        assert "hunter22" not in str(caught.value)
    with pytest.raises(BlobsUnreachable, match="no bucket"):
        Registry.open(tmp_path / "a", blobs="s3://no-such-bucket-here/x")
    for stepping in (f"{url}/../x", f"{url}/.", "s3://../x"):
        with pytest.raises(RegistryPathError, match=r"part that is '\.' or '\.\.'"):
            Registry.open(tmp_path / "a", blobs=stepping)
    assert not (tmp_path / "a").exists()
    with pytest.raises(RegistryNotFound):
        Registry.open(tmp_path / "a", create=False)
    monkeypatch.setenv(VARIABLE, url)
    Registry.open(tmp_path / "b").close()
    assert json.loads((tmp_path / "b" / BLOBS_PLACE).read_text()) == {"url": url}
    monkeypatch.delenv(VARIABLE)
    with pytest.raises(RegistryPathError, match="one place for one registry"):
        Registry.open(tmp_path / "b", blobs="s3://another/x")
    with Registry.open(tmp_path / "c") as local:
        files = write_files()
        local.register("m", Manifest(kind="base", files=describe_files(files), base_fingerprint="a" * 64), files)
    with pytest.raises(RegistryPathError, match="contents of the registry"):
        Registry.open(tmp_path / "c", blobs=url)
    with Registry.open(tmp_path / "d"):  # it has no contents yet, and whoever has it open stores them in the folder
        with pytest.raises(RegistryPathError, match="decided when it is made"):
            Registry.open(tmp_path / "d", blobs=f"{url}/d")
        assert not (tmp_path / "d" / BLOBS_PLACE).exists()
    (tmp_path / "b" / BLOBS_PLACE).write_text("{}")
    with pytest.raises(RegistryPathError, match=BLOBS_PLACE):
        Registry.open(tmp_path / "b")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    silent = BlobStore(url)
    silent._files.retries = 1
    for act in (lambda: silent.size("a" * 64), lambda: silent.read("a" * 64), lambda: list(silent.stored()),
                lambda: silent.put(io.BytesIO(SMALL), digest(SMALL), len(SMALL))):  # fmt: skip
        with pytest.raises(BlobsUnreachable) as unreachable:
            act()
        assert "secret-of-ann" not in str(unreachable.value)


def test_a_prefix_is_one_registrys(
    url: str, registry: Registry, add_adapter: Callable[..., Version], tmp_path: Path, blobs: BlobStore
) -> None:
    one = add_adapter("one")
    with pytest.raises(WrongBlobs, match="another registry's") as caught:
        Registry.open(tmp_path / "second", blobs=url)
    assert "choose another prefix" in str(caught.value)
    with pytest.raises(RegistryNotFound):
        Registry.open(tmp_path / "second", create=False)
    theirs = Manifest(kind="base", files=one.manifest.files, base_fingerprint="a" * 64)
    with Registry.open(tmp_path / "second") as local:
        local.register("m", theirs, _files_of(registry, one, tmp_path / "out"))
    (tmp_path / "second" / BLOBS_PLACE).write_text(json.dumps({"url": url}))
    held = objects(blobs)
    with Registry.open(tmp_path / "second") as second:
        for act in (
            lambda: second.collect(grace_seconds=0),
            lambda: second.collect(grace_seconds=0, dry_run=True),
            lambda: second.register("m", theirs, _files_of(registry, one, tmp_path / "again")),
            lambda: second.register_stored("m", theirs),
        ):
            with pytest.raises(WrongBlobs, match="another registry's"):
                act()
    assert objects(blobs) == held
    assert registry.verify().intact
    assert registry.collect(grace_seconds=0).blobs == 0


def _files_of(registry: Registry, version: Version, folder: Path) -> dict[str, Path]:
    registry.checkout(version.digest, folder)
    return {path: folder / path for path in version.manifest.files}


def test_of_two_that_claim_a_prefix_at_once_one_has_it(blobs: BlobStore, url: str) -> None:
    one, other = BlobStore(url, lambda: "one"), BlobStore(url, lambda: "other")
    real = one._files.call_s3

    def meanwhile(method: str, *rest: Any, **named: Any) -> Any:
        if method == "put_object":  # one has seen that nothing is there
            other.owner.claim()
        return real(method, *rest, **named)

    one._files.call_s3 = meanwhile
    with pytest.raises(WrongBlobs, match="other"):
        one.owner.claim()
    other.owner.require_owned()


def test_contents_of_nobody_are_refused_and_say_how_they_are_taken(
    url: str, registry: Registry, add_adapter: Callable[..., Version], tmp_path: Path, blobs: BlobStore
) -> None:
    add_adapter("one")
    registry.retire("text2sql:v1", **WHO)
    identity = f"{blobs._root}/{OWNER}"
    document = blobs._files.cat_file(identity)
    blobs._files.rm_file(identity)
    with pytest.raises(WrongBlobs, match=r"no registry\.json"):
        Registry.open(tmp_path / "second", blobs=url)
    with Registry.open(registry.folder) as again, pytest.raises(WrongBlobs) as caught:
        again.collect(grace_seconds=0)
    assert document.decode() in str(caught.value)
    with Registry.open(registry.folder) as again, pytest.raises(WrongBlobs):
        again.blobs.put(io.BytesIO(SMALL), digest(SMALL), len(SMALL))
    for damaged in (b"", b"[]", b'{"registry": null}'):
        blobs._files.pipe_file(identity, damaged)
        with pytest.raises(WrongBlobs):
            registry.collect(grace_seconds=0)
    blobs._files.pipe_file(identity, document)
    assert registry.collect(grace_seconds=0).blobs == 1


def test_a_collection_looks_again_before_it_removes(
    registry: Registry, add_adapter: Callable[..., Version], blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    add_adapter("one")
    registry.retire("text2sql:v1", **WHO)
    held = objects(blobs)
    real = registry.blobs.stored

    def meanwhile() -> Iterator[tuple[str, int]]:
        blobs._files.pipe_file(f"{blobs._root}/{OWNER}", owner_document("another").encode())
        return real()

    monkeypatch.setattr(registry.blobs, "stored", meanwhile)
    with pytest.raises(WrongBlobs):
        registry.collect(grace_seconds=0)
    assert objects(blobs) == held


def test_a_file_that_changed_takes_no_upload_of_another_with_it(blobs: BlobStore) -> None:
    with pytest.raises(KeyboardInterrupt):
        blobs.put(Breaking(LARGE, 10 << 20), digest(LARGE), len(LARGE))
    with pytest.raises(FileRefused):
        blobs.put(io.BytesIO(LARGE[:-1] + b"!"), digest(LARGE), len(LARGE))
    bucket, _, key = blobs.path(digest(LARGE)).partition("/")
    assert blobs._uploads is not None
    assert blobs._uploads._unfinished(bucket, key) is not None
    assert blobs.put(io.BytesIO(LARGE), digest(LARGE), len(LARGE))
    assert blobs.read(digest(LARGE)) == len(LARGE)


@pytest.mark.parametrize("harm", ["given up", "other bytes"])
def test_an_upload_that_others_spoilt_is_begun_anew(url: str, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    models, exceptions = pytest.importorskip("moto.s3.models"), pytest.importorskip("moto.s3.exceptions")
    real = models.S3Backend.upload_part

    def as_s3_does(self: Any, bucket_name: str, multipart_id: str, *rest: Any, **named: Any) -> Any:
        if multipart_id not in self.get_bucket(bucket_name).multiparts:  # this server answers 500
            raise exceptions.NoSuchUpload(upload_id=multipart_id)
        return real(self, bucket_name, multipart_id, *rest, **named)

    monkeypatch.setattr(models.S3Backend, "upload_part", as_s3_does)
    one, other = BlobStore(url), BlobStore(url)
    bucket, _, key = one.path(digest(LARGE)).partition("/")
    done = []

    class Meanwhile(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() == 10 << 20 and not done:
                done.append(harm)
                assert other._uploads is not None
                named = {"Bucket": bucket, "Key": key, "UploadId": other._uploads._unfinished(bucket, key)}
                if harm == "given up":
                    other._files.call_s3("abort_multipart_upload", **named)
                else:
                    other._files.call_s3("upload_part", Body=b"?" * (5 << 20), PartNumber=1, **named)
            return super().read(size)

    assert one.put(Meanwhile(LARGE), digest(LARGE), len(LARGE))
    assert done == [harm]
    assert one.read(digest(LARGE)) == len(LARGE)


def test_a_bucket_that_is_gone_is_said_to_be(blobs: BlobStore, url: str) -> None:
    blobs._files.call_s3("delete_bucket", Bucket=url.split("/")[2])
    with pytest.raises(BlobsUnreachable, match="bucket") as caught:
        blobs.put(io.BytesIO(LARGE), digest(LARGE), len(LARGE))
    assert "free space" not in str(caught.value)


def test_an_upload_is_as_old_as_its_newest_part(blobs: BlobStore) -> None:
    with pytest.raises(KeyboardInterrupt):
        blobs.put(Breaking(LARGE, 5 << 20), digest(LARGE), len(LARGE))
    assert blobs.sweep_incoming(older_than_seconds=60) == 0
    assert blobs.sweep_incoming(older_than_seconds=-1) == 1


def test_what_is_opened_says_that_its_server_went_away(
    url: str, blobs: BlobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs.put(io.BytesIO(LARGE), digest(LARGE), len(LARGE))
    moto = pytest.importorskip("moto.server")
    another = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0)  # with the same buckets
    another.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://{}:{}".format(*another.get_host_and_port()))
    with BlobStore(url).open(digest(LARGE)) as stream:
        assert stream.read(4) == LARGE[:4]
        assert stream.seek(10 << 20) == stream.tell() == 10 << 20
        another.stop()
        with pytest.raises(BlobsUnreachable):
            stream.read()
    with blobs.open(digest(LARGE)) as stream:
        assert stream.read() == LARGE
    with blobs.open(digest(LARGE)) as stream:
        blobs.remove(digest(LARGE))
        with pytest.raises(BlobCorrupted):
            stream.read()


def test_a_server_that_does_not_answer_is_given_up(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(s3, "ANSWER_SECONDS", 0.2, raising=False)
        begun = time.monotonic()
        with pytest.raises(BlobsUnreachable):
            BlobStore(url).size("a" * 64)
        assert time.monotonic() - begun < 15


def test_a_list_of_uploads_without_an_id_to_go_on_at_is_read_on() -> None:
    class Files:
        def call_s3(self, _: str, **named: Any) -> dict[str, Any]:
            if "KeyMarker" not in named:
                return {"Uploads": [{"Key": "a"}], "IsTruncated": True, "NextKeyMarker": "a"}
            return {"Uploads": [{"Key": "b"}]}

    found = s3.S3Uploads(Files(), "bucket/p")._uploads("bucket", "p")
    assert [upload["Key"] for upload in found] == ["a", "b"]


def test_parts_are_few_enough_for_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "MOST_PARTS", 3)
    monkeypatch.setattr(s3, "PART_BYTES", 10)
    calls: list[tuple[str, int]] = []

    class Files:
        def call_s3(self, method: str, Body: bytes = b"", **_: Any) -> dict[str, Any]:  # noqa: N803
            calls.append((method, len(Body)))
            return {"UploadId": "u", "ETag": "e"}

    source: IO[bytes] = io.BytesIO(b"x" * 100)
    s3.S3Uploads(Files(), "bucket/p").send("bucket/p/k", source, digest(b"x" * 100), 100, lambda _: None)
    assert [size for method, size in calls if method == "upload_part"] == [34, 34, 32]
