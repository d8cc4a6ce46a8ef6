"""The part of the registry's door for what comes after a registration: deprecate, restore, retire, collect."""

from __future__ import annotations

from contextlib import suppress

from registry import lifecycle
from registry.audit import login_name
from registry.collection import GRACE_SECONDS, Collection, collect
from registry.database import writing
from registry.entities import Version, VersionChange
from registry.errors import VersionRetired
from registry.layout import CHECKOUTS, UPLOADS
from registry.lookup import resolve_reference
from registry.names import check_actor, check_text
from registry.opened import Opened
from registry.parts import sweep
from registry.status import RETIRED, query_status

__all__ = ["Upkeep"]


class Upkeep(Opened):
    """What `registry.store.Registry` has for the life of a version."""

    def deprecate(self, ref: str, *, actor: str, reason: str) -> VersionChange:
        """Advise against a version: it works as before, with a warning, and no alias takes it from now on.

        An alias that points at it stays there, and a roll-back to it is allowed.

        Args:
            ref: The version.
            actor: Who does it.
            reason: Why; required, and told with every warning.

        Returns:
            The step; `changed` is False if it is deprecated already.

        Raises:
            ReasonMissing: No reason.
            VersionRetired: It is retired.
            ReferenceInvalid, VersionNotFound, AliasNotFound, AmbiguousReference: As `resolve`.
        """
        return self._change_state(ref, "deprecate", actor, reason)

    def restore(self, ref: str, *, actor: str, reason: str) -> VersionChange:
        """Make a deprecated or retired version active again; of a retired one every file must still be there.

        Args:
            ref: The version.
            actor: Who does it.
            reason: Why; required.

        Raises:
            VersionRetired: Its bytes were collected (registering the same files again brings it back), or a parent
                of it is retired.
            ReasonMissing, ReferenceInvalid, VersionNotFound, AliasNotFound, AmbiguousReference: As `deprecate`.
        """
        return self._change_state(ref, "restore", actor, reason)

    def retire(self, ref: str, *, actor: str, reason: str) -> VersionChange:
        """Take a version out of use for good: what people call deleting it.

        Its row, manifest, reports and history stay. Its bytes may be collected after the grace period.

        Args:
            ref: The version.
            actor: Who does it.
            reason: Why; required.

        Raises:
            VersionHeld: An alias points at it or ever did, or a version that isn't retired was made from it.
            ReasonMissing, ReferenceInvalid, VersionNotFound, AliasNotFound, AmbiguousReference: As `deprecate`.
        """
        return self._change_state(ref, "retire", actor, reason)

    def _change_state(self, ref: str, action: str, actor: str, reason: str) -> VersionChange:
        lifecycle.check_reason(f"to {action} {ref}", reason)
        check_actor(actor)
        check_text("reason", reason)
        with writing(self._engine) as writer:
            query = writer.query
            version = resolve_reference(query, ref)
            if action == "restore" and query_status(query, version).state == RETIRED:
                self._check_restorable(version)
            return lifecycle.change_state(writer, version, action, actor=actor, reason=reason)

    def _check_restorable(self, version: Version) -> None:
        # under the write lock, which a collection holds while it removes
        absence = self._absence(version)
        if absence is not None:
            raise VersionRetired(
                f"{version.label} is retired, and its files are not all there any more: {absence.problem}",
                allowed="a retired version whose files were not collected yet",
                next_step="register the same files again: that brings it back under its own number",
            ) from absence

    def collect(
        self, *, actor: str | None = None, grace_seconds: float = GRACE_SECONDS, dry_run: bool = False
    ) -> Collection:
        """Remove blobs that no version needs any more, and checkouts of retired versions.

        Never a blob of a version that isn't retired, or that an alias's history reaches, or that a lease names. Safe
        beside anything else that is done with the registry, and after a crash at any point.

        Args:
            actor: Who collects, for the audit trail; the login name by default.
            grace_seconds: How long ago it must have been written, and its version retired; a week by default.
            dry_run: Only say what would be removed.

        Returns:
            What was freed.

        Raises:
            AuditBroken: A manifest was changed from outside, so that what it needs can't be told.
            RegistryPathError: A lease can't be read.
            WrongBlobs: Where its contents are to be in S3 is another registry's; nothing is removed.
            RegistryBusy: The write lock was held for too long.
        """
        check_actor(actor)
        done = collect(
            self._engine,
            self._lookup.query,
            self._lookup.snapshot,
            self.blobs,
            self.leases,
            self.folder / CHECKOUTS,
            grace_seconds=grace_seconds,
            actor=actor or login_name(),
            dry_run=dry_run,
        )
        if not dry_run:
            with suppress(OSError):  # what another user's server has left is that server's to sweep
                sweep(self.folder / UPLOADS)
        return done
