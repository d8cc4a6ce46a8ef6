"""The part of the client for what is done with versions and aliases: the registry's own methods, over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from registry.approvals import Approvals
from registry.canonical import canonical_json
from registry.collection import GRACE_SECONDS, Collection
from registry.entities import AliasChange, Version, VersionChange
from registry.gate import Policy
from registry.http.connection import Connection, quoted
from registry.http.wire import (
    approvals_of,
    change_of,
    collection_of,
    protection_of,
    status_of,
    version_change_of,
)
from registry.protection import Protection
from registry.status import RETIRED, Status, retired

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

__all__ = ["RemoteActs"]

# Of each blob that nothing needs its age is asked, and each is removed by itself.
COLLECT_SECONDS = 6 * 3600.0


class RemoteActs(Connection):
    """What `registry.http.client.RegistryClient` has for the life of versions and aliases.

    `actor` is there so that calls fit both this and `Registry`. It is not sent: who acts is whose token it is.
    """

    def promote(
        self,
        ref: str,
        alias: str,
        *,
        policy: Policy | None = None,
        actor: str | None = None,
        reason: str | None = None,
        expected_revision: int | None = None,
        dry_run: bool = False,
    ) -> AliasChange:
        """Let an alias point at a version, as `Registry.promote`."""
        body = {
            "ref": ref,
            "alias": alias,
            "policy": None if policy is None else policy.to_dict(),
            "reason": reason,
            "expected_revision": expected_revision,
            "dry_run": dry_run,
        }
        return change_of(self._post("/v1/promotions", body))

    def rollback(
        self,
        name: str,
        alias: str,
        *,
        to: str | int | None = None,
        reason: str,
        actor: str | None = None,
        expected_revision: int | None = None,
        dry_run: bool = False,
    ) -> AliasChange:
        """Move an alias back, as `Registry.rollback`."""
        body = {
            "name": name,
            "alias": alias,
            "to": f"v{to}" if isinstance(to, int) else to,
            "reason": reason,
            "expected_revision": expected_revision,
        }
        return change_of(self._post("/v1/rollbacks", {**body, **_tried(dry_run)}))

    def demote(
        self,
        name: str,
        alias: str,
        *,
        reason: str,
        actor: str | None = None,
        expected_revision: int | None = None,
        dry_run: bool = False,
    ) -> AliasChange:
        """Take an alias away, as `Registry.demote`."""
        body = {"name": name, "alias": alias, "reason": reason, "expected_revision": expected_revision}
        return change_of(self._post("/v1/demotions", {**body, **_tried(dry_run)}))

    def deprecate(self, ref: str, *, reason: str, actor: str | None = None) -> VersionChange:
        """Advise against a version, as `Registry.deprecate`."""
        return version_change_of(self._post("/v1/deprecations", {"ref": ref, "reason": reason}))

    def restore(self, ref: str, *, reason: str, actor: str | None = None) -> VersionChange:
        """Make a version active again, as `Registry.restore`."""
        return version_change_of(self._post("/v1/restorations", {"ref": ref, "reason": reason}))

    def retire(self, ref: str, *, reason: str, actor: str | None = None) -> VersionChange:
        """Take a version out of use for good, as `Registry.retire`."""
        return version_change_of(self._post("/v1/retirements", {"ref": ref, "reason": reason}))

    def status(self, ref: str) -> Status:
        """Return a version's state, with who made it so and why."""
        return status_of(self._get(f"/v1/status/{quoted(ref)}"))

    def statuses(self, name: str | None = None) -> dict[str, Status]:
        """Return the status of every version of one model, or of all, by its digest."""
        told = ("state", "actor", "reason", "changed_at")
        items = self._pages("/v1/statuses", name=name)
        return {item["digest"]: status_of({key: item[key] for key in told}) for item in items}

    def statuses_of(self, versions: Sequence[Version]) -> dict[str, Status]:
        """Return the status of each of these versions, by its digest."""
        found: dict[str, Status] = {}
        for name in dict.fromkeys(version.name for version in versions):
            found |= self.statuses(name)
        return {version.digest: found[version.digest] for version in versions}

    def require_usable(self, version: Version, act: str) -> Status:
        """Return a version's status, if it may be used; `act` says what for: `exported`.

        Raises:
            VersionRetired: It is retired.
        """
        status = self.status(version.digest)
        if status.state == RETIRED:
            raise retired(status, version, act, "versions that are active or deprecated")
        return status

    def collect(
        self, *, actor: str | None = None, grace_seconds: float = GRACE_SECONDS, dry_run: bool = False
    ) -> Collection:
        """Let the server remove bytes that no version needs any more, as `Registry.collect`; `actor` is not used."""
        body = {"grace_seconds": grace_seconds, "dry_run": dry_run}
        return collection_of(self._post("/v1/collections", body, timeout_seconds=COLLECT_SECONDS))

    def signatures(self, ref: str) -> list[dict[str, Any]]:
        """Return a version's DSSE envelopes, as they are kept; `registry.envelope.signed_manifest` checks one."""
        found: list[dict[str, Any]] = self._get(f"/v1/signatures/{quoted(ref)}")["envelopes"]
        return found

    def sign(self, version: Version | str, key: Ed25519PrivateKey) -> tuple[str, bool]:
        """Sign a version here and let the server keep the envelope; the private key goes nowhere.

        What is signed is the manifest, which has the version's digest. The contents are whoever's who checked them out.

        Args:
            version: The version, or a REF of it.
            key: The private key.

        Returns:
            The key's id, and whether the signature is new.

        Raises:
            SignatureRefused: The manifest is not that of the digest.
            RecordDamaged: The server answers with another version than the REF names.
        """
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        from registry.envelope import check_signs, sign_manifest

        if isinstance(version, str):
            version = self.resolve(version)
        check_signs(version.manifest_json, version.digest)
        pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
        body = {"envelope": sign_manifest(version.manifest_json, key), "public_key": pem}
        kept = self._post(f"/v1/signatures/{version.digest}", body)
        return kept["key_id"], kept["new"]

    def verify_signature(self, ref: str, key: Ed25519PublicKey) -> Version:
        """Return a version that a key has signed, checked here: its manifest, and of an adapter the base's.

        Raises:
            SignatureRefused: No signature, none of this key, or one of another version.
            RecordDamaged: The server answers with another version than the REF names, or another base than was signed.
        """
        from registry.envelope import check_signs, signed_manifest
        from registry.errors import SignatureRefused

        version = self.resolve(ref)
        problem = None
        for envelope in self.signatures(version.digest):
            try:
                check_signs(signed_manifest(envelope, key), version.digest)
            except SignatureRefused as error:
                problem = error
                continue
            for parent in version.manifest.parents:
                if parent.role == "base":
                    self.resolve(parent.digest)  # whose manifest is held against the digest that was signed
            return version
        raise problem or SignatureRefused(
            f"{version.label} is not signed", allowed="a version that the given key has signed"
        )

    def protect(
        self,
        name: str,
        alias: str,
        *,
        required: int = 2,
        self_approval: bool = False,
        reason: str,
        actor: str | None = None,
    ) -> Protection:
        """Let an alias move only with approvals, as `Registry.protect`."""
        body = {"name": name, "alias": alias, "required": required, "self_approval": self_approval, "reason": reason}
        return protection_of(self._post("/v1/protections", body))

    def unprotect(self, name: str, alias: str, *, reason: str, actor: str | None = None) -> Protection:
        """Lift an alias's protection, as `Registry.unprotect`."""
        body = {"name": name, "alias": alias, "reason": reason}
        return protection_of(self._post("/v1/unprotections", body))

    def protections(self, name: str | None = None) -> list[Protection]:
        """Return the protected aliases, of one model or of all."""
        return [protection_of(item) for item in self._pages("/v1/protections", name=name)]

    def approve(
        self,
        ref: str,
        alias: str,
        *,
        act: str = "promote",
        policy: Policy | None = None,
        required: int = 0,
        self_approval: bool = False,
        reason: str | None = None,
        actor: str | None = None,
    ) -> Approvals:
        """Approve that an alias moves, as `Registry.approve`, in the token's name."""
        given = None if policy is None else policy.to_dict()
        body = {
            "ref": ref,
            "alias": alias,
            "act": act,
            "policy": given,
            "required": required,
            "self_approval": self_approval,
            "reason": reason,
        }
        return approvals_of(self._post("/v1/approvals", body))

    def withdraw(
        self, ref: str, alias: str, *, act: str = "promote", reason: str | None = None, actor: str | None = None
    ) -> Approvals:
        """Take the token's own approval back, as `Registry.withdraw`."""
        body = {"ref": ref, "alias": alias, "act": act, "reason": reason}
        return approvals_of(self._post("/v1/withdrawals", body))

    def approvals(
        self,
        ref: str,
        alias: str,
        *,
        act: str = "promote",
        policy: Policy | None = None,
        required: int = 0,
        self_approval: bool = False,
    ) -> Approvals:
        """Say what a move needs and who has approved it, as `Registry.approvals`."""
        asked: dict[str, Any] = {"alias": alias, "act": act, "required": required}
        if policy is not None:
            asked["policy"] = canonical_json(policy.to_dict())
        if self_approval:
            asked["self_approval"] = "true"
        return approvals_of(self._get(f"/v1/approvals/{quoted(ref)}", **asked))


def _tried(dry_run: bool) -> dict[str, bool]:
    # a server of an earlier release refuses a field that it doesn't know: nothing that should be tried is done there
    return {"dry_run": True} if dry_run else {}
