"""Routes of signatures: which a version has, and one more. A signature proves itself, to whoever trusts its key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from registry.http.access import WRITES, router_of
from registry.http.act_models import KeptSignatureModel, SignaturesModel
from registry.http.bodies import SignatureRequest
from registry.http.versions import Digest, Ref
from registry.signatures import accept_signature, envelopes_of
from registry.store import Registry

__all__ = ["signature_routes"]


def signature_routes(registry: Registry) -> APIRouter:
    """Return the routes.

    Args:
        registry: What is asked.
    """
    router = router_of("signatures")

    @router.get("/signatures/{ref:path}", response_model=SignaturesModel)
    def list_signatures(ref: Ref) -> Any:
        """List a version's DSSE envelopes by key. They are for the caller to check, with a key that it trusts."""
        version = registry.resolve(ref)
        found = [one for one in envelopes_of(registry.folder, version.digest) if isinstance(one, dict)]
        return {"version": version.label, "digest": version.digest, "envelopes": found}

    @router.post("/signatures/{digest}", response_model=KeptSignatureModel, dependencies=[WRITES])
    def add_signature(digest: Digest, body: SignatureRequest) -> Any:
        """Keep an envelope that was made elsewhere, if the key that comes with it signed exactly this version."""
        version = registry.resolve(digest)
        name, new = accept_signature(registry, version, body.envelope, body.public_key)
        return {"version": version.label, "digest": version.digest, "key_id": name, "new": new}

    return router
