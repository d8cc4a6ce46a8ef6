"""Routes of what happened: the audit, the outbox, runs."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from fastapi import APIRouter

from registry.entities import AuditEntry, OutboxEvent
from registry.http.access import After, Limit, Writer, page, router_of
from registry.http.bodies import RunRequest
from registry.http.models import AuditPage, OutboxPage, RunModel, RunPage
from registry.http.versions import Name
from registry.runs import Run
from registry.store import Registry

__all__ = ["journal_routes"]


def _audit_document(entry: AuditEntry) -> dict[str, Any]:
    return {field.name: getattr(entry, field.name) for field in fields(AuditEntry)}


def _event_document(event: OutboxEvent) -> dict[str, Any]:
    return {field.name: getattr(event, field.name) for field in fields(OutboxEvent)}


def _run_document(run: Run) -> dict[str, Any]:
    return {**run.to_dict(), "id": run.id, "base_fingerprint": run.base_fingerprint}


def journal_routes(registry: Registry) -> APIRouter:
    """Return the routes.

    Args:
        registry: What is asked.
    """
    router = router_of("journal")

    @router.get("/audit", response_model=AuditPage)
    def list_audit(after: After = 0, limit: Limit = 100) -> Any:
        """List the audit's rows, oldest first, with the hashes that chain them."""
        rows = registry.audit(after=after, limit=limit + 1)
        return page(rows, limit, _audit_document, lambda entry: entry.sequence)

    @router.get("/outbox", response_model=OutboxPage)
    def list_outbox(after: After = 0, limit: Limit = 100) -> Any:
        """List the events, oldest first; the reader keeps its own place."""
        rows = registry.outbox(after=after, limit=limit + 1)
        return page(rows, limit, _event_document, lambda event: event.id)

    @router.get("/runs", response_model=RunPage)
    def list_runs(
        name: Name = None,
        after: After = 0,
        limit: Limit = 100,
    ) -> Any:
        """List the trials of sweeps, oldest first."""
        rows = registry.runs(name, after=after, limit=limit + 1)
        return page(rows, limit, _run_document, lambda run: run.id)

    @router.post("/runs", response_model=RunModel, status_code=201)
    def record_run(body: RunRequest, token: Writer) -> Any:
        """Record a trial of a sweep, once."""
        return _run_document(registry.record_run(**body.model_dump(), actor=token.name))

    return router
