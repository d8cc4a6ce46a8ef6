"""Contents on their way into S3, and into what speaks its language: a multipart upload straight to a content's key.

Nothing is seen under a key before its upload is complete, so that no half object is ever under a digest. An upload that
was cut off is found again by its key: of the parts that are there, those are kept whose MD5, by which S3 names them, is
that of the content's own bytes. Credentials are found as every AWS client finds them; none pass through here.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

from registry.errors import BlobsUnreachable, FileRefused, RegistryPathError, S3Missing

__all__ = ["S3Uploads", "changed_content", "check_s3_url", "open_s3", "reaching"]

# S3 takes 10,000 parts at most, and none but the last under 5 MiB.
PART_BYTES = 16 << 20
MOST_PARTS = 10_000
# What one read asks for; fsspec's own 50 MiB would be held in memory for each file that is read.
READ_BYTES = 8 << 20


def check_s3_url(url: str) -> str:
    """Return an address of blobs in S3, if it is one and has no secret in it.

    Raises:
        RegistryPathError: It has another form.
    """
    parts = urlsplit(url)
    if parts.scheme != "s3" or not parts.netloc or any(mark in url for mark in "@?#") or ":" in parts.netloc:
        raise RegistryPathError(
            "the address of the blobs can't be used",  # not repeated: it may hold a secret
            allowed="s3://BUCKET or s3://BUCKET/PREFIX; credentials by the environment or ~/.aws, and another server "
            "than Amazon's by AWS_ENDPOINT_URL_S3",
        )
    return url.rstrip("/")


def open_s3(url: str) -> tuple[Any, str]:
    """Return the filesystem and the root of blobs in S3.

    Raises:
        S3Missing: s3fs isn't installed.
    """
    try:
        import s3fs
    except ImportError as error:
        raise S3Missing(
            f"blobs in S3 need s3fs: {error}",
            allowed="s3fs of the same version as fsspec",
            next_step="install it with `pip install --constraint constraints.txt --editable '.[s3]'`",
        ) from error
    # no memory of listings: other processes store and remove, too
    files = s3fs.S3FileSystem(use_listings_cache=False, default_block_size=READ_BYTES, skip_instance_cache=True)
    return files, url.removeprefix("s3://")


@contextlib.contextmanager
def reaching(root: str) -> Iterator[None]:
    """Turn what S3's client raises for want of a server, a bucket or rights into the registry's error.

    Raises:
        BlobsUnreachable: Says what to look at.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except Exception as error:
        ours = type(error).__module__.partition(".")[0] in ("botocore", "aiobotocore", "aiohttp")
        if not ours and not isinstance(error, OSError):
            raise
        raise BlobsUnreachable(
            f"the blobs under {root} can't be reached: {type(error).__name__}: {error}",
            allowed="a server that answers, and credentials that may read, list, write and remove there",
            next_step="look at AWS_ENDPOINT_URL_S3, the network and the credentials, and run the command again",
        ) from error


@dataclass(frozen=True)
class S3Uploads:
    """Uploads into one filesystem's keys.

    Attributes:
        files: The s3fs filesystem.
        root: Bucket and prefix.
    """

    files: Any
    root: str

    def send(self, path: str, source: IO[bytes], sha256: str, size: int, tell: Callable[[int], object]) -> None:
        """Send a content to its key, going on with an upload of it that was cut off.

        Args:
            path: Bucket and key.
            source: The content from its start.
            sha256: The hex digest that it must have.
            size: The length in bytes that it must have.
            tell: Told how many bytes are there.

        Raises:
            FileRefused: The content has another digest or length; nothing of it is kept.
            OSError: S3 refuses.
        """
        bucket, _, key = path.partition("/")
        if size <= PART_BYTES:
            body = source.read(size + 1)
            _check(sha256, size, hashlib.sha256(body).hexdigest(), len(body))
            self.files.call_s3("put_object", Bucket=bucket, Key=key, Body=body)
            tell(size)
            return
        part_bytes = max(PART_BYTES, math.ceil(size / MOST_PARTS))
        upload = self._unfinished(bucket, key)
        held = {} if upload is None else self._parts(bucket, key, upload)
        if upload is None:
            upload = str(self.files.call_s3("create_multipart_upload", Bucket=bucket, Key=key)["UploadId"])
        named = {"Bucket": bucket, "Key": key, "UploadId": upload}
        hasher, done = hashlib.sha256(), 0
        parts: list[dict[str, Any]] = []
        while piece := source.read(part_bytes):
            number = len(parts) + 1
            hasher.update(piece)
            etag = held.get(number)
            # what lies there is never trusted: its name must be that of the bytes at hand
            if etag is None or etag.strip('"') != hashlib.md5(piece, usedforsecurity=False).hexdigest():
                etag = str(self.files.call_s3("upload_part", Body=piece, PartNumber=number, **named)["ETag"])
            parts.append({"PartNumber": number, "ETag": etag})
            done += len(piece)
            tell(done)
        try:
            _check(sha256, size, hasher.hexdigest(), done)
        except FileRefused:
            self.files.call_s3("abort_multipart_upload", **named)
            raise
        self.files.call_s3("complete_multipart_upload", MultipartUpload={"Parts": parts}, **named)

    def sweep(self, older_than_seconds: float) -> int:
        """Abort uploads that nobody went on with, and return how many there were."""
        bucket, _, prefix = self.root.partition("/")
        removed = 0
        for upload in self._uploads(bucket, f"{prefix}/sha256/".lstrip("/")):
            if time.time() - upload["Initiated"].timestamp() > older_than_seconds:
                with contextlib.suppress(FileNotFoundError):  # completed meanwhile, or another sweep was faster
                    named = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
                    self.files.call_s3("abort_multipart_upload", Bucket=bucket, **named)
                    removed += 1
        return removed

    def _unfinished(self, bucket: str, key: str) -> str | None:
        mine = [upload for upload in self._uploads(bucket, key) if upload["Key"] == key]
        newest = max(mine, key=lambda upload: upload["Initiated"], default=None)
        return None if newest is None else str(newest["UploadId"])

    def _uploads(self, bucket: str, prefix: str) -> Iterator[dict[str, Any]]:
        marks: dict[str, str] = {}
        while True:
            try:
                page = self.files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=prefix, **marks)
            except PermissionError:  # who may not list them begins anew
                return
            yield from page.get("Uploads", ())
            if not page.get("IsTruncated"):
                return
            marks = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def _parts(self, bucket: str, key: str, upload: str) -> dict[int, str]:
        found: dict[int, str] = {}
        marks: dict[str, int] = {}
        while True:
            try:
                page = self.files.call_s3("list_parts", Bucket=bucket, Key=key, UploadId=upload, **marks)
            except PermissionError:
                return found
            found.update({int(part["PartNumber"]): str(part["ETag"]) for part in page.get("Parts", ())})
            if not page.get("IsTruncated"):
                return found
            marks = {"PartNumberMarker": int(page["NextPartNumberMarker"])}


def _check(sha256: str, size: int, found: str, length: int) -> None:
    if (found, length) != (sha256, size):
        raise changed_content(found, length, sha256, size)


def changed_content(found: str, length: int, sha256: str, size: int) -> FileRefused:
    """Return the error for a content that isn't what its manifest says."""
    return FileRefused(
        f"a file has {length} bytes with sha256 {found}, its manifest says {size} with {sha256}",
        allowed="files that don't change while they are registered",
        next_step="make the manifest again and register again",
    )
