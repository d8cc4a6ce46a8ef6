"""Routes of models and versions: look-ups, search, lineage, evaluations, and registering what was sent before."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query
from starlette.requests import Request
from starlette.responses import Response

from registry.entities import Evaluation, Version
from registry.http.access import (
    Cursor,
    Limit,
    PolicyText,
    Writer,
    cursor_of,
    matches,
    page,
    policy_of,
    position_of,
    router_of,
)
from registry.http.bodies import EvaluationRequest, RegisterRequest
from registry.http.models import (
    EvaluationModel,
    EvaluationPage,
    FilesModel,
    GateModel,
    LineageModel,
    ModelPage,
    StandingModel,
    VersionModel,
    VersionPage,
)
from registry.manifest import KINDS
from registry.search import METRIC_LENGTH
from registry.store import Registry

__all__ = ["Name", "Ref", "evaluation_document", "version_document", "version_routes"]

REF_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?(:v[1-9][0-9]{0,8}|@[a-z][a-z0-9_-]{0,63})?$"
# What names something is bounded in the schema alone: what doesn't follow it is refused by the registry's own grammar,
# with its words and its class, so that a client raises what a registry does.
Ref = Annotated[
    str,
    Path(
        description="name (its newest version), name:vN, name@alias, or at least 12 hex digits of a version digest.",
        json_schema_extra={"pattern": REF_PATTERN, "maxLength": 256},
    ),
]
Digest = Annotated[str, Path(pattern=r"^[0-9a-f]{64}$", description="A whole sha256.")]
Name = Annotated[str | None, Query(description="Of the model.", json_schema_extra={"maxLength": 128})]


def version_document(version: Version) -> dict[str, Any]:
    """Return a version as the API tells of it."""
    return {**version.to_dict(), "id": version.id, "manifest": version.manifest.to_dict()}


def evaluation_document(evaluation: Evaluation) -> dict[str, Any]:
    """Return an evaluation as the API tells of it."""
    return {**evaluation.to_dict(), "id": evaluation.id, "version_digest": evaluation.version_digest}


def version_routes(registry: Registry) -> APIRouter:
    """Return the routes.

    Args:
        registry: What is asked.
    """
    router = router_of("versions")

    @router.get("/models", response_model=ModelPage)
    def list_models(limit: Limit = 100, cursor: Cursor = None) -> Any:
        """List the models by name."""
        (after,) = position_of(cursor, "")
        rows = registry.models(after=after, limit=limit + 1)
        return page(rows, limit, lambda row: row.to_dict(), lambda row: cursor_of(row.name))

    @router.get("/versions", response_model=VersionPage)
    def list_versions(
        name: Name = None,
        kind: Annotated[str | None, Query(json_schema_extra={"enum": list(KINDS)})] = None,
        base: Annotated[
            str | None,
            Query(
                description="The base's fingerprint, or its start.",
                json_schema_extra={"pattern": r"^[0-9a-f]{12,64}$"},
            ),
        ] = None,
        data: Annotated[
            str | None,
            Query(
                description="sha256 of a data file; scans manifests.", json_schema_extra={"pattern": r"^[0-9a-f]{64}$"}
            ),
        ] = None,
        metric: Annotated[
            str | None,
            Query(
                description="Metric or suite of the newest report; scans reports.",
                json_schema_extra={"maxLength": METRIC_LENGTH},
            ),
        ] = None,
        minimum: Annotated[float | None, Query(alias="min", description="Least score, with `metric`.")] = None,
        maximum: Annotated[float | None, Query(alias="max", description="Largest score, with `metric`.")] = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Any:
        """List the versions that satisfy every condition, by name and number."""
        after_name, after_number = position_of(cursor, "", 0)
        rows = registry.search(
            name=name, kind=kind, base=base, data=data, metric=metric, minimum=minimum, maximum=maximum,
            after=(after_name, after_number), limit=limit + 1,
        )  # fmt: skip
        return page(rows, limit, version_document, lambda row: cursor_of(row.name, row.version))

    @router.post("/versions", response_model=VersionModel, status_code=201)
    def register(body: RegisterRequest, token: Writer) -> Any:
        """Register a version whose contents were sent before; those that are missing are named in the problem."""
        return version_document(registry.register_stored(body.name, body.manifest.manifest(), actor=token.name))

    @router.get("/versions/{ref:path}", response_model=VersionModel, responses={304: {"description": "Unchanged."}})
    def resolve(ref: Ref, request: Request, response: Response) -> Any:
        """Say which version a REF names. ETag is the version's digest."""
        version = registry.resolve(ref)
        headers = {"ETag": f'"{version.digest}"', "Cache-Control": "no-cache"}
        if matches(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        response.headers.update(headers)
        return version_document(version)

    @router.get("/files/{ref:path}", response_model=FilesModel)
    def list_files(ref: Ref) -> Any:
        """List a version's files and where their contents are."""
        version = registry.resolve(ref)
        files = [
            {"path": path, "size": entry.size, "sha256": entry.sha256, "url": f"/v1/blobs/{quote(entry.sha256)}"}
            for path, entry in sorted(version.manifest.files.items())
        ]
        return {"version": version.label, "digest": version.digest, "files": files}

    @router.get("/lineage/{ref:path}", response_model=LineageModel)
    def lineage(
        ref: Ref,
        direction: Annotated[str, Query(json_schema_extra={"enum": ["both", "up", "down"]})] = "both",
    ) -> Any:
        """Show what a version was made from (up), and what was made from it (down)."""
        return registry.lineage(ref, direction).to_dict()

    @router.get("/data/{digest}", response_model=LineageModel)
    def trained_on(
        digest: Annotated[str, Path(description="A whole sha256.", json_schema_extra={"pattern": r"^[0-9a-f]{64}$"})],
    ) -> Any:
        """Show what was trained on a data file, what was made of that, and their aliases. Scans manifests."""
        return registry.trained_on(digest).to_dict()

    @router.get("/evaluations/{ref:path}", response_model=EvaluationPage)
    def list_evaluations(ref: Ref, limit: Limit = 20, cursor: Cursor = None) -> Any:
        """List a version's reports, newest first."""
        (before,) = position_of(cursor, 2**53 - 1)
        rows = registry.evaluations_before(ref, before, limit + 1)
        return page(rows, limit, evaluation_document, lambda row: cursor_of(row.id))

    @router.post("/evaluations/{digest}", response_model=EvaluationModel, status_code=201)
    def record_evaluation(digest: Digest, body: EvaluationRequest, token: Writer) -> Any:
        """Record a report for exactly the version with this whole digest; a policy in it must be one."""
        found = registry.record_evaluation(digest, body.report, actor=token.name, over_newest=body.over_newest)
        return evaluation_document(found)

    @router.get("/gate/{ref:path}", response_model=GateModel)
    def check_gate(
        ref: Ref,
        alias: Annotated[str | None, Query(json_schema_extra={"maxLength": 64})] = None,
        policy: PolicyText = None,
        approvals: bool = True,
    ) -> Any:
        """Say what the gate would say now, and against what an alias holds; without `approvals`, what is measured."""
        return registry.check_gate(ref, policy_of(policy), alias, approvals=approvals).to_dict()

    @router.get("/standing/{ref:path}", response_model=StandingModel)
    def standing(ref: Ref) -> Any:
        """Say whether a version is proven, and by what."""
        return registry.standing(ref).to_dict()

    return router
