"""Routes of aliases: where they point, where they pointed, and the acts that move them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path
from starlette.requests import Request
from starlette.responses import Response

from registry.entities import AliasChange, AliasState
from registry.errors import AliasConflict, AliasNotFound, ReferenceInvalid, RequestInvalid
from registry.gate import Policy
from registry.http.access import Cursor, Limit, Promoter, cursor_of, matches, page, position_of, router_of
from registry.http.act_models import AliasChangeModel, AliasModel, AliasPage, HistoryModel
from registry.http.bodies import DemotionRequest, PromotionRequest, RollbackRequest
from registry.http.versions import Name
from registry.names import parse_reference
from registry.store import Registry

__all__ = ["alias_document", "alias_routes", "change_document"]

Target = Annotated[
    str,
    Path(
        description="name@alias",
        json_schema_extra={
            "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?@[a-z][a-z0-9_-]{0,63}$",
            "maxLength": 256,
        },
    ),
]
IfMatch = Annotated[
    str | None,
    Header(
        max_length=40,
        description='The alias\'s ETag: its revision, as in "3"; "0" where there is none; * where one is.',
    ),
]


def alias_document(state: AliasState) -> dict[str, Any]:
    """Return an alias as the API tells of it."""
    return {field.name: getattr(state, field.name) for field in fields(AliasState)}


def change_document(change: AliasChange) -> dict[str, Any]:
    """Return a step of an alias as the API tells of it."""
    gate = None if change.gate is None else change.gate.to_dict()
    asked = None if change.approvals is None else change.approvals.to_dict()
    shown = {field.name: getattr(change, field.name) for field in fields(AliasChange)}
    return {**shown, "gate": gate, "approvals": asked}


def alias_routes(registry: Registry) -> APIRouter:
    """Return the routes.

    Args:
        registry: What is asked.
    """
    router = router_of("aliases")

    @router.get("/aliases", response_model=AliasPage)
    def list_aliases(
        name: Name = None,
        limit: Limit = 100,
        cursor: Cursor = None,
    ) -> Any:
        """List where aliases point now, by model and alias."""
        after = position_of(cursor, "", "")
        # sorted here: a database may order text by another rule than the cursor's comparison
        states = sorted(registry.aliases(name), key=lambda state: (state.name, state.alias))
        rows = [state for state in states if (state.name, state.alias) > after]
        return page(rows, limit, alias_document, lambda state: cursor_of(state.name, state.alias))

    @router.get("/aliases/{target:path}", response_model=AliasModel, responses={304: {"description": "Unchanged."}})
    def show_alias(target: Target, request: Request, response: Response) -> Any:
        """Say where an alias points. ETag is its revision, which a promotion may name in If-Match."""
        state = _shown(registry, target)
        headers = {"ETag": f'"{state.revision}"', "Cache-Control": "no-cache"}
        if matches(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        response.headers.update(headers)
        return alias_document(state)

    @router.get("/history/{target:path}", response_model=HistoryModel)
    def history(target: Target) -> Any:
        """List an alias's steps, oldest first."""
        name, alias = _parts(target)
        steps = registry.history(name, alias)
        if not steps:
            _shown(registry, target)  # says what exists
        return {"steps": [change_document(step) for step in steps]}

    @router.post("/promotions", response_model=AliasChangeModel)
    def promote(body: PromotionRequest, token: Promoter, response: Response, if_match: IfMatch = None) -> Any:
        """Let an alias point at a version, if the gate passes and the alias is where the caller saw it."""
        change = registry.promote(
            body.ref,
            body.alias,
            policy=None if body.policy is None else Policy.from_dict(body.policy),
            actor=token.name,
            reason=body.reason,
            expected_revision=_expected(
                if_match, body.expected_revision, lambda: _held(registry, body.ref, body.alias)
            ),
            dry_run=body.dry_run,
        )
        return _answer(change, response)

    @router.post("/rollbacks", response_model=AliasChangeModel)
    def rollback(body: RollbackRequest, token: Promoter, response: Response, if_match: IfMatch = None) -> Any:
        """Move an alias back to a version that held it before; nothing is evaluated again."""
        change = registry.rollback(
            body.name,
            body.alias,
            to=body.to,
            actor=token.name,
            reason=body.reason,
            expected_revision=_expected(if_match, body.expected_revision),
            dry_run=body.dry_run,
        )
        return _answer(change, response)

    @router.post("/demotions", response_model=AliasChangeModel)
    def demote(body: DemotionRequest, token: Promoter, response: Response, if_match: IfMatch = None) -> Any:
        """Take an alias away; look-ups don't find it from now on, its history stays."""
        change = registry.demote(
            body.name,
            body.alias,
            actor=token.name,
            reason=body.reason,
            expected_revision=_expected(if_match, body.expected_revision),
            dry_run=body.dry_run,
        )
        return _answer(change, response)

    return router


def _answer(change: AliasChange, response: Response) -> dict[str, Any]:
    if not change.dry_run:
        response.headers["ETag"] = f'"{change.revision}"'
    return change_document(change)


def _parts(target: str) -> tuple[str, str]:
    reference = parse_reference(target)
    if reference.alias is None or reference.name is None:
        raise ReferenceInvalid(f"{target!r} names no alias", allowed="name@alias")
    return reference.name, reference.alias


def _find(registry: Registry, name: str, alias: str) -> AliasState | None:
    return next((state for state in registry.aliases(name) if state.alias == alias), None)


def _shown(registry: Registry, target: str) -> AliasState:
    name, alias = _parts(target)
    state = _find(registry, name, alias)
    if state is None:
        registry.resolve(target)  # raises with what exists, unless it was made just now
        raise AliasNotFound(f"{name!r} has no alias {alias!r}", allowed="an alias that is there", next_step="ask again")
    return state


def _held(registry: Registry, ref: str, alias: str) -> int:
    """Return the revision of an alias that has to be there; what moves it meanwhile is noticed by that."""
    name = registry.resolve(ref).name
    state = _find(registry, name, alias)
    if state is None:
        raise AliasConflict(
            f"{name}@{alias} points at nothing, and If-Match is *",
            current_revision=registry.alias_revision(name, alias),
            allowed="an alias that is there",
            next_step="leave If-Match out, or name the revision that the alias has now",
        )
    return state.revision


def _expected(if_match: str | None, in_body: int | None, held: Callable[[], int] | None = None) -> int | None:
    """Return the revision that the caller saw, by the header or by the body.

    Args:
        if_match: The header; a weak ETag is none, since it says only that something is alike.
        in_body: The body's.
        held: Says the revision of an alias that is there, or raises, for `*`; None where the act takes one anyway.
    """
    if if_match is None:
        return in_body
    if if_match.strip() == "*":
        present = None if held is None else held()
        return present if in_body is None else in_body
    found = re.fullmatch(r'\s*"?([0-9]{1,10})"?\s*', if_match)
    if found is None:
        raise RequestInvalid(f"If-Match is {if_match!r}", allowed='an alias\'s ETag, such as "3", or *')
    revision = int(found[1])
    if in_body is not None and in_body != revision:
        raise RequestInvalid(
            f"If-Match names revision {revision} and the body {in_body}", allowed="the same in both, or one of them"
        )
    return revision
