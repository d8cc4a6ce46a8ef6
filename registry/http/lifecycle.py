"""Routes of a version's life: deprecated, restored, retired, collected; and whether everything is as it was given."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from registry.entities import Version
from registry.http.access import (
    PROMOTES,
    TAKES_LONG,
    WRITES,
    Cursor,
    Limit,
    Promoter,
    cursor_of,
    page,
    position_of,
    router_of,
)
from registry.http.act_models import CollectionModel, StatusModel, StatusPage, VerificationModel, VersionChangeModel
from registry.http.bodies import CollectionRequest, StateRequest, VerificationRequest
from registry.http.versions import Name, Ref
from registry.store import Registry

__all__ = ["lifecycle_routes"]


def lifecycle_routes(registry: Registry) -> APIRouter:
    """Return the routes.

    Args:
        registry: What is asked.
    """
    router = router_of("lifecycle")

    @router.get("/status/{ref:path}", response_model=StatusModel)
    def status(ref: Ref) -> Any:
        """Say whether a version is active, deprecated or retired, by whom and why."""
        return registry.status(ref).to_dict()

    @router.get("/statuses", response_model=StatusPage)
    def list_statuses(name: Name = None, limit: Limit = 100, cursor: Cursor = None) -> Any:
        """List the states of versions, of one model or of all, by name and number."""
        after_name, after_number = position_of(cursor, "", 0)
        rows = registry.search(name=name, after=(after_name, after_number), limit=limit + 1)
        states = registry.statuses_of(rows)

        def document(row: Version) -> dict[str, Any]:
            return {"name": row.name, "version": row.version, "digest": row.digest, **states[row.digest].to_dict()}

        return page(rows, limit, document, lambda row: cursor_of(row.name, row.version))

    @router.post("/deprecations", response_model=VersionChangeModel)
    def deprecate(body: StateRequest, token: Promoter) -> Any:
        """Advise against a version: it works as before, with a warning, and no alias takes it from now on."""
        return registry.deprecate(body.ref, actor=token.name, reason=body.reason).to_dict()

    @router.post("/restorations", response_model=VersionChangeModel)
    def restore(body: StateRequest, token: Promoter) -> Any:
        """Make a version active again; of a retired one every file must still be there."""
        return registry.restore(body.ref, actor=token.name, reason=body.reason).to_dict()

    @router.post("/retirements", response_model=VersionChangeModel)
    def retire(body: StateRequest, token: Promoter) -> Any:
        """Take a version out of use for good; refused while an alias or another version needs it."""
        return registry.retire(body.ref, actor=token.name, reason=body.reason).to_dict()

    @router.post("/collections", response_model=CollectionModel, dependencies=[PROMOTES, TAKES_LONG])
    def collect(body: CollectionRequest, token: Promoter) -> Any:
        """Remove bytes that no version needs any more, or say what would be removed. Takes its time."""
        return registry.collect(actor=token.name, grace_seconds=body.grace_seconds, dry_run=body.dry_run).to_dict()

    @router.post("/verifications", response_model=VerificationModel, dependencies=[WRITES, TAKES_LONG])
    def verify(body: VerificationRequest) -> Any:
        """Read every byte of one version, or of all, and hold every row against the audit chain. Takes its time."""
        return registry.verify(body.ref).to_dict()

    return router
