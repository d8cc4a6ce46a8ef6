"""What every backend of the registry must do: register, bind, look up, evaluate."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from registry.entities import Version
from registry.errors import (
    AliasNotFound,
    AmbiguousReference,
    BaseMismatch,
    ContentKeyTaken,
    DigestTaken,
    EvaluationMismatch,
    FileRefused,
    ManifestInvalid,
    ParentNotFound,
    ReferenceInvalid,
    RegistryNotFound,
    RegistryPathError,
    ReportInvalid,
    VersionNotFound,
)
from registry.gate import Policy
from registry.lookup import resolve_digest
from registry.manifest import FileEntry, Manifest, Parent, describe_files
from registry.store import Registry

Add = Callable[..., Version]
Write = Callable[..., dict[str, Path]]


def test_registered_version_comes_back_from_every_form_of_reference(
    registry: Registry, add_adapter: Add, make_report: Any, policy: Policy
) -> None:
    version = add_adapter()
    registry.record_evaluation(version.digest, make_report())
    registry.promote("text2sql:v1", "champion", policy=policy, actor="ada")
    for ref in ("text2sql", "text2sql:v1", "text2sql@champion", version.digest, version.digest[:12].upper()):
        found = registry.resolve(ref)
        assert found == version
        assert found.manifest == version.manifest
        assert found.manifest.digest == found.digest


def test_bare_name_is_the_newest_version(registry: Registry, add_adapter: Add) -> None:
    add_adapter("one")
    second = add_adapter("two")
    assert (second.version, registry.resolve("text2sql")) == (2, second)


def test_same_content_key_returns_the_version_that_is_there(registry: Registry, add_adapter: Add) -> None:
    first = add_adapter("key")
    again = add_adapter("key", seed=8)  # another manifest, made from the same inputs
    assert again == first
    assert [v.version for v in registry.versions("text2sql")] == [1]


def test_same_content_key_with_other_bytes_is_a_conflict(
    registry: Registry, add_adapter: Add, write_files: Write
) -> None:
    first = add_adapter("key")
    for files in (write_files("other weights"), write_files("adapter key", **{"README.md": b"one more file"})):
        manifest = replace(first.manifest, files=describe_files(files))
        with pytest.raises(ContentKeyTaken, match=r"text2sql:v1 .* are not the registered ones") as caught:
            registry.register("text2sql", manifest, files)
        assert caught.value.exit_status == 4
        assert "registry resolve text2sql:v1 --checkout" in str(caught.value)
    assert registry.versions("text2sql") == [first]
    assert registry.register("other", manifest, files).label == "other:v1"  # the key binds one name


def test_versions_of_one_name_are_numbered_apart_from_those_of_another(add_adapter: Add) -> None:
    assert [add_adapter(key, name=name).version for key, name in [("a", "x"), ("b", "y"), ("c", "x")]] == [1, 1, 2]


def test_registering_at_once_numbers_without_gaps_and_makes_one_version_of_one_key(
    open_registry: Callable[[], Registry], add_base: Add, write_files: Write, fingerprints: Any
) -> None:
    base = add_base()
    registries = [open_registry() for _ in range(4)]
    files = write_files("adapter")

    def register(turn: int) -> Version:
        manifest = Manifest(
            kind="adapter",
            files=describe_files(files),
            base_fingerprint=fingerprints[0],
            parents=(Parent(base.digest, "base"),),
            content_key=f"key {turn // 4}",
            seed=turn,  # four different manifests of each key, one registry each
        )
        return registries[turn % 4].register("m", manifest, files)

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(register, range(24)))
    assert sorted({v.version for v in made}) == [1, 2, 3, 4, 5, 6]
    assert all(len({v.digest for v in made[i : i + 4]}) == 1 for i in range(0, 24, 4))
    assert registries[0].verify().intact


def test_one_manifest_cannot_be_registered_under_two_names(
    registry: Registry, add_base: Add, write_files: Write
) -> None:
    base = add_base()
    with pytest.raises(DigestTaken, match="tiny-base:v1"):
        registry.register("other", base.manifest, write_files("base"))


def test_reopened_registry_tells_the_same(open_registry: Callable[[], Registry], add_adapter: Add) -> None:
    version = add_adapter()
    assert open_registry().resolve("text2sql") == version


@pytest.mark.parametrize(
    ("ref", "error", "says"),
    [
        ("text2sq", VersionNotFound, "text2sql"),
        ("text2sql:v9", VersionNotFound, "text2sql:v1"),
        ("text2sql@champion", AliasNotFound, "promote text2sql:v1"),
        ("0123456789ab", VersionNotFound, "starts with"),
        ("", ReferenceInvalid, "name@alias"),
        ("text2sql:1", ReferenceInvalid, "name:vN"),
        ("text2sql@v1", ReferenceInvalid, "alias"),
        ("../etc", ReferenceInvalid, "12 hex digits"),
        ("a b", ReferenceInvalid, "name:vN"),
    ],
)
def test_unknown_reference_says_what_exists(
    registry: Registry, add_adapter: Add, ref: str, error: type[Exception], says: str
) -> None:
    add_adapter()
    with pytest.raises(error, match=says):
        registry.resolve(ref)


def test_misspelt_alias_names_the_nearest_and_never_a_command_that_writes(
    registry: Registry, passing: Callable[[str], Version], policy: Policy
) -> None:
    passing("one")
    registry.promote("text2sql", "champion", policy=policy, actor="ada")
    with pytest.raises(AliasNotFound) as caught:
        registry.resolve("text2sql@chmpion")
    assert caught.value.next_step is not None
    assert caught.value.next_step.startswith("did you mean text2sql@champion? `tunewright registry ls`")
    with pytest.raises(AliasNotFound) as caught:
        registry.resolve("text2sql@smoke")
    assert "promote" not in str(caught.value)
    assert "registry ls" in str(caught.value)


def test_digest_prefix_of_two_versions_is_ambiguous(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    from registry.lookup import resolve_reference

    rows = [(n, "m", n, "ab" * 31 + f"c{n}", "base", None, "{}", "t") for n in (1, 2)]
    with pytest.raises(AmbiguousReference, match=r"m:v1 .*m:v2"):
        resolve_reference(lambda sql, parameters: rows, "ab" * 10)


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b/c", "deadbeefcafe", "-x", "x" * 129, "a@b", "a:b"])
def test_hostile_or_misleading_model_name_is_refused(
    registry: Registry, write_files: Write, name: str, fingerprints: Any
) -> None:
    files = write_files()
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
    with pytest.raises(ReferenceInvalid):
        registry.register(name, manifest, files)


def test_adapter_needs_the_base_that_it_was_trained_on(add_base: Add, add_adapter: Add, fingerprints: Any) -> None:
    other = add_base("other-base", fingerprint=fingerprints[1], content="other")
    with pytest.raises(BaseMismatch, match="other-base:v1"):
        add_adapter(parents=(Parent(other.digest, "base"),))
    with pytest.raises(BaseMismatch):
        add_adapter(base_fingerprint=fingerprints[1])


@pytest.mark.parametrize(("field", "what"), [("tokenizer_digest", "tokenizer"), ("template_digest", "chat template")])
def test_adapter_needs_the_tokenizer_and_template_that_it_was_trained_with(
    add_base: Add, add_adapter: Add, field: str, what: str
) -> None:
    digests = {"tokenizer_digest": "a" * 64, "template_digest": "b" * 64}
    base = add_base("whole-base", content="whole", **digests)
    parents = (Parent(base.digest, "base"),)
    assert add_adapter("one", parents=parents, **digests).label == "text2sql:v1"
    assert add_adapter("two", parents=parents).label == "text2sql:v2"  # names none
    with pytest.raises(BaseMismatch, match=f"bound to {what} cccccccccccc, its base parent whole-base:v1"):
        add_adapter("three", parents=parents, **{**digests, field: "c" * 64})
    silent = add_base("silent-base", content="silent")
    with pytest.raises(BaseMismatch, match="none that it names"):
        add_adapter("four", parents=(Parent(silent.digest, "base"),), **{field: "a" * 64})


def test_a_base_whose_revision_moved_is_another_base(
    registry: Registry, add_base: Add, add_adapter: Add, fingerprints: tuple[str, str]
) -> None:
    adapter, old = add_adapter("one"), add_base()
    moved = add_base(fingerprint=fingerprints[1], content="the next revision")
    assert (old.label, moved.label) == ("tiny-base:v1", "tiny-base:v2")
    assert registry.resolve("tiny-base") == moved
    assert adapter.manifest.parents == (Parent(old.digest, "base"),)
    with pytest.raises(BaseMismatch, match="its base parent is tiny-base:v2"):
        add_adapter("two", parents=(Parent(moved.digest, "base"),))
    assert add_adapter("three", parents=(Parent(old.digest, "base"),)).label == "text2sql:v2"


def test_what_belongs_to_different_bases_is_not_composed(
    registry: Registry, add_base: Add, add_adapter: Add, write_files: Write, fingerprints: tuple[str, str]
) -> None:
    mine, own = add_base(), add_adapter("one")
    other = add_base("other-base", fingerprint=fingerprints[1], content="other")
    strange = add_adapter("two", base_fingerprint=fingerprints[1], parents=(Parent(other.digest, "base"),))
    assert strange.kind == own.kind == "adapter"
    files = write_files("composed")

    def compose(kind: str, *parents: tuple[Version, str]) -> Version:
        manifest = Manifest(
            kind=kind,
            files=describe_files(files),
            base_fingerprint=fingerprints[0] if kind == "adapter" else "c" * 64,
            parents=tuple(Parent(version.digest, role) for version, role in parents),
        )
        return registry.register("composed", manifest, files)

    for kind, parents in (
        ("merged", ((own, "source"), (strange, "source"))),
        ("merged", ((other, "base"), (own, "adapter"))),
        ("merged", ((mine, "source"), (strange, "adapter"))),
        ("merged", ((mine, "base"), (other, "source"), (own, "adapter"))),
        ("adapter", ((mine, "base"), (strange, "source"))),
        ("adapter", ((mine, "base"), (own, "source"), (strange, "whatever"))),
    ):
        with pytest.raises(BaseMismatch, match=r"belongs to different bases: .*text2sql:v"):
            compose(kind, *parents)
    assert registry.versions("composed") == []
    assert compose("merged", (mine, "base"), (own, "adapter")).label == "composed:v1"
    assert compose("adapter", (mine, "base"), (own, "source"), (strange, "teacher")).label == "composed:v2"
    # whole weights have a place of their own: a merge of two models is one of two bases
    assert compose("merged", (mine, "source"), (other, "source")).label == "composed:v3"


def test_adapter_cannot_stand_on_an_adapter(add_adapter: Add) -> None:
    first = add_adapter("one")
    with pytest.raises(BaseMismatch, match="text2sql:v1"):
        add_adapter("two", parents=(Parent(first.digest, "base"),))


def test_unregistered_parent_is_refused_and_nothing_is_written(
    registry: Registry, add_adapter: Add, add_base: Add
) -> None:
    add_base()
    blobs = sorted((registry.folder / "blobs").rglob("*"))
    with pytest.raises(ParentNotFound):
        add_adapter(parents=(Parent("f" * 64, "base"),))
    assert sorted((registry.folder / "blobs").rglob("*")) == blobs


def test_file_that_changed_since_its_manifest_is_refused(
    registry: Registry, write_files: Write, fingerprints: Any
) -> None:
    files = write_files()
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
    files["config.json"].write_bytes(b'{"hidden_size": 65}')
    with pytest.raises(FileRefused, match="manifest says"):
        registry.register("m", manifest, files)
    assert registry.versions() == []
    assert list((registry.folder / "blobs" / "incoming").iterdir()) == []


def test_symlinked_file_is_refused(registry: Registry, write_files: Write, fingerprints: Any, tmp_path: Path) -> None:
    files = write_files()
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
    link = tmp_path / "link.json"
    link.symlink_to(files["config.json"])
    with pytest.raises(FileRefused, match="symlink"):
        describe_files({"config.json": link})
    with pytest.raises(FileRefused, match="symlink"):
        registry.register("m", manifest, {**files, "config.json": link})
    assert not (registry.folder / "blobs").exists()


def test_pickle_is_refused_before_anything_is_written(
    registry: Registry, write_files: Write, fingerprints: Any
) -> None:
    files = write_files(**{"tokenizer.json": b"\x80\x04\x95\x00"})
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
    with pytest.raises(FileRefused, match="pickle"):
        registry.register("m", manifest, files)
    assert not (registry.folder / "blobs").exists()


def test_files_must_be_those_of_the_manifest(registry: Registry, write_files: Write, fingerprints: Any) -> None:
    files = write_files()
    manifest = Manifest(kind="base", files=describe_files(files), base_fingerprint=fingerprints[0])
    with pytest.raises(ManifestInvalid, match=r"config\.json"):
        registry.register("m", manifest, {"model.safetensors": files["model.safetensors"]})


def test_equal_files_are_stored_once(registry: Registry, add_adapter: Add) -> None:
    add_adapter("one")
    add_adapter("two")
    stored = [p for p in (registry.folder / "blobs" / "sha256").rglob("*") if p.is_file()]
    assert len(stored) == 4  # three different weights, one config


def test_evaluation_belongs_to_a_whole_digest(registry: Registry, add_adapter: Add, make_report: Any) -> None:
    version = add_adapter()
    evaluation = registry.record_evaluation(version.digest, make_report())
    assert evaluation.report == make_report()
    assert registry.record_evaluation(version.digest, make_report()) == evaluation
    newer = registry.record_evaluation(version.digest, make_report(0.3))
    assert [e.digest for e in registry.evaluations("text2sql")] == [newer.digest, evaluation.digest]
    for wrong in ("text2sql:v1", version.digest[:12], "f" * 64):
        with pytest.raises(VersionNotFound):
            registry.record_evaluation(wrong, make_report())
    assert registry.record_evaluation(version.digest.upper(), make_report(0.3)) == newer
    with pytest.raises(ReportInvalid):
        registry.record_evaluation(version.digest, {"task": {"delta": float("nan")}})


def test_name_or_alias_of_64_characters_is_no_whole_digest(
    registry: Registry, add_adapter: Add, make_report: Any, policy: Policy
) -> None:
    named = add_adapter("one", name="m" * 64)
    aliased = add_adapter("two", name="text2sql1")
    registry.record_evaluation(aliased.digest, make_report())
    registry.promote(aliased.digest, "a" * 54, policy=policy, actor="ada")
    for text in (named.name, f"{aliased.name}@{'a' * 54}"):
        assert len(text) == 64
        assert registry.resolve(text) in (named, aliased)
        with pytest.raises(VersionNotFound, match="is not a whole version digest"):
            registry.record_evaluation(text, make_report(0.5))
        with pytest.raises(VersionNotFound, match="is not a whole version digest"):
            resolve_digest(registry._lookup.query, text)


def test_reports_laid_over_the_newest_one_at_the_same_time_lose_nothing(
    registry: Registry, add_adapter: Add, make_report: Any
) -> None:
    """Recipes that share an alias measure its version at once, each on its own test."""
    version = add_adapter()
    registry.record_evaluation(version.digest, make_report() | {"policy": {"min_rows": 3}})
    start = threading.Barrier(8)

    def measure(number: int) -> None:
        with Registry.open(registry.folder) as own:
            start.wait()
            for turn in range(4):
                own.record_evaluation(version.digest, {f"recipe-{number}-{turn}": number}, over_newest=True)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(measure, range(8)))
    found = registry.evaluations(version.digest)
    assert len(found) == 1 + 32
    expected = {f"recipe-{number}-{turn}": number for number in range(8) for turn in range(4)}
    assert found[0].report == make_report() | {"policy": {"min_rows": 3}} | expected
    # each holds what was there before it, and one thing more
    assert all(newer.report.items() > older.report.items() for newer, older in itertools.pairwise(found))


def test_report_laid_over_none_is_the_report(registry: Registry, add_adapter: Add, make_report: Any) -> None:
    version = add_adapter()
    assert registry.record_evaluation(version.digest, make_report(), over_newest=True).report == make_report()
    with pytest.raises(ReportInvalid):
        registry.record_evaluation(version.digest, {"seed": float("nan")}, over_newest=True)


def test_report_on_other_files_is_refused(registry: Registry, add_adapter: Add, make_report: Any) -> None:
    version, other = add_adapter("one"), add_adapter("two")
    measured = {**make_report(), "files": version.manifest.file_digests}
    assert registry.record_evaluation(version.digest, measured).report == measured
    less = {"config.json": version.manifest.file_digests["config.json"]}
    more = {**version.manifest.file_digests, "extra.json": "0" * 64}
    for files in (other.manifest.file_digests, less, more, {}):
        with pytest.raises(EvaluationMismatch, match="text2sql:v1") as caught:
            registry.record_evaluation(version.digest, {**make_report(), "files": files})
        assert caught.value.exit_status == 2
    for odd in (None, ["config.json"], "config.json"):
        with pytest.raises(ReportInvalid, match="files"):
            registry.record_evaluation(version.digest, {**make_report(), "files": odd})
    assert len(registry.evaluations(version.digest)) == 1


def test_opening_for_reading_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(RegistryNotFound):
        Registry.open(tmp_path / "absent" / "registry", create=False)
    assert list(tmp_path.iterdir()) == []


def test_path_that_cannot_be_a_registry_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(RegistryPathError, match="can't be written") as caught:
        Registry.open(tmp_path / "file" / "registry")
    assert caught.value.exit_status == 2


def test_database_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "registry.db").write_bytes(b"just some text, not a database" * 200)
    with pytest.raises(RegistryPathError, match="can't be opened"):
        Registry.open(tmp_path)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_write_permission_is_an_input_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(RegistryPathError):
        Registry.open(tmp_path / "registry")
    tmp_path.chmod(0o755)


def test_lineage_goes_up_and_down(registry: Registry, add_adapter: Add, write_files: Write, fingerprints: Any) -> None:
    first, second = add_adapter("one"), add_adapter("two")
    files = write_files("merged")
    merged = registry.register(
        "merged",
        Manifest(
            kind="merged",
            files=describe_files(files),
            base_fingerprint=fingerprints[1],
            parents=(Parent(first.digest, "source", 0.5), Parent(second.digest, "source", 0.5)),
        ),
        files,
    )
    lineage = registry.lineage("merged")
    assert {n.label: n.direction for n in lineage.nodes} == {
        "tiny-base:v1": "up", "text2sql:v1": "up", "text2sql:v2": "up", "merged:v1": "self", "train.jsonl": "up"
    }  # fmt: skip
    assert {(e.source, e.role, e.weight) for e in lineage.edges if e.target == merged.digest} == {
        (first.digest, "source", 0.5), (second.digest, "source", 0.5)
    }  # fmt: skip
    down = registry.lineage("text2sql:v1")
    assert {n.label: n.direction for n in down.nodes if n.type == "version"} == {
        "tiny-base:v1": "up", "text2sql:v1": "self", "merged:v1": "down"
    }  # fmt: skip


def test_manifest_with_a_file_that_the_store_never_saw_leaves_no_version(
    registry: Registry, write_files: Write, fingerprints: Any
) -> None:
    files = write_files()
    entries = {**describe_files(files), "config.json": FileEntry(20, "a" * 64)}
    with pytest.raises(FileRefused):
        registry.register("m", Manifest(kind="base", files=entries, base_fingerprint=fingerprints[0]), files)
    assert registry.versions() == []
