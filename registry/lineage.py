"""The lineage graph round a version: everything it was made from, and everything made from it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from registry.entities import Version
from registry.lookup import Query, query_aliases

__all__ = ["Edge", "Lineage", "Node", "trace"]

# UNION drops repeats, so that a shared ancestor is walked once.
_WALK = """WITH RECURSIVE reached(id) AS (
    SELECT ? UNION SELECT p.{next} FROM version_parents p JOIN reached r ON p.{here} = r.id)
    SELECT id FROM reached"""


@dataclass(frozen=True)
class Node:
    """A version, or a data file that one was trained on; `decision_override` says why it was trained all the same."""

    id: str
    type: str
    label: str
    kind: str | None = None
    base: str | None = None
    direction: str = "self"
    aliases: tuple[str, ...] = ()
    decision_override: str | None = None


@dataclass(frozen=True)
class Edge:
    """`source` went into `target` in this role; `weight` is a merge's."""

    source: str
    target: str
    role: str
    weight: float | None = None


@dataclass(frozen=True)
class Lineage:
    """Nodes by id (version digests and data digests), and the edges between them."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return `nodes` and `edges` as plain JSON."""
        nodes = [{**asdict(node), "aliases": list(node.aliases)} for node in self.nodes]
        return {"nodes": nodes, "edges": [asdict(edge) for edge in self.edges]}


def trace(query: Query, version: Version) -> Lineage:
    """Walk upwards and downwards from a version.

    Args:
        query: The look-ups' query function.
        version: Where to start; its node has direction "self", its ancestors "up", its descendants "down".

    Returns:
        Every version reached and every data file that they name, oldest version first.
    """
    up = {row[0] for row in query(_WALK.format(next="parent_id", here="child_id"), (version.id,))} - {version.id}
    down = {row[0] for row in query(_WALK.format(next="child_id", here="parent_id"), (version.id,))} - {version.id}
    if up & down:
        raise AssertionError(f"lineage of {version.label} has a cycle, which the schema rules out")
    direction = {version.id: "self", **dict.fromkeys(up, "up"), **dict.fromkeys(down, "down")}
    found = [_version(query, number) for number in sorted(direction)]
    aliases: dict[str, list[str]] = {}
    for state in query_aliases(query):
        aliases.setdefault(state.digest, []).append(state.alias)
    nodes = [
        Node(
            v.digest,
            "version",
            v.label,
            v.kind,
            v.base_fingerprint,
            direction[v.id],
            tuple(aliases.get(v.digest, ())),
            v.manifest.metadata.get("decision_override"),
        )
        for v in found
    ]
    digests = {v.id: v.digest for v in found}
    edges = [
        Edge(digests[parent], digests[child], role, weight)
        for child in digests
        for parent, role, weight in query(
            "SELECT parent_id, role, weight FROM version_parents WHERE child_id = ? ORDER BY id", (child,)
        )
        if parent in digests
    ]
    data: dict[str, Node] = {}
    for v in found:
        for path, digest in sorted(v.manifest.data_digests.items()):
            data.setdefault(digest, Node(digest, "data", path, direction=direction[v.id]))
            edges.append(Edge(digest, v.digest, "data"))
    return Lineage(nodes=(*nodes, *data.values()), edges=tuple(edges))


def _version(query: Query, number: int) -> Version:
    row = query(
        "SELECT id, name, number, digest, kind, base_fingerprint, manifest, created_at FROM versions WHERE id = ?",
        (number,),
    )[0]
    return Version(*row)
