"""From the registry's error tree to RFC 9457 problem documents and back, so that a client raises what a store raises.

`type` is a URN with the class's name. Beside the standard members stand the project's own: allowed, next_step and
exit_status, and what a class carries besides (reasons and gate, current_revision, missing, offset).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException

from registry import errors
from registry.gate import Check, GateResult

__all__ = ["MEDIA_TYPE", "RETRY_SECONDS", "Refused", "document_of", "error_of", "gate_of", "headers_of", "status_of"]

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2
_URN = "urn:tunewright:error:"
# A class's own status, or that of the nearest class above it.
_STATUSES: dict[type[errors.RegistryError], int] = {
    errors.RegistryError: 500,
    errors.RegistryInputError: 422,
    errors.ReferenceInvalid: 400,
    errors.RegistryPathError: 507,  # the server's folder: nothing that was sent is wrong
    errors.SchemaUnsupported: 500,
    errors.DatabaseUnreachable: 503,
    errors.DatabaseRefused: 500,
    errors.TokenInvalid: 401,
    errors.RoleInsufficient: 403,
    errors.CallerRefused: 403,
    errors.MissingError: 404,
    errors.ClashError: 409,
    errors.RegistryBusy: 503,
}
_EXTRAS = ("current_revision", "reasons", "missing", "offset")


class Refused(HTTPException):
    """An error on its way to the client with another status than its class has.

    Of what is raised while a body is read, FastAPI lets through its own HTTP exceptions alone.

    Args:
        status: HTTP status.
        error: What is wrong.
        headers: Further headers.
    """

    def __init__(self, status: int, error: errors.RegistryError, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, str(error), dict(headers or {}))
        self.error = error


def status_of(error: errors.RegistryError) -> int:
    """Return the HTTP status of an error."""
    if error.exit_status == 3:  # a verdict said no, whichever
        return 422
    return next(_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES)


def headers_of(error: errors.RegistryError, status: int) -> dict[str, str]:
    """Return the headers that belong to an error: when to come again, and how to say who is asking."""
    if status == 401:
        return {"WWW-Authenticate": "Bearer"}
    again = isinstance(error, errors.RegistryBusy | errors.DatabaseUnreachable)
    return {"Retry-After": str(RETRY_SECONDS)} if again else {}


def document_of(error: errors.RegistryError, status: int | None = None) -> dict[str, Any]:
    """Return an error's problem document."""
    kind = type(error)
    document: dict[str, Any] = {
        "type": f"{_URN}{kind.__name__}",
        "title": (kind.__doc__ or "").split("\n")[0].rstrip(".").replace("`", ""),
        "status": status or status_of(error),
        "detail": error.problem,
        "allowed": error.allowed,
        "next_step": error.next_step,
        "exit_status": error.exit_status,
    }
    document |= {name: getattr(error, name) for name in _EXTRAS if hasattr(error, name)}
    if isinstance(error, errors.GateRefused):
        document["gate"] = None if error.gate is None else error.gate.to_dict()
    return document


def error_of(document: Mapping[str, Any], status: int) -> errors.RegistryError:
    """Return the error that a problem document tells of: of the same class, with all that it carries.

    Args:
        document: The parsed body.
        status: The answer's HTTP status, for bodies that no registry wrote.
    """
    name = str(document.get("type", "")).removeprefix(_URN)
    kind = getattr(errors, name, None) if name in errors.__all__ else None
    if kind is None:
        detail = document.get("detail") or document.get("title") or "no problem document"
        return errors.ServerUnavailable(
            f"the server answered with status {status}: {detail}", next_step="look whether the URL is a registry's"
        )
    more: dict[str, Any] = {key: document[key] for key in _EXTRAS if key in document}
    problem = str(document.get("detail", ""))
    if issubclass(kind, errors.GateRefused):
        reasons = tuple(more.get("reasons", ()))
        # its own text repeats the reasons, and so would the one made from it
        problem = problem.removesuffix("".join(f"\n  - {reason}" for reason in reasons))
        more = {"reasons": reasons, "gate": gate_of(document.get("gate"))}
    error: errors.RegistryError = kind(
        problem, allowed=document.get("allowed"), next_step=document.get("next_step"), **more
    )
    return error


def gate_of(document: Mapping[str, Any] | None) -> GateResult | None:
    """Return the verdict that a document tells of."""
    if document is None:
        return None
    checks = tuple(Check(**check) for check in document["checks"])
    return GateResult(document["passed"], tuple(document["reasons"]), checks)
