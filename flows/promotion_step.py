"""The step that promotes what passes the gate, and what others ask of the recipe's gate and alias."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from components.errors import ConflictError
from flows.job import Job
from flows.observer import Observer

if TYPE_CHECKING:
    from registry.entities import AliasState
    from registry.gate import Policy
    from registry.store import Registry

__all__ = ["alias_revision", "gate_policy", "gate_report", "held_alias", "promote"]


def alias_revision(job: Job) -> int:
    """Return the revision of the recipe's alias, 0 where it never was; the promotion swaps against it."""
    from registry.store import Registry

    if not (job.home / "registry").exists():
        return 0
    with Registry.open(job.home / "registry") as registry:
        return registry.alias_revision(job.recipe.name, job.recipe.release.alias)


def held_alias(registry: Registry, job: Job) -> AliasState | None:
    """Return where the recipe's alias points now, or None where it points at nothing."""
    states = registry.aliases(job.recipe.name)
    return next((state for state in states if state.alias == job.recipe.release.alias), None)


def promote(job: Job, registered: dict[str, Any], revision: int, observer: Observer) -> dict[str, Any]:
    """Promote inside the registry's transaction, or say why not.

    Args:
        job: The recipe on this machine.
        registered: The version.
        revision: The alias's revision when the run began: whoever moved it since wins.
        observer: Who watches.

    Returns:
        `gate` {passed, reasons, checks}; `promotion` {alias, previous, current, revision}, None when refused.

    Raises:
        ConflictError: Somebody rolled the alias back from this very version, or took it away from it.
        AliasConflict: Somebody moved the alias while the run was under way.
    """
    from registry.errors import GateRefused
    from registry.store import Registry

    name, alias, digest = job.recipe.name, job.recipe.release.alias, registered["digest"]
    with Registry.open(job.home / "registry") as registry:
        if registry.rolled_back_from(name, alias, digest):
            raise ConflictError(
                f"{alias} was rolled back or taken away from {registered['version']}: a run doesn't undo that",
                next_step=f"tunewright registry promote {registered['version']} --alias {alias}, if that is wanted",
            )
        policy = gate_policy(job)
        try:
            change = registry.promote(
                digest,
                alias,
                policy=policy,
                actor=f"flow {name}",
                reason="gate passed",
                expected_revision=revision,
            )
        except GateRefused as refusal:
            gate = refusal.gate or registry.check_gate(digest, policy, alias)
            for reason in gate.reasons:
                observer.say(f"  gate: {reason}")
            return {"gate": gate.to_dict(), "promotion": None}
        promotion = change.to_dict()
        gate = change.gate or registry.check_gate(digest, policy, alias)
        promotion.pop("gate")
        return {"gate": gate.to_dict(), "promotion": promotion}


def gate_policy(job: Job) -> Policy:
    """Return what the recipe asks of a version before an alias may point at it."""
    from registry.gate import Policy

    section = job.recipe.gate
    return Policy(
        min_task_delta=section.min_task_delta,
        task_interval_excludes_zero=section.task_interval_excludes_zero,
        max_suite_drop=section.max_suite_drop,
        min_rows=section.min_rows,
        min_suites=len(job.recipe.evaluation.suites),
        required_approvals=section.required_approvals,
        required_signature=section.required_signature,
    )


def gate_report(job: Job, compared: Mapping[str, Any], files: Mapping[str, str]) -> dict[str, Any]:
    """Return what is recorded of a measurement, for the gate: with the recipe's policy, and which files it was of."""
    return {**compared, "policy": gate_policy(job).to_dict(), "seed": job.recipe.seed, "files": dict(files)}
