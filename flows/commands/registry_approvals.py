"""`tunewright registry protect|unprotect|approve|withdraw|approvals`: moves that several people answer for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from flows.commands.option_types import WORDS
from flows.commands.output import emit, json_option
from flows.commands.registry_options import (
    actor_option,
    home_option,
    open_registry,
    open_to_read,
    policy_option,
    read_policy,
    reason_option,
)

__all__ = ["approvals_command", "approve_command", "protect_command", "unprotect_command", "withdraw_command"]

Command = Callable[..., Any]
alias_option = click.option("--alias", default="champion", show_default=True, help="The alias.")
why_option = click.option("--reason", type=WORDS, default=None, help="Why, for the audit trail.")
act_option = click.option(
    "--for",
    "act",
    type=click.Choice(["promote", "demote", "unprotect"]),
    default="promote",
    show_default=True,
    help="What is approved: that the alias points at REF (promoted or rolled back), that it is taken away from REF, or "
    "that its protection is weakened or lifted.",
)

weaker_option = click.option(
    "--required",
    type=click.IntRange(0, 100),
    default=0,
    show_default=True,
    help="With --for unprotect: how many people are left to approve; 0: the protection is lifted.",
)
weaker_own_option = click.option(
    "--self-approval",
    is_flag=True,
    help="With --for unprotect: that the approval of whoever registered the version counts.  [default: no]",
)


@click.command("protect")
@click.argument("name")
@alias_option
@click.option(
    "--required", type=click.IntRange(1, 100), default=2, show_default=True, help="How many people have to approve."
)
@click.option(
    "--self-approval", is_flag=True, help="Let the approval of whoever registered the version count.  [default: no]"
)
@reason_option
@actor_option
@home_option
@json_option
def protect_command(
    name: str,
    alias: str,
    required: int,
    self_approval: bool,
    reason: str,
    actor: str | None,
    home: Path,
    as_json: bool,
) -> None:
    """Let NAME's alias move only with approvals: promotions, roll-backs and demotions.

    Asking for more takes a reason alone, asking for less the approvals of that by as many people as now (`approve --for
    unprotect --required N`). Exit status 3 if they are missing.
    """
    from registry.audit import login_name

    with open_registry(home) as registry:
        found = registry.protect(
            name, alias, required=required, self_approval=self_approval, actor=actor or login_name(), reason=reason
        )
    emit(found.to_dict(), as_json, _render_protection)


@click.command("unprotect")
@click.argument("name")
@alias_option
@reason_option
@actor_option
@home_option
@json_option
def unprotect_command(name: str, alias: str, reason: str, actor: str | None, home: Path, as_json: bool) -> None:
    """Lift the protection of NAME's alias, with as many approvals of that as it asks for (`approve --for unprotect`).

    Exit status 3 if they are missing.
    """
    from registry.audit import login_name

    with open_registry(home) as registry:
        found = registry.unprotect(name, alias, actor=actor or login_name(), reason=reason)
    emit(found.to_dict(), as_json, _render_protection)


@click.command("approve")
@click.argument("ref")
@alias_option
@act_option
@weaker_option
@weaker_own_option
@policy_option
@why_option
@actor_option
@home_option
@json_option
def approve_command(
    ref: str,
    alias: str,
    act: str,
    required: int,
    self_approval: bool,
    policy_file: Path | None,
    reason: str | None,
    actor: str | None,
    home: Path,
    as_json: bool,
) -> None:
    """Approve that an alias moves to REF: to exactly these bytes, with their newest evaluation and this policy, once.

    Whoever registered REF can't, unless the protection allows it.
    """
    from registry.audit import login_name

    with open_registry(home) as registry:
        found = registry.approve(
            ref,
            alias,
            act=act,
            policy=read_policy(policy_file),
            required=required,
            self_approval=self_approval,
            actor=actor or login_name(),
            reason=reason,
        )
    emit(found.to_dict(), as_json, _render_approvals)


@click.command("withdraw")
@click.argument("ref")
@alias_option
@act_option
@why_option
@actor_option
@home_option
@json_option
def withdraw_command(
    ref: str, alias: str, act: str, reason: str | None, actor: str | None, home: Path, as_json: bool
) -> None:
    """Take one's own approval of REF back, for whichever evaluation and policy it was given."""
    from registry.audit import login_name

    with open_registry(home) as registry:
        found = registry.withdraw(ref, alias, act=act, actor=actor or login_name(), reason=reason)
    emit(found.to_dict(), as_json, _render_approvals)


@click.command("approvals")
@click.argument("ref", required=False)
@alias_option
@act_option
@weaker_option
@weaker_own_option
@policy_option
@home_option
@json_option
def approvals_command(
    ref: str | None,
    alias: str,
    act: str,
    required: int,
    self_approval: bool,
    policy_file: Path | None,
    home: Path,
    as_json: bool,
) -> None:
    """Say who has approved that an alias moves to REF and how many are missing; without REF, which are protected."""
    with open_to_read(home) as registry:
        if ref is None:
            emit({"protections": [p.to_dict() for p in registry.protections()]}, as_json, _render_protections)
            return
        found = registry.approvals(
            ref, alias, act=act, policy=read_policy(policy_file), required=required, self_approval=self_approval
        )
    emit(found.to_dict(), as_json, _render_approvals)


def _render_protections(document: dict[str, Any]) -> str:
    return "\n".join(_render_protection(one) for one in document["protections"]) or "no alias is protected"


def _render_protection(document: dict[str, Any]) -> str:
    target = f"{document['name']}@{document['alias']}"
    since = f"since {document['changed_at'][:19]}, by {document['actor']}: {document['reason']}"
    if not document["required"]:
        return f"{target} is not protected {since}"
    own = ", of whoever registered the version, too" if document["self_approval"] else ""
    return f"{target} moves with {document['required']} approvals{own}, {since}"


def _render_approvals(document: dict[str, Any]) -> str:
    target = f"{document['name']}@{document['alias']}"
    what = {
        "promote": f"{document['version']} as {target}",
        "demote": f"{target} without {document['version']}",
        "unprotect": f"a weaker protection of {target}, by {document['to_required'] or 'none'}",
    }[document["act"]]
    missing = f", {document['missing']} missing" if document["missing"] else ""
    lines = [f"{what}: {len(document['given'])} of {document['required']} approvals{missing}"]
    for one in document["approvals"]:
        said = "" if one["counts"] else f"  (counts not: {one['why_not']})"
        reason = f": {one['reason']}" if one["reason"] else ""
        lines.append(f"  {one['actor']}  {one['at'][:19]}{reason}{said}")
    if document["missing"] and document["registered_by"] and not document["self_approval"]:
        lines.append(f"  {document['registered_by']} registered it: that approval would not count")
    return "\n".join(lines)
