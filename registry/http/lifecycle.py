"""Routes of a version's life: deprecated, restored, retired; and whether everything is still as it was given."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from registry.http.access import READS, WRITES, Promoter
from registry.http.act_models import StatusModel, VerificationModel, VersionChangeModel
from registry.http.bodies import StateRequest, VerificationRequest
from registry.http.versions import Ref
from registry.store import Registry

__all__ = ["lifecycle_routes"]


def lifecycle_routes(registry: Registry) -> APIRouter:
    """Return the routes.

    Args:
        registry: What is asked.
    """
    router = APIRouter(tags=["lifecycle"], dependencies=[READS])

    @router.get("/status/{ref:path}", response_model=StatusModel)
    def status(ref: Ref) -> Any:
        """Say whether a version is active, deprecated or retired, by whom and why."""
        return registry.status(ref).to_dict()

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

    @router.post("/verifications", response_model=VerificationModel, dependencies=[WRITES])
    def verify(body: VerificationRequest) -> Any:
        """Read every byte of one version, or of all, and hold every row against the audit chain. Takes its time."""
        return registry.verify(body.ref).to_dict()

    return router
