"""A registry's folder in other hands: copied with ordinary tools, and read without a line of ours."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from registry.entities import Version
from registry.gate import Policy
from registry.manifest import Manifest, describe_files
from registry.store import Registry

Add = Callable[..., Version]

# What a stranger writes who knows docs/registry.md alone: SQLite, JSON and files named by their sha256.
READER = """
import json, pathlib, shutil, sqlite3, sys
registry, out = map(pathlib.Path, sys.argv[1:])
rows = sqlite3.connect(f"file:{registry / 'registry.db'}?mode=ro", uri=True).execute(
    "SELECT v.manifest FROM alias_events e JOIN versions v ON v.id = e.version_id "
    "WHERE e.name = 'text2sql' AND e.alias = 'champion' ORDER BY e.revision DESC LIMIT 1")
for path, entry in json.loads(rows.fetchone()[0])["files"].items():
    (out / path).parent.mkdir(parents=True, exist_ok=True)
    sha256 = entry["sha256"]
    shutil.copy(registry / "blobs" / "sha256" / sha256[:2] / sha256, out / path)
assert not [name for name in sys.modules if name.split(".")[0] == "registry"]
"""


@pytest.fixture
def champion(registry: Registry, passing: Add, policy: Policy) -> Version:
    version = passing("one")
    registry.promote(version.digest, "champion", policy=policy, actor="ada")
    return version


@pytest.mark.parametrize("tool", ["cp", "tar"])
def test_a_copy_by_ordinary_tools_is_the_registry(
    registry: Registry, champion: Version, tmp_path: Path, backend: Any, tool: str
) -> None:
    held = registry.verify()
    registry.close()
    copy = tmp_path / "copy"
    copy.mkdir()
    command = (
        f"cp -R {registry.folder}/. {copy}" if tool == "cp" else f"tar -C {registry.folder} -c . | tar -C {copy} -x"
    )
    subprocess.run(["sh", "-c", command], check=True)
    with Registry.open(copy, create=False) as other:
        assert other.resolve("text2sql@champion").digest == champion.digest
        assert other.verify() == held
        assert held.intact
        assert other.demote("text2sql", "champion", actor="ada", reason="it is written to, too").changed
        if backend.name == "sqlite":  # on PostgreSQL both have the same rows
            with Registry.open(registry.folder) as first:
                assert first.resolve("text2sql@champion").digest == champion.digest


def test_every_blob_is_checked_by_sha256sum(registry: Registry, champion: Version) -> None:
    checks = 'cd "$1" && for f in */*; do echo "${f##*/}  $f"; done | sha256sum --check --strict --quiet'
    command = ["sh", "-c", checks, "sh", str(registry.folder / "blobs" / "sha256")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    blob = registry.blobs.local_path(champion.manifest.files["config.json"].sha256)
    assert blob is not None
    blob.chmod(0o644)
    blob.write_bytes(b'{"hidden_size": 65}')
    assert subprocess.run(command, capture_output=True, check=False).returncode != 0


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
def test_a_stranger_finds_the_champions_files(registry: Registry, champion: Version, tmp_path: Path) -> None:
    registry.close()
    out = tmp_path / "out"
    subprocess.run([sys.executable, "-I", "-c", READER, str(registry.folder), str(out)], check=True)
    found = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    assert describe_files(found) == dict(champion.manifest.files)


def test_ten_adapters_share_their_base_and_two_bases_an_equal_shard(
    registry: Registry, add_adapter: Add, write_files: Callable[..., dict[str, Path]], fingerprints: tuple[str, str]
) -> None:
    adapters = [add_adapter(str(number)) for number in range(10)]
    base = registry.resolve("tiny-base")
    shard = next(iter(write_files("shard").values())).read_bytes()
    versions = [*adapters, base]
    for name, own in (("wide", "own weights"), ("tall", "others")):
        files = write_files(own, **{"model-00002.safetensors": shard})
        manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[1], content_key=own)
        versions.append(registry.register(name, manifest, files))
    stored = dict(registry.blobs.stored())
    named = [entry for version in versions for entry in version.manifest.files.values()]
    # weights of ten adapters, of the base and of two others, their common shard, the config that all have
    assert len(stored) == 10 + 1 + 2 + 1 + 1 < len(named) == 2 * 11 + 2 * 3
    assert stored == {entry.sha256: entry.size for entry in named}
