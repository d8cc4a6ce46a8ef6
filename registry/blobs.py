"""File contents by their sha256, through fsspec: blobs/sha256/ab/abcdef..., readable and copyable without our code.

Written to a temporary name, hashed on the way, flushed, renamed (in S3 an upload that shows nothing before it is
complete); hashed again on every read.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, Any

from registry.errors import BlobCorrupted, BlobsUnreachable, FileRefused, RegistryPathError, UploadConflict
from registry.names import is_digest
from registry.parts import PIECE_BYTES, check_content, fill, held
from registry.s3 import ReachedStream, S3Uploads, check_s3_url, is_upload_lost, no_bucket, open_s3, reaching
from registry.s3_owner import Owner
from registry.whole_file import flush_folder, make_folder

__all__ = ["PIECE_BYTES", "BlobStore"]

_SWEEP_SECONDS = 3600.0


class BlobStore:
    """A content-addressed store on any fsspec filesystem.

    Args:
        url: A folder, or an fsspec URL (`memory://...`, `s3://...`).
        registry: Says the id of the registry whose contents they are, which is held against the one in S3.

    Attributes:
        owner: Whose contents lie there.
        is_local: Whether they lie on this machine's disk.
    """

    def __init__(self, url: str | Path, registry: Callable[[], str] | None = None) -> None:
        self._files: Any
        self._uploads: S3Uploads | None = None
        self._sweep_next = 0.0
        self.owner = Owner(None, "", registry)
        if str(url).startswith("s3://"):
            self._files, self._root = open_s3(check_s3_url(str(url)))
            self._uploads = S3Uploads(self._files, self._root)
            self.owner = Owner(self._files, self._root, registry)
            self.is_local = False
            return
        from fsspec.core import url_to_fs  # fsspec takes 0.1 s to import; look-ups never come here

        self._files, self._root = url_to_fs(str(url))
        protocol = self._files.protocol
        self.is_local = "file" in ((protocol,) if isinstance(protocol, str) else protocol)

    def check_reachable(self) -> None:
        """Look whether the place of the blobs is there.

        Raises:
            BlobsUnreachable: It isn't, or refuses.
        """
        if self._uploads is not None:
            try:
                with reaching(self._root):
                    self._files.call_s3("head_bucket", Bucket=self._root.partition("/")[0])
            except FileNotFoundError as error:
                raise no_bucket(self._root) from error

    def path(self, sha256: str) -> str:
        """Return where a blob lies, inside the filesystem."""
        return f"{self._root}/sha256/{sha256[:2]}/{sha256}"

    def uri(self, sha256: str) -> str:
        """Return a blob's address for other tools: `file:///...`, `s3://...`; no credentials are in it."""
        return str(self._files.unstrip_protocol(self.path(sha256)))

    def local_path(self, sha256: str) -> Path | None:
        """Return a blob's path on this machine's disk, or None where blobs lie elsewhere."""
        return Path(self.path(sha256)) if self.is_local else None

    def size(self, sha256: str) -> int | None:
        """Return a stored blob's length in bytes, or None if it isn't there. The content isn't read."""
        try:
            if self.is_local:
                return os.stat(self.path(sha256)).st_size  # noqa: PTH116 - of every file of every promotion
            with self._reaching():
                return int(self._files.size(self.path(sha256)))
        except FileNotFoundError:
            return None

    def put(
        self, source: IO[bytes], sha256: str, size: int, progress: Callable[[int], object] = lambda _: None
    ) -> bool:
        """Store a content under its digest, or find it stored intact already.

        Args:
            source: The content from its start, seekable. What an earlier call that was cut off left of it is gone on
                with, on this machine's disk and in S3.
            sha256: The hex digest that it must have.
            size: The length in bytes that it must have.
            progress: Told how many bytes are there, as they grow.

        Returns:
            True if bytes were written, False if the blob was there and is intact.

        Raises:
            FileRefused: The content has another digest or length: the file changed since its manifest was made.
            RegistryPathError: The store can't be written.
            BlobsUnreachable: The store can't be reached.
            WrongBlobs: It is another registry's.
        """
        self.owner.claim()
        if self._is_intact(sha256):
            progress(size)
            return False
        try:
            if self.is_local:
                self._put_file(source, sha256, size, progress)
            elif self._uploads is None:
                self._put_aside(source, sha256, size, progress)
            else:
                return self._send(source, sha256, size, progress)
        except OSError as error:
            raise (_unwritable if self._uploads is None else _unsent)(sha256, self._root, error) from error
        return True

    def _put_file(self, source: IO[bytes], sha256: str, size: int, progress: Callable[[int], object]) -> None:
        incoming = Path(self._root) / "incoming"
        with contextlib.ExitStack() as stack:
            try:
                part = stack.enter_context(held(incoming / f"{sha256}.part"))
            except (UploadConflict, RegistryPathError):  # somebody else stores the same content, or was killed at it
                part = stack.enter_context(held(incoming / f"{sha256}.{uuid.uuid4().hex}.part"))
            try:
                os.utime(part.name)  # no sweep takes it for one that nobody goes on with
                found, length = fill(part, source, progress)
                check_content(found, length, sha256, size)
                self._place(part.name, sha256)
            except (FileRefused, OSError):
                Path(part.name).unlink(missing_ok=True)
                raise

    def _put_aside(self, source: IO[bytes], sha256: str, size: int, progress: Callable[[int], object]) -> None:
        incoming = f"{self._root}/incoming/{uuid.uuid4().hex}"
        self._files.makedirs(f"{self._root}/incoming", exist_ok=True)
        self._files.makedirs(f"{self._root}/sha256/{sha256[:2]}", exist_ok=True)
        try:
            hasher, length = hashlib.sha256(), 0
            with self._files.open(incoming, "wb") as target:
                while piece := source.read(PIECE_BYTES):
                    hasher.update(piece)
                    length += len(piece)
                    target.write(piece)
                    progress(length)
            check_content(hasher.hexdigest(), length, sha256, size)
            self._place(incoming, sha256)
        except BaseException:
            if self._files.exists(incoming):
                self._files.rm_file(incoming)
            raise

    def _send(self, source: IO[bytes], sha256: str, size: int, progress: Callable[[int], object]) -> bool:
        """Store a content in S3, and read it back: what isn't as it was sent is taken away again."""
        assert self._uploads is not None
        for anew in (False, True):
            try:
                with reaching(self._root):
                    self._uploads.send(self.path(sha256), source, sha256, size, progress, anew=anew)
                break
            except (FileNotFoundError, BlobsUnreachable) as error:
                if self._is_intact(sha256):  # another process completed the same upload
                    return False
                if anew or not is_upload_lost(error):
                    raise
                source.seek(0)  # another gave the same upload up, or sent other bytes: an own one
        try:
            self.read(sha256)
        except BlobCorrupted as error:
            self.remove(sha256)
            raise RegistryPathError(
                f"blob {sha256} was sent to {self._root}, and other bytes came back", next_step="run the command again"
            ) from error
        return True

    def adopt(self, source: Path, sha256: str, size: int) -> bool:
        """Take a local file over as a blob, if it has the content: moved where blobs lie on the same disk, else copied.

        A blob that is there on this machine's disk is as young afterwards as one that came now, so that no collection
        takes it before who sent it has registered it. In S3 it keeps its age.

        Args:
            source: A file that nobody else writes to; it is gone afterwards, unless it is refused.
            sha256: The hex digest that it must have.
            size: The length in bytes that it must have.

        Returns:
            False if the blob was there and is intact, and stays.

        Raises:
            FileRefused: The content has another digest or length.
            RegistryPathError: The store can't be written.
        """
        with source.open("rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
            length = stream.tell()
            if (found, length) != (sha256, size):
                raise FileRefused(
                    f"{length} bytes with sha256 {found} came in, {size} with {sha256} were announced",
                    allowed="the content whose digest is announced",
                    next_step="send it again from its start",
                )
            if self._is_intact(sha256) and self._made_young(sha256):
                source.unlink()
                return False
            if not self.is_local:
                stream.seek(0)
                self.put(stream, sha256, size)
                source.unlink()
                return True
        try:
            with source.open("rb") as stream:
                os.fsync(stream.fileno())
            self._place(str(source), sha256)
        except OSError as error:
            raise _unwritable(sha256, self._root, error) from error
        return True

    def _place(self, incoming: str, sha256: str) -> None:
        if not self.is_local:
            self._files.mv(incoming, self.path(sha256))
            return
        # Checkouts are hard links to blobs: without write permission an editor can't change both by accident.
        os.chmod(incoming, 0o444)
        place = Path(self.path(sha256))
        make_folder(place.parent)
        os.replace(incoming, place)
        flush_folder(place.parent)

    def _made_young(self, sha256: str) -> bool:
        """Let a blob count as written now; False where another is to take its place for that."""
        if self.is_local:
            try:
                os.utime(self.path(sha256))
            except OSError:  # another user's, or collected just now
                return False
        return True

    def _is_intact(self, sha256: str) -> bool:
        try:
            self.read(sha256)
        except BlobCorrupted:
            return False  # not there, or damaged: the good bytes are at hand and take the damaged blob's place
        return True

    def pieces(self, sha256: str) -> Iterator[bytes]:
        """Yield a blob's content, hashing it on the way; its last piece comes only once the whole was found intact.

        Raises:
            BlobCorrupted: The blob is gone, or its bytes have another digest.
        """
        hasher = hashlib.sha256()
        kept = b""
        try:
            with self._reaching(), self._bytes_of(sha256) as stream:
                while piece := stream.read(PIECE_BYTES):
                    if kept:
                        yield kept
                    hasher.update(piece)
                    kept = piece
        except FileNotFoundError as error:
            raise BlobCorrupted(f"blob {sha256} is gone from {self._root}", next_step=_REPAIR) from error
        except OSError as error:  # on this machine's disk: what S3 says is explained already
            raise BlobCorrupted(
                f"blob {sha256} at {self.path(sha256)} can't be read: {error.strerror or error}",
                allowed="a file that this user may read, on a disk that works",
                next_step=_REPAIR,
            ) from error
        if hasher.hexdigest() != sha256:
            raise BlobCorrupted(
                f"blob {sha256} at {self.path(sha256)} was damaged: its bytes have sha256 {hasher.hexdigest()}",
                next_step=_REPAIR,
            )
        if kept:
            yield kept

    def read(self, sha256: str, write: Callable[[bytes], object] | None = None) -> int:
        """Stream a blob's content to a writer, hashing it on the way.

        Args:
            sha256: The blob's hex digest.
            write: Called with each piece; what it was given counts only once this returns. None only verifies.

        Returns:
            The length in bytes.

        Raises:
            BlobCorrupted: The blob is gone, or its bytes have another digest.
        """
        length = 0
        for piece in self.pieces(sha256):
            length += len(piece)
            if write is not None:
                write(piece)
        return length

    def sweep_incoming(self, older_than_seconds: float = 86_400) -> int:
        """Remove what writers that were killed left half-written, once no writer can still be at it.

        Returns:
            How many files were removed.
        """
        if self._uploads is not None:
            self.owner.claim()
            with self._reaching():
                return self._uploads.sweep(older_than_seconds)
        try:
            left = self._files.ls(f"{self._root}/incoming", detail=False)
        except FileNotFoundError:
            return 0
        removed = 0
        for path in left:
            try:
                if time.time() - self._files.modified(path).timestamp() > older_than_seconds:
                    self._files.rm_file(path)
                    removed += 1
            except FileNotFoundError:  # its writer finished, or another sweep was faster
                continue
        return removed

    def sweep_now_and_then(self) -> None:
        """Sweep as `sweep_incoming` does, if this store hasn't for an hour: what is swept is a day old."""
        now = time.monotonic()
        if now >= self._sweep_next:
            self.sweep_incoming()
            self._sweep_next = now + _SWEEP_SECONDS

    def stored(self) -> Iterator[tuple[str, int]]:
        """Yield every stored blob's sha256 and length; other files that lie there are passed over."""
        self._files.invalidate_cache()  # others write, too
        with self._reaching():
            found = self._files.find(f"{self._root}/sha256", detail=True)
        for path, entry in found.items():
            sha256 = path.rsplit("/", 1)[-1]
            if is_digest(sha256):
                yield sha256, int(entry["size"])

    def written_at(self, sha256: str) -> float | None:
        """Return when a blob was written, in seconds since 1970, or None if it isn't there."""
        try:
            with self._reaching():
                return float(self._files.modified(self.path(sha256)).timestamp())
        except FileNotFoundError:
            return None

    def remove(self, sha256: str) -> bool:
        """Remove a blob; False if it isn't there. For collections only, which know what needs it.

        Raises:
            RegistryPathError, BlobsUnreachable: It can't be removed.
        """
        if self._uploads is not None and self.size(sha256) is None:
            return False  # S3 says nothing of it
        try:
            with self._reaching():
                self._files.rm_file(self.path(sha256))
        except FileNotFoundError:
            return False
        except OSError as error:
            raise RegistryPathError(
                f"blob {sha256} can't be removed from {self._root}: {error.strerror or error}",
                allowed="a folder that this user may write",
                next_step="let whoever owns the registry's folder collect",
            ) from error
        return True

    def open(self, sha256: str) -> Any:
        """Open a stored blob for seeking about in it, not verified; for looking at headers only.

        Raises:
            BlobCorrupted: The blob is gone.
        """
        try:
            with self._reaching():
                stream = self._bytes_of(sha256)
        except FileNotFoundError as error:
            raise BlobCorrupted(f"blob {sha256} is gone from {self._root}", next_step=_REPAIR) from error
        return stream if self._uploads is None else ReachedStream(stream, self._root)

    def _bytes_of(self, sha256: str) -> Any:
        # past fsspec where it would only add its own time to a promotion's and a registration's: as in `size`
        return Path(self.path(sha256)).open("rb") if self.is_local else self._files.open(self.path(sha256), "rb")

    def _reaching(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext() if self._uploads is None else reaching(self._root)


def _unwritable(sha256: str, root: str, error: OSError) -> RegistryPathError:
    return RegistryPathError(
        f"cannot write blob {sha256} under {root}: {error.strerror or error}",
        allowed="a folder with room that this user may write",
        next_step="free space, or choose another folder for the registry",
    )


def _unsent(sha256: str, root: str, error: OSError) -> BlobsUnreachable:
    return BlobsUnreachable(
        f"blob {sha256} can't be sent to {root}: {error.strerror or error}",
        allowed="a bucket that is there, and credentials that may read, list, write and remove there",
        next_step="look whether the bucket is there, and run the command again: what was sent is gone on with",
    )


_REPAIR = (
    "restore the blob from a copy, or register the same files again; `tunewright registry verify` lists the damage"
)
