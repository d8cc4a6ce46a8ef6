"""The lineage graph round a version: everything it was made from, and everything made from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from registry.entities import Version
from registry.errors import RecordDamaged, ReferenceInvalid
from registry.lookup import Query, query_aliases_of, query_of_each
from registry.manifest import WHOLE_KINDS
from registry.runs import Run, has_runs, query_runs
from registry.search import search_versions
from registry.status import Status, query_statuses_of

__all__ = ["DIRECTIONS", "Edge", "Lineage", "Node", "trace", "trained_on"]

DIRECTIONS = ("both", "up", "down")

# UNION drops repeats, so that a shared ancestor is walked once. PostgreSQL has to be told the parameter's type.
_WALK = """WITH RECURSIVE reached(id) AS (
    SELECT CAST(? AS INTEGER) UNION SELECT p.{next} FROM version_parents p JOIN reached r ON p.{here} = r.id)
    SELECT id FROM reached"""
_VERSIONS = """SELECT id, name, number, digest, kind, base_fingerprint, manifest, created_at FROM versions
    WHERE id IN ({}) ORDER BY id"""
_SWEPT = "SELECT DISTINCT name FROM runs WHERE name IN ({})"
_KEYS = "SELECT id, content_key FROM versions WHERE content_key IS NOT NULL AND id IN ({}) ORDER BY id"
_PARENTS = """SELECT parent_id, child_id, role, weight FROM version_parents WHERE child_id IN ({})
    ORDER BY child_id, id"""


@dataclass(frozen=True)
class Node:
    """A version, a run of a sweep, or a data file that one was trained on.

    `decision_override` says why a version was trained all the same; `state` is a version's: active or not.
    """

    id: str
    type: str
    label: str
    kind: str | None = None
    base: str | None = None
    direction: str = "self"
    aliases: tuple[str, ...] = ()
    decision_override: str | None = None
    state: str | None = None


@dataclass(frozen=True)
class Edge:
    """`source` went into `target` in this role; `weight` is a merge's."""

    source: str
    target: str
    role: str
    weight: float | None = None


@dataclass(frozen=True)
class Lineage:
    """Nodes by id (digests of versions, runs and data), and the edges between them."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]

    def towards(self, direction: str) -> Lineage:
        """Return the version with what it was made from (`up`), with what was made from it (`down`), or all (`both`).

        Raises:
            ReferenceInvalid: Another direction.
        """
        if direction not in DIRECTIONS:
            raise ReferenceInvalid(f"lineage direction {direction!r}", allowed=", ".join(DIRECTIONS))
        if direction == "both":
            return self
        # what the version itself was trained on lies above it, though its node says "self"
        kept = {
            node.id
            for node in self.nodes
            if node.direction == direction
            or (node.direction == "self" and (direction == "up" or node.type == "version"))
        }
        return Lineage(
            tuple(node for node in self.nodes if node.id in kept),
            tuple(edge for edge in self.edges if {edge.source, edge.target} <= kept),
        )

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
        raise RecordDamaged(
            f"lineage of {version.label} has a cycle, which the schema rules out: it was changed from outside",
            next_step="`tunewright registry verify` lists the damage; put the database back from a copy",
        )
    direction = {version.id: "self", **dict.fromkeys(up, "up"), **dict.fromkeys(down, "down")}
    ids = sorted(direction)
    found = [Version(*row) for row in query_of_each(query, _VERSIONS, ids)]
    aliases: dict[str, list[str]] = {}
    # of the models reached alone: a registry has thousands of others
    for state in query_aliases_of(query, sorted({v.name for v in found})):
        aliases.setdefault(state.digest, []).append(state.alias)
    statuses = query_statuses_of(query, ids)
    nodes = [
        Node(
            v.digest,
            "version",
            v.label,
            v.kind,
            v.base_fingerprint,
            direction[v.id],
            tuple(aliases.get(v.digest, ())),
            _text_or_none(v.manifest.metadata.get("decision_override")),
            statuses.get(v.id, Status()).state,
        )
        for v in found
    ]
    digests = {v.id: v.digest for v in found}
    edges = [
        Edge(digests[parent], digests[child], role, weight)
        for parent, child, role, weight in query_of_each(query, _PARENTS, ids)
        if parent in digests
    ]
    runs, of_runs = _runs(query, found, direction)
    nodes += [
        Node(run.digest, "run", f"{run.label}: {run.document.get('summary', '')}", "trial", run.base_fingerprint, where)
        for run, where in runs
    ]
    edges += of_runs
    data: dict[str, Node] = {}
    for v in found:
        for path, digest in sorted(v.manifest.data_digests.items()):
            data.setdefault(digest, Node(digest, "data", path, direction=direction[v.id]))
            edges.append(Edge(digest, v.digest, "data"))
    for run, where in runs:
        for path, digest in sorted(run.document.get("data", {}).items()):
            data.setdefault(digest, Node(digest, "data", path, direction=where))
            edges.append(Edge(digest, run.digest, "data"))
    return Lineage(nodes=(*nodes, *data.values()), edges=tuple(edges))


def trained_on(query: Query, data_digest: str) -> Lineage:
    """Answer which versions were trained on a data file, what was made of those, and which aliases serve them.

    Every version's manifest is scanned for the digest, since no index holds the data; what was made of the versions
    found is walked by index.

    Args:
        query: The look-ups' query function.
        data_digest: Hex sha256 of the data file.

    Returns:
        The data file's node (direction "self"; absent where nothing was trained on it), and every version reached, each
        with its aliases and direction "down".

    Raises:
        ReferenceInvalid: No whole digest.
    """
    users = search_versions(query, data=data_digest)
    edges: dict[Edge, None] = {}
    nodes: dict[str, Node] = {}
    for user in users:
        paths = [path for path, digest in user.manifest.data_digests.items() if digest == data_digest]
        nodes.setdefault(data_digest, Node(data_digest, "data", paths[0]))
        reached = trace(query, user).towards("down")
        versions = [node for node in reached.nodes if node.type == "version"]
        nodes.update((node.id, replace(node, direction="down")) for node in versions)
        edges.update(
            dict.fromkeys(edge for edge in reached.edges if {edge.source, edge.target} <= {v.id for v in versions})
        )
        edges[Edge(data_digest, user.digest, "data")] = None
    return Lineage(tuple(nodes.values()), tuple(edges))


def _runs(query: Query, found: list[Version], direction: Mapping[int, str]) -> tuple[list[tuple[Run, str]], list[Edge]]:
    """Return the runs round some versions, each with its direction, and their edges with them.

    A version that was trained with a run's content key was made of its weights (role "run"), and was chosen among the
    other trials of its sweep (role "trial"). From a base that is asked for, or lies below, every run on it is reached.
    """
    reached: dict[int, tuple[Run, str]] = {}
    edges = []
    names = sorted({v.name for v in found}) if has_runs(query) else []
    swept = {row[0] for row in query_of_each(query, _SWEPT, names)}
    of_swept = {v.id: v for v in found if v.name in swept}
    for number, key in query_of_each(query, _KEYS, list(of_swept)):
        v = of_swept[number]
        for own in query_runs(query, "name = ? AND content_key = ?", (v.name, key)):
            for run in query_runs(query, "name = ? AND sweep = ?", (own.name, own.sweep)):
                reached.setdefault(run.id, (run, "up" if direction[v.id] != "down" else "down"))
                edges.append(Edge(run.digest, v.digest, "run" if run.content_key == own.content_key else "trial"))
    for v in found:
        if v.kind in WHOLE_KINDS and direction[v.id] != "up":
            for run in query_runs(query, "base_fingerprint = ?", (v.base_fingerprint,)):
                reached.setdefault(run.id, (run, "down"))
    bases = [v for v in found if v.kind in WHOLE_KINDS]
    edges += [
        Edge(v.digest, run.digest, "base")
        for run, _ in reached.values()
        for v in bases
        if v.base_fingerprint == run.base_fingerprint
    ]
    return list(reached.values()), list(dict.fromkeys(edges))


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
