"""What a version may claim when somebody wants to serve it: proven, by an alias or by its newest report, or not.

The same gate as in a promotion (`registry/gate.py`), without a champion: serving a version beside the champion takes
nothing away from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from registry.entities import Version
from registry.lookup import Query, query_aliases
from registry.promotion import judge
from registry.status import RETIRED, query_status

__all__ = ["Standing", "standing_of"]


@dataclass(frozen=True)
class Standing:
    """Whether a version is proven.

    Attributes:
        proven: An alias points at it, or its newest report satisfies the policy that it was recorded with, or nothing
            was trained into it: a base whose weights were not registered before as something made from one, and don't
            say themselves that they were. A retired version is not.
        basis: What that rests on: `alias champion`, `gate`, `base`, or "" where it is not proven.
        reasons: Why it is not proven; empty where it is.
    """

    proven: bool
    basis: str
    reasons: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the standing as plain JSON."""
        return {"proven": self.proven, "basis": self.basis, "reasons": list(self.reasons)}


def standing_of(query: Query, version: Version) -> Standing:
    """Judge a version by its aliases and by its newest report.

    An alias that points at it counts first: it got there through the gate, or by a roll-back that somebody answers for.
    An alias that has moved on doesn't count, since a later report may have shown why.

    Raises:
        PolicyInvalid: The policy in the newest report can't be used.
    """
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
