"""What routes share: the caller's role, JSON that means one thing, pages and cursors, and what a caller has already."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Query
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from registry.canonical import without_repeats
from registry.errors import PolicyInvalid, ReferenceInvalid, RegistryBusy, RequestInvalid, RoleInsufficient
from registry.gate import Policy
from registry.http.cursors import cursor_of
from registry.http.problems import Refused
from registry.http.tokens import ROLES, Token, includes
from registry.names import check_text

__all__ = [
    "NOTHING_ELSE",
    "PROMOTES",
    "READS",
    "TAKES_LONG",
    "WRITES",
    "After",
    "Cursor",
    "Limit",
    "PolicyText",
    "Promoter",
    "Writer",
    "cursor_of",
    "matches",
    "page",
    "policy_of",
    "position_of",
    "router_of",
]

Row = TypeVar("Row")


def _allows(role: str) -> Callable[[Request], Token]:
    def require(request: Request) -> Token:
        token: Token = request.state.token
        if not includes(token.role, role):
            raise RoleInsufficient(
                f"token {token.name!r} has role {token.role!r}, and this takes {role!r}",
                allowed=f"a token with role {' or '.join(ROLES[ROLES.index(role) :])}",
                next_step=f"tunewright registry token add NAME --role {role}, on the server's machine",
            )
        return token

    return require


def _ask_nothing_else(request: Request) -> None:
    """Refuse a query parameter that the route doesn't declare, and one, or a header that it declares, more than once.

    What is ignored is no condition.
    """
    dependant = request.scope["route"].dependant
    known = [parameter.alias for parameter in dependant.query_params]
    unknown = sorted(set(request.query_params) - set(known))
    if unknown:
        named = ", ".join(repr(name[:40]) for name in unknown[:5])
        raise RequestInvalid(
            f"{request.method} {request.url.path} has no query parameter {named}",
            allowed=", ".join(known) or "none",
            next_step="GET /v1/openapi.json has the parameters of every path",
        )

    given = [name for name, _ in request.query_params.multi_items()]  # no route takes a list
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise RequestInvalid(
            f"{request.method} {request.url.path} has query parameter {twice[0]!r} {given.count(twice[0])} times",
            allowed="each once",
        )
    for header in dependant.header_params:
        if (times := len(request.headers.getlist(header.alias))) > 1:
            raise RequestInvalid(f"the header {header.alias!r} is there {times} times", allowed="once, with one value")


async def _leave_threads(request: Request) -> AsyncIterator[None]:
    """Refuse what reads all that there is while as many others do: hours long they would hold every thread."""
    state = request.app.state
    if state.long_acts >= state.most_long_acts:
        raise RegistryBusy(
            f"the server is at {state.long_acts} verifications and collections already",
            allowed=f"at most {state.most_long_acts} at once",
            next_step="ask again once one of them is done",
        )
    state.long_acts += 1
    try:
        yield
    finally:
        state.long_acts -= 1


NOTHING_ELSE = Depends(_ask_nothing_else)
# behind the role that the act takes: whoever may not do it is told so
TAKES_LONG = Depends(_leave_threads)
READS, WRITES, PROMOTES = (Depends(_allows(role)) for role in ROLES)
Writer = Annotated[Token, Depends(_allows("write"))]
Promoter = Annotated[Token, Depends(_allows("promote"))]

Limit = Annotated[int, Query(ge=1, le=1000, description="Most items on the page.")]
Cursor = Annotated[str | None, Query(max_length=1000, description="`next` of the page before.")]
After = Annotated[int, Query(ge=0, le=2**53, description="The last number that the caller has.")]
PolicyText = Annotated[
    str | None, Query(max_length=2000, description="A policy's JSON; without it, that of the newest report.")
]


class _PlainRequest(Request):
    """A request whose JSON means the same to every reader."""

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            body = await self.body()
            try:
                self._json = json.loads(body, object_pairs_hook=without_repeats)
            except json.JSONDecodeError:  # FastAPI tells where
                raise
            except (ValueError, RecursionError) as error:
                problem = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
                refusal = RequestInvalid(
                    f"the body can't be read: {problem}", allowed="JSON in UTF-8, each name once in its object"
                )
                raise Refused(422, refusal) from error
        return self._json


class _PlainRoute(APIRoute):
    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_plain(request: Request) -> Response:
            return await handle(_PlainRequest(request.scope, request.receive))

        return handle_plain


def router_of(tag: str) -> APIRouter:
    """Return a router whose routes take the role `read` at least, and bodies that name nothing twice."""
    return APIRouter(tags=[tag], dependencies=[READS], route_class=_PlainRoute)


def position_of(cursor: str | None, *start: Any) -> tuple[Any, ...]:
    """Return the position that a cursor stands for; without one, the start.

    Raises:
        RequestInvalid: Not a cursor of this list.
    """
    if cursor is None:
        return start
    try:
        position = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        alike = len(position) == len(start) and all(type(p) is type(s) for p, s in zip(position, start, strict=True))
        if not alike or not all(abs(p) < 2**53 for p in position if isinstance(p, int)):
            raise ValueError(position)
        for text in (p for p in position if isinstance(p, str)):
            check_text("position", text, 128)  # PostgreSQL compares no text with what it can't keep
    except (ValueError, TypeError, ReferenceInvalid) as error:
        raise RequestInvalid("the cursor is none of this list's", allowed="`next` of the page before") from error
    return tuple(position)


def page(
    rows: Sequence[Row], limit: int, item: Callable[[Row], dict[str, Any]], place: Callable[[Row], Any]
) -> dict[str, Any]:
    """Return a page's document.

    Args:
        rows: What was found, asked for with one more than the limit.
        limit: Most items on the page.
        item: Makes a row's document.
        place: Makes what asks for the page behind a row.
    """
    shown = rows[:limit]
    return {"items": [item(row) for row in shown], "next": place(shown[-1]) if len(rows) > limit else None}


def matches(request: Request, etag: str) -> bool:
    """Say whether the caller has this already, by its If-None-Match."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or etag in (one.strip().removeprefix("W/") for one in given.split(","))


def policy_of(text: str | None) -> Policy | None:
    """Return the policy that a query names, or None where it names none.

    Raises:
        PolicyInvalid: No JSON, or no policy.
    """
    if text is None:
        return None
    try:
        return Policy.from_dict(json.loads(text, object_pairs_hook=without_repeats))
    except (ValueError, RecursionError) as problem:
        raise PolicyInvalid(
            f"the policy can't be read: {problem}", allowed='an object, {"min_rows": 100} for instance'
        ) from problem
