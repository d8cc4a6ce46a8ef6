"""What a version may claim when somebody wants to serve it: proven, by an alias or by its newest report, or not.

The same gate as in a promotion (`registry/gate.py`), without a champion: serving a version beside the champion takes
nothing away from it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from registry.entities import Version
from registry.errors import PolicyInvalid
from registry.lookup import Query, query_aliases
from registry.names import is_digest
from registry.promotion import judge
from registry.reports import newest_evaluation
from registry.status import RETIRED, query_status

__all__ = ["Standing", "keys_asked_for", "standing_of"]


@dataclass(frozen=True)
class Standing:
    """Whether a version is proven.

    Attributes:
        proven: An alias points at it, or its newest report satisfies the policy that it was recorded with, or nothing
            was trained into it: a base whose weights were not registered before as something made from one, and don't
            say themselves that they were. A retired version is not.
        basis: What that rests on: `alias champion`, `gate`, `base`, or "" where it is not proven.
        reasons: Why it is not proven; empty where it is.
        required_keys: Id of the key without whose signature it isn't served, proven or not, where a policy of it
            asks for one.
    """

    proven: bool
    basis: str
    reasons: tuple[str, ...]
    required_keys: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the standing as plain JSON."""
        found = {"proven": self.proven, "basis": self.basis, "reasons": list(self.reasons)}
        return {**found, "required_keys": list(self.required_keys)}


def standing_of(query: Query, version: Version) -> Standing:
    """Judge a version by its aliases and by its newest report.

    An alias that points at it counts first: it got there through the gate, or by a roll-back that somebody answers for.
    An alias that has moved on doesn't count, since a later report may have shown why.

    Raises:
        PolicyInvalid: The policy in the newest report can't be used, or names no key where it asks for a signature.
    """
    return replace(_proof(query, version), required_keys=keys_asked_for(query, version))


def keys_asked_for(query: Query, version: Version) -> tuple[str, ...]:
    """Return the key whose signature is a condition of serving a version, alone; nothing where none is asked for.

    The newest policy counts by which an alias took the version and which asks for a key. Where there is none, that of
    the newest report does: a newer report lifts what it asks for. So whoever may write reports takes nothing away
    from what was asked for at a promotion, and closes nothing for good.

    Raises:
        PolicyInvalid: What stands in a key's place is none.
    """
    rows = query(
        "SELECT gate FROM alias_events WHERE version_id = ? AND gate IS NOT NULL ORDER BY id DESC", (version.id,)
    )
    policies = [json.loads(row[0])["policy"] for row in rows]
    newest = newest_evaluation(query, version.digest)
    policies += [] if newest is None else [newest.report.get("policy")]
    asked = (policy.get("required_signature") for policy in policies if isinstance(policy, dict))
    key = next((found for found in asked if found is not None), None)
    if key is None:
        return ()
    if not is_digest(key):
        raise PolicyInvalid(
            f"the policy of {version.label} asks for the signature of {key!r}",
            allowed="the 64 hex digits of a key's id",
            next_step="record a report with a policy that can be used: the newest one counts",
        )
    return (key,)


def _proof(query: Query, version: Version) -> Standing:
    status = query_status(query, version)
    if status.state == RETIRED:
        return Standing(False, "", (str(status.warning(version.label)),))
    held = [state.alias for state in query_aliases(query, version.name) if state.digest == version.digest]
    if held:
        return Standing(True, f"alias {held[0]}", ())
    made = _made_before(query, version) if version.kind == "base" else ()
    if version.kind == "base" and not made:
        return Standing(True, "base", ())
    verdict = judge(query, version, None, None).verdict
    if verdict.passed:
        return Standing(True, "gate", ())
    return Standing(False, "", (*made, *verdict.reasons))


def _made_before(query: Query, base: Version) -> tuple[str, ...]:
    """Say what a base's weights were registered as before they came as a base, where that was made by training."""
    found = query(
        "SELECT name, number, kind FROM versions WHERE base_fingerprint = ? AND id < ? "
        "AND kind IN ('full', 'merged', 'quantized') ORDER BY id LIMIT 1",
        (base.base_fingerprint, base.id),
    )
    said = base.manifest.metadata.get("made_from")
    return (
        *(f"its weights are those of {name}:v{number}, of kind {kind}" for name, number, kind in found),
        *([f"its weights say that they were made from {said}"] if said is not None else []),
    )
