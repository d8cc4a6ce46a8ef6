"""The rows of a new version: found again if it is there, bound to its parents, numbered, written in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from registry import audit
from registry.blobs import BlobStore
from registry.entities import Version
from registry.errors import (
    BaseMismatch,
    BlobCorrupted,
    BlobsMissing,
    ContentKeyTaken,
    DigestTaken,
    ManifestInvalid,
    ParentNotFound,
    VersionNotFound,
)
from registry.lifecycle import change_state
from registry.lookup import Query, Statement, reference_statement, resolve_digest
from registry.manifest import BOUND_KINDS, WHOLE_KINDS, Manifest, require_shallow
from registry.names import LICENCE_LENGTH, check_text
from registry.promotion import emit
from registry.scan import scan
from registry.schema import version_parents, versions
from registry.status import HAS_EVENTS, RETIRED, query_status, require_usable, status_statement
from registry.writer import Writer, next_id

# Roles of parents whose weights are no part of a version: learnt from, or in its base already.
NOT_COMPOSED = ("teacher", "domain")
_AS_PARENT = "a parent"

__all__ = [
    "check_of_today",
    "check_stored",
    "expected_reads",
    "find_existing",
    "find_parents",
    "first_reads",
    "insert_version",
]


def check_of_today(manifest: Manifest) -> None:
    """Refuse a manifest that earlier releases took, and whose versions are what they are.

    Raises:
        ReferenceInvalid: The licence is too long, or no line of text.
        ManifestInvalid: Nested too deeply.
    """
    check_text("licence", manifest.licence, LICENCE_LENGTH)
    require_shallow(manifest)


def find_existing(query: Query, name: str, manifest: Manifest) -> Version | None:
    """Return the version of this name with the manifest's content key, or with its digest, if there is one.

    Raises:
        ContentKeyTaken: The version with this content key holds other files.
        DigestTaken: The same manifest is registered under another name.
    """
    rows = next((rows for asked in _existing_statements(name, manifest) if (rows := query(*asked))), None)
    if rows is None:
        return None
    version = Version(*rows[0])
    if version.name != name:
        raise DigestTaken(
            f"this manifest is registered already, as {version.label}",
            allowed="one name for one digest",
            next_step=f"use {version.label}",
        )
    if version.digest != manifest.digest:  # found by its key: other fields may differ, the bytes may not
        _compare_files(version, manifest)
    return version


def _existing_statements(name: str, manifest: Manifest) -> Iterator[Statement]:
    columns = "id, name, number, digest, kind, base_fingerprint, manifest, created_at"
    if manifest.content_key is not None:
        yield f"SELECT {columns} FROM versions WHERE name = ? AND content_key = ?", (name, manifest.content_key)
    yield reference_statement(manifest.digest)


def first_reads(name: str, manifest: Manifest) -> list[Statement]:
    """Return what `find_existing` and `find_parents` look up whatever they find."""
    return [*_existing_statements(name, manifest), *_parents(manifest), *_parents_statuses(manifest), HAS_EVENTS]


def expected_reads(name: str, manifest: Manifest, parents: Sequence[Version] | None) -> list[Statement]:
    """Return what `insert_version` reads."""
    return [
        *_existing_statements(name, manifest),
        *(_parents(manifest) if parents is None else ()),
        *_parents_statuses(manifest),
        _next_number(name),
        _id_of_new(name, manifest),
        audit.LAST,
    ]


def _id_of_new(name: str, manifest: Manifest) -> Statement:
    """Return what takes the id of a version that isn't there: registering one again leaves no gap."""
    return next_id(versions, unless=tuple(_existing_statements(name, manifest)))


def _parents(manifest: Manifest) -> Iterator[Statement]:
    return (reference_statement(parent.digest) for parent in manifest.parents)


def _parents_statuses(manifest: Manifest) -> Iterator[Statement]:
    return (status_statement(parent.digest) for parent in manifest.parents)


def _next_number(name: str) -> Statement:
    return "SELECT 1 + coalesce(max(number), 0) FROM versions WHERE name = ?", (name,)


def _compare_files(registered: Version, manifest: Manifest) -> None:
    held, given = registered.manifest.files, manifest.files
    odd = sorted(path for path in {*held, *given} if held.get(path) != given.get(path))
    if odd:
        raise ContentKeyTaken(
            f"{registered.label} has this content key, and these files are not the registered ones: "
            + ", ".join(odd[:3])
            + (f" and {len(odd) - 3} more" if len(odd) > 3 else ""),
            allowed="the very files that were registered under this content key",
            next_step=f"check the version out with `tunewright registry resolve {registered.label} --checkout`, or "
            "register the new files under a content key or a name of their own",
        )


def find_parents(query: Query, manifest: Manifest) -> list[Version]:
    """Return the parents in the manifest's order, if they can be used and an adapter's base is the one it names."""
    found = []
    for parent in manifest.parents:
        try:
            found.append(resolve_digest(query, parent.digest))
        except VersionNotFound as error:
            raise ParentNotFound(
                f"parent {parent.digest} (role {parent.role!r}) isn't registered",
                allowed="digests of registered versions",
                next_step="register the parent first; `tunewright registry ls` shows what is there",
            ) from error
        require_usable(query, found[-1], _AS_PARENT)
    if _is_bound(manifest):
        bases = [v for v, p in zip(found, manifest.parents, strict=True) if p.role == "base"]
        if not any(v.kind in WHOLE_KINDS and v.base_fingerprint == manifest.base_fingerprint for v in bases):
            named = ", ".join(f"{v.label} ({v.kind}, {str(v.base_fingerprint)[:12]})" for v in bases) or "none"
            raise BaseMismatch(
                f"the {manifest.kind} is bound to base {str(manifest.base_fingerprint)[:12]}, "
                f"its base parent is {named}",
                allowed="the version with whole weights and this fingerprint as parent with role 'base'",
                next_step="register the base that it was trained on, or train on the base that is registered",
            )
        _compare_rendering(manifest, [v for v in bases if v.base_fingerprint == manifest.base_fingerprint])
    _require_one_base(manifest, found)
    return found


def _is_bound(one: Manifest | Version) -> bool:
    """Tell whether weights say nothing without their base; a prompt may be a text, for any base, or learnt on one."""
    return one.kind in BOUND_KINDS or (one.kind == "prompt" and one.base_fingerprint is not None)


def _require_one_base(manifest: Manifest, parents: Sequence[Version]) -> None:
    """Refuse what is bound to different bases as parts of one version: such weights say nothing of each other."""
    composed = [v for v, p in zip(parents, manifest.parents, strict=True) if p.role not in NOT_COMPOSED]
    bound = [version for version in composed if _is_bound(version)]
    # whole weights that adapters are put into, whatever their role is called
    whole = [version for version in composed if version.kind in WHOLE_KINDS] if bound else []
    if len({version.base_fingerprint for version in (*whole, *bound)}) > 1:
        named = ", ".join(f"{v.label} ({v.kind}, {str(v.base_fingerprint)[:12]})" for v in (*whole, *bound))
        raise BaseMismatch(
            f"the {manifest.kind} is made of what belongs to different bases: {named}",
            allowed="adapters that were trained on one base, with that base, or none, as the parent with whole weights",
            next_step="train them on one base; a parent that was only learnt from, or is in the base already, has the "
            f"role {' or '.join(NOT_COMPOSED)}",
        )


def _compare_rendering(manifest: Manifest, bases: list[Version]) -> None:
    """Refuse a base parent whose tokenizer or template is not the one that the manifest names."""
    for base in bases:
        for what, field in (("tokenizer", "tokenizer_digest"), ("chat template", "template_digest")):
            bound = getattr(manifest, field)
            if bound is not None and bound != (held := getattr(base.manifest, field)):
                raise BaseMismatch(
                    f"the {manifest.kind} is bound to {what} {bound[:12]}, its base parent {base.label} has "
                    + ("none that it names" if held is None else held[:12]),
                    allowed=f"the version with this fingerprint and this {field} as parent with role 'base'",
                    next_step="register the base with the tokenizer and template that it was trained with",
                )


def check_stored(blobs: BlobStore, manifest: Manifest) -> None:
    """Hold what is stored against a manifest: every content there, intact, of the size that it names, and scanned.

    Raises:
        BlobsMissing: Contents aren't stored, or are damaged; `missing` names them all.
        ManifestInvalid: A content has another size than the manifest says.
        FileRefused: A content may not enter a version under its path.
    """
    missing, sizes = set(), {}
    for entry in manifest.files.values():
        if entry.sha256 not in sizes:
            try:
                sizes[entry.sha256] = blobs.read(entry.sha256)
            except BlobCorrupted:  # the caller has the bytes, and sends them again
                missing.add(entry.sha256)
                sizes[entry.sha256] = -1
    if missing:
        raise BlobsMissing(
            f"contents that the manifest names are not stored, or damaged: {len(missing)} of {len(sizes)}",
            missing=sorted(missing),
            next_step="send them, then register again",
        )
    for path, entry in manifest.files.items():
        if sizes[entry.sha256] != entry.size:
            raise ManifestInvalid(
                f"manifest: file {path!r} has {entry.size} bytes, its content has {sizes[entry.sha256]}",
                allowed="the content's own length",
            )
        with blobs.open(entry.sha256) as stream:
            scan(path, stream, entry.size, manifest.files)


def insert_version(
    writer: Writer, name: str, manifest: Manifest, parents: Sequence[Version] | None, actor: str
) -> Version:
    """Write a version's row with its parents and its audit row, or return the version that is there already.

    One that was retired is restored: its bytes are back, and whoever registers it wants it.

    Args:
        writer: Of the write transaction.
        name: The model's name.
        manifest: What the version is; its bytes are stored already.
        parents: What `find_parents` found before the lock was there, or None. Versions never change, and only what
            befell them is looked at again; none are needed where the version is there.
        actor: Who registers.

    Returns:
        The version.
    """
    query = writer.query
    existing = find_existing(query, name, manifest)
    if existing is not None:
        if query_status(query, existing).state == RETIRED:
            change_state(writer, existing, "restore", actor=actor, reason="registered again")
        return existing
    if parents is None:
        parents = find_parents(query, manifest)
    else:
        for parent in parents:
            require_usable(query, parent, _AS_PARENT)
    number = int(query(*_next_number(name))[0][0])
    at = audit.now()
    row = {
        "name": name,
        "number": number,
        "digest": manifest.digest,
        "kind": manifest.kind,
        "base_fingerprint": manifest.base_fingerprint,
        "manifest": manifest.canonical,
        "created_at": at,
    }
    writer.take(_id_of_new(name, manifest), next_id(versions))
    identity = writer.insert_numbered(versions, {"content_key": manifest.content_key, **row})
    version = Version(
        identity, name, number, manifest.digest, manifest.kind, manifest.base_fingerprint, manifest.canonical, at
    )
    for parent, entry in zip(parents, manifest.parents, strict=True):
        assert parent.id < version.id, "a parent is older than its child: cycles can't be written"
        writer.insert(
            version_parents,
            {
                "child_id": version.id,
                "parent_id": parent.id,
                "role": entry.role,
                "weight": entry.weight,
            },
        )
    payload = {"name": name, "version": number, "digest": version.digest, "kind": version.kind}
    text = audit.append(writer, at=at, actor=actor, action="register", subject=version.label, payload=payload)
    emit(writer, at, "version.registered", text)
    return version
