"""Contents on their way into S3, and into what speaks its language: a multipart upload straight to a content's key.

Nothing is seen under a key before its upload is complete, so that no half object is ever under a digest. An upload that
was cut off is found again by its key: of the parts that are there, those are kept whose MD5, by which S3 names them, is
that of the content's own bytes. Credentials are found as every AWS client finds them; none pass through here.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any
from urllib.parse import urlsplit

from registry.errors import BlobCorrupted, BlobsUnreachable, FileRefused, RegistryPathError, S3Missing
from registry.parts import check_content

__all__ = ["ReachedStream", "S3Uploads", "check_s3_url", "is_upload_lost", "no_bucket", "open_s3", "reaching"]

# S3 takes 10,000 parts at most, and none but the last under 5 MiB.
PART_BYTES = 16 << 20
MOST_PARTS = 10_000
# What one read asks for; fsspec's own 50 MiB would be held in memory for each file that is read.
READ_BYTES = 8 << 20
# A collection, and whoever registers, ask under the registry's write lock, for which others wait 30 s: what doesn't
# answer is given up. Of both layers below: botocore's tries are of one request, s3fs's also of an answer cut off.
CONNECT_SECONDS, ANSWER_SECONDS, TRIES = 5, 15, 2


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
    files = s3fs.S3FileSystem(
        use_listings_cache=False,
        default_block_size=READ_BYTES,
        skip_instance_cache=True,
        config_kwargs={
            "connect_timeout": CONNECT_SECONDS,
            "read_timeout": ANSWER_SECONDS,
            "retries": {"total_max_attempts": TRIES, "mode": "standard"},
        },
    )
    files.retries = TRIES
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


def no_bucket(root: str) -> BlobsUnreachable:
    """Return the error for a bucket that isn't there."""
    return BlobsUnreachable(f"there is no bucket {root.partition('/')[0]!r}", next_step="make it first")


class ReachedStream(io.BufferedIOBase):
    """A stored object that is read here and there, with the registry's errors.

    Args:
        stream: s3fs's own.
        root: Bucket and prefix, for the error.
    """

    def __init__(self, stream: Any, root: str) -> None:
        self._stream = stream
        self._root = root

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def seekable(self) -> bool:
        """Say that any place in it can be read."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place, and return it."""
        return int(self._stream.seek(offset, whence))

    def tell(self) -> int:
        """Return the place."""
        return int(self._stream.tell())

    def read(self, size: int | None = -1) -> bytes:
        """Return so many bytes, or all that are left.

        Raises:
            BlobsUnreachable: S3 doesn't answer, or refuses.
            BlobCorrupted: The object went away meanwhile.
        """
        try:
            with reaching(self._root):
                return bytes(self._stream.read(-1 if size is None else size))
        except FileNotFoundError as error:
            raise BlobCorrupted(
                f"a blob under {self._root} went away while it was read", next_step="run the command again"
            ) from error

    def close(self) -> None:
        """Let it go."""
        self._stream.close()
        super().close()


def is_upload_lost(error: BaseException | None) -> bool:
    """Say whether S3 refused since an upload is gone, or a part of it isn't what it was: others write there, too."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return response.get("Error", {}).get("Code") in ("NoSuchUpload", "InvalidPart")
        error = error.__cause__
    return False


@dataclass(frozen=True)
class S3Uploads:
    """Uploads into one filesystem's keys.

    Attributes:
        files: The s3fs filesystem.
        root: Bucket and prefix.
    """

    files: Any
    root: str

    def send(
        self,
        path: str,
        source: IO[bytes],
        sha256: str,
        size: int,
        tell: Callable[[int], object],
        *,
        anew: bool = False,
    ) -> None:
        """Send a content to its key, going on with an upload of it that was cut off.

        Args:
            path: Bucket and key.
            source: The content from its start.
            sha256: The hex digest that it must have.
            size: The length in bytes that it must have.
            tell: Told how many bytes are there.
            anew: Begin an upload of its own, whatever is there.

        Raises:
            FileRefused: The content has another digest or length; an upload that was begun for it is taken back. One
                that was found stays: another may be sending the good content with it.
            OSError: S3 refuses.
        """
        bucket, _, key = path.partition("/")
        if size <= PART_BYTES:
            body = source.read(size + 1)
            check_content(hashlib.sha256(body).hexdigest(), len(body), sha256, size)
            self.files.call_s3("put_object", Bucket=bucket, Key=key, Body=body)
            tell(size)
            return
        part_bytes = max(PART_BYTES, math.ceil(size / MOST_PARTS))
        upload = None if anew else self._unfinished(bucket, key)
        held = {} if upload is None else self._held(bucket, key, upload)
        is_own = upload is None
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
            check_content(hasher.hexdigest(), done, sha256, size)
        except FileRefused:
            if is_own:
                with contextlib.suppress(FileNotFoundError):
                    self.files.call_s3("abort_multipart_upload", **named)
            raise
        self.files.call_s3("complete_multipart_upload", MultipartUpload={"Parts": parts}, **named)

    def sweep(self, older_than_seconds: float) -> int:
        """Abort uploads that nobody went on with, and return how many there were."""
        bucket, _, prefix = self.root.partition("/")
        removed, oldest = 0, time.time() - older_than_seconds
        for upload in self._uploads(bucket, f"{prefix}/sha256/".lstrip("/")):
            named = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"]}
            # completed meanwhile, or another sweep was faster; and who can't see the parts can't tell
            with contextlib.suppress(FileNotFoundError, PermissionError):
                if upload["Initiated"].timestamp() < oldest and self._newest_part(named) < oldest:
                    self.files.call_s3("abort_multipart_upload", **named)
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
            marks = {"KeyMarker": page["NextKeyMarker"]}
            if page.get("NextUploadIdMarker"):
                marks["UploadIdMarker"] = page["NextUploadIdMarker"]

    def _held(self, bucket: str, key: str, upload: str) -> dict[int, str]:
        found: dict[int, str] = {}
        with contextlib.suppress(PermissionError):
            for part in self._parts({"Bucket": bucket, "Key": key, "UploadId": upload}):
                found[int(part["PartNumber"])] = str(part["ETag"])
        return found

    def _newest_part(self, named: dict[str, Any]) -> float:
        return max((float(part["LastModified"].timestamp()) for part in self._parts(named)), default=0.0)

    def _parts(self, named: dict[str, Any]) -> Iterator[dict[str, Any]]:
        marks: dict[str, int] = {}
        while True:
            page = self.files.call_s3("list_parts", **named, **marks)
            yield from page.get("Parts", ())
            if not page.get("IsTruncated"):
                return
            marks = {"PartNumberMarker": int(page["NextPartNumberMarker"])}
