"""Routes of protected aliases: which are, who approves, and who has. Whoever asks is the token's name, nobody else."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from registry.gate import MOST_APPROVALS, Policy
from registry.http.access import Cursor, Limit, PolicyText, Promoter, cursor_of, page, policy_of, position_of, router_of
from registry.http.act_models import ApprovalsModel, ProtectionModel, ProtectionPage
from registry.http.bodies import ApprovalRequest, ProtectionRequest, UnprotectionRequest, WithdrawalRequest
from registry.http.versions import Name, Ref
from registry.matters import ACTS
from registry.store import Registry

__all__ = ["approval_routes"]


def approval_routes(registry: Registry) -> APIRouter:
    """Return the routes.

    Args:
        registry: What is asked.
    """
    router = router_of("approvals")

    @router.get("/protections", response_model=ProtectionPage)
    def list_protections(name: Name = None, limit: Limit = 100, cursor: Cursor = None) -> Any:
        """List the protected aliases, by model and alias."""
        after = position_of(cursor, "", "")
        rows = [one for one in registry.protections(name) if (one.name, one.alias) > after]
        return page(rows, limit, lambda one: one.to_dict(), lambda one: cursor_of(one.name, one.alias))

    @router.post("/protections", response_model=ProtectionModel)
    def protect(body: ProtectionRequest, token: Promoter) -> Any:
        """Let an alias move only with approvals. Asking for less takes as many approvals of that as it has now."""
        found = registry.protect(
            body.name,
            body.alias,
            required=body.required,
            self_approval=body.self_approval,
            actor=token.name,
            reason=body.reason,
        )
        return found.to_dict()

    @router.post("/unprotections", response_model=ProtectionModel)
    def unprotect(body: UnprotectionRequest, token: Promoter) -> Any:
        """Lift an alias's protection, with as many approvals of that as it asks for."""
        return registry.unprotect(body.name, body.alias, actor=token.name, reason=body.reason).to_dict()

    @router.get("/approvals/{ref:path}", response_model=ApprovalsModel)
    def show_approvals(
        ref: Ref,
        alias: Annotated[str, Query(json_schema_extra={"maxLength": 64})] = "champion",
        act: Annotated[str, Query(json_schema_extra={"enum": list(ACTS)})] = "promote",
        policy: PolicyText = None,
        required: Annotated[int, Query(ge=0, le=MOST_APPROVALS)] = 0,
        self_approval: bool = False,
    ) -> Any:
        """Say what a move of an alias needs and who has approved it.

        `policy` is the JSON of the one that a promotion will name; without it, that of the version's newest report.
        `required` and `self_approval` are what an unprotection weakens the protection to.
        """
        found = registry.approvals(
            ref, alias, act=act, policy=policy_of(policy), required=required, self_approval=self_approval
        )
        return found.to_dict()

    @router.post("/approvals", response_model=ApprovalsModel)
    def approve(body: ApprovalRequest, token: Promoter) -> Any:
        """Approve that an alias moves, in the token's name: to these bytes, with this report and this policy, once."""
        found = registry.approve(
            body.ref,
            body.alias,
            act=body.act,
            policy=None if body.policy is None else Policy.from_dict(body.policy),
            required=body.required,
            self_approval=body.self_approval,
            actor=token.name,
            reason=body.reason,
        )
        return found.to_dict()

    @router.post("/withdrawals", response_model=ApprovalsModel)
    def withdraw(body: WithdrawalRequest, token: Promoter) -> Any:
        """Take the token's own approval back."""
        return registry.withdraw(body.ref, body.alias, act=body.act, actor=token.name, reason=body.reason).to_dict()

    return router
