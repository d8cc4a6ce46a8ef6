"""Look-ups take as long in a large registry as in a small one: what the databases go through is counted, not timed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from registry.entities import Version
from registry.gate import Policy
from registry.lineage import trace
from registry.lookup import Lookup, query_alias
from registry.manifest import Manifest, Parent, describe_files
from registry.reports import evaluations_before
from registry.store import Registry

SMALL, LARGE = 40, 1000
# What grows with the number of aliases or versions that are returned is not counted here: there are always three.
LOOK_UPS: dict[str, Callable[[Lookup], Any]] = {
    "newest": lambda lookup: lookup.resolve("m"),
    "numbered": lambda lookup: lookup.resolve("m:v3"),
    "aliased": lambda lookup: lookup.resolve("m@champion"),
    "prefixed": lambda lookup: lookup.resolve(f"{3:012d}"),
    "alias": lambda lookup: query_alias(lookup.query, "m", "champion"),
    "aliases of a model": lambda lookup: lookup.aliases("m"),
    "aliases": lambda lookup: lookup.aliases(),
}


def _grow(raw: Any, first: int, last: int) -> None:
    """Add versions, and as many steps to each of three aliases of two models."""
    for number in range(first, last + 1):
        for model, name in enumerate(("m", "n")):
            key = 2 * number + model
            raw.execute(
                "INSERT INTO versions VALUES (?, ?, ?, ?, 'base', NULL, NULL, '{}', 't')",
                (key, name, number, f"{number if name == 'm' else 10**11 + number:012d}" + "0" * 52),
            )
            for alias in ("candidate", "champion") if name == "m" else ("champion",):
                raw.execute(
                    "INSERT INTO alias_events (name, alias, revision, version_id, action, actor, created_at) "
                    "VALUES (?, ?, ?, ?, 'promote', 'a', 't')",
                    (name, alias, number, key),
                )


def _steps(lookup: Lookup, acts: dict[str, Callable[[Lookup], Any]], raw: Any) -> dict[str, int]:
    """Return how many steps each act takes."""
    return {
        what: _steps_of_postgres(lookup, act, raw) if raw.postgres else _steps_of_sqlite(lookup, act)
        for what, act in acts.items()
    }


def _grown(small: dict[str, int], large: dict[str, int]) -> dict[str, tuple[int, int]]:
    """Return the acts that take more steps in the large registry, with both numbers."""
    return {what: (small[what], steps) for what, steps in large.items() if steps > 1.5 * small[what] + 5}


def _steps_of_sqlite(lookup: Lookup, act: Callable[[Lookup], Any]) -> int:
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    connection = lookup._reader()._connection
    connection.set_progress_handler(count, 1)
    act(lookup)
    connection.set_progress_handler(None, 0)
    return steps


def _steps_of_postgres(lookup: Lookup, act: Callable[[Lookup], Any], raw: Any) -> int:
    ran: list[tuple[str, Sequence[Any]]] = []
    query = lookup.query

    def note(sql: str, parameters: Sequence[Any]) -> Any:
        ran.append((sql, parameters))
        return query(sql, parameters)

    lookup.query = note  # type: ignore[method-assign]
    act(lookup)
    steps = 0
    for sql, parameters in ran:
        (plan,) = raw.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", parameters).fetchone()
        steps += _rows(json.loads(plan)[0]["Plan"] if isinstance(plan, str) else plan[0]["Plan"])
    lookup.query = query  # type: ignore[method-assign]
    return steps


def _rows(node: dict[str, Any]) -> int:
    """How many rows a plan's nodes looked at, thrown away or not."""
    own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return int(own) + sum(_rows(child) for child in node.get("Plans", []))


def test_steps_of_look_ups_do_not_grow_with_versions_and_promotions(registry: Registry, backend: Any) -> None:
    raw = backend.connect(registry.folder)
    counts: list[dict[str, int]] = []
    for first, last in ((1, SMALL), (SMALL + 1, LARGE)):
        raw.execute("BEGIN")
        _grow(raw, first, last)
        raw.execute("COMMIT")
        raw.execute("ANALYZE")
        with Lookup(registry.folder) as lookup:
            assert [(a.name, a.alias, a.revision) for a in lookup.aliases()] == [
                ("m", "candidate", last), ("m", "champion", last), ("n", "champion", last)
            ]  # fmt: skip
            counted = _steps(lookup, LOOK_UPS, raw)
        assert min(counted.values()) > 0
        counts.append(counted)
    assert _grown(*counts) == {}


def _add_others(raw: Any, first: int, last: int) -> None:
    """Add models of one version each, with an alias, a state and a run."""
    for number in range(first, last + 1):
        (key,) = raw.execute("SELECT max(id) + 1 FROM versions").fetchone()
        name, digest = f"other-{number}", f"{number:064d}"
        raw.execute("INSERT INTO versions VALUES (?, ?, 1, ?, 'base', ?, NULL, '{}', 't')", (key, name, digest, digest))
        raw.execute(
            "INSERT INTO alias_events (name, alias, revision, version_id, action, actor, created_at) "
            "VALUES (?, 'champion', 1, ?, 'promote', 'a', 't')",
            (name, key),
        )
        raw.execute(
            "INSERT INTO version_events (version_id, action, actor, reason, created_at) "
            "VALUES (?, 'deprecate', 'a', 'r', 't')",
            (key,),
        )
        raw.execute(
            "INSERT INTO runs (name, sweep, number, digest, base_fingerprint, document, created_at) "
            "VALUES (?, 's', 1, ?, ?, '{}', 't')",
            (name, digest, digest),
        )


def test_steps_of_a_lineage_and_a_list_do_not_grow_with_other_models(
    registry: Registry, add_adapter: Callable[..., Version], make_report: Any, policy: Policy, backend: Any
) -> None:
    one = add_adapter("one")
    registry.deprecate(one.digest, actor="ada", reason="slow")
    promoted = add_adapter("two")
    registry.record_evaluation(promoted.digest, make_report())
    registry.promote(promoted.digest, "champion", policy=policy, actor="ada")
    raw = backend.connect(registry.folder)
    counts: list[dict[str, int]] = []
    for first, last in ((1, SMALL), (SMALL + 1, LARGE)):
        raw.execute("BEGIN")
        _add_others(raw, first, last)
        raw.execute("COMMIT")
        raw.execute("ANALYZE")
        with Lookup(registry.folder) as lookup:
            nodes = {node.label: node for node in trace(lookup.query, lookup.resolve("tiny-base")).nodes}
            assert (nodes["text2sql:v1"].state, nodes["text2sql:v2"].aliases) == ("deprecated", ("champion",))
            acts: dict[str, Callable[[Lookup], Any]] = {
                "lineage": lambda lookup: trace(lookup.query, lookup.resolve("tiny-base")),
                "list": lambda lookup: lookup.versions("text2sql"),
            }
            counts.append(_steps(lookup, acts, raw))
    assert _grown(*counts) == {}


def _add_reports(raw: Any, version: Version, first: int, last: int) -> None:
    for number in range(first, last + 1):
        raw.execute(
            "INSERT INTO evaluations VALUES (?, ?, ?, '{}', 't')",
            (number, version.id, f"{version.id:032d}{number:032d}"),
        )


def test_steps_of_a_page_of_reports_do_not_grow_with_reports(
    registry: Registry, add_adapter: Callable[..., Version], backend: Any
) -> None:
    version, other = add_adapter("one"), add_adapter("two")
    raw = backend.connect(registry.folder)
    counts: list[dict[str, int]] = []
    for first, last in ((1, SMALL), (SMALL + 1, LARGE)):
        raw.execute("BEGIN")
        _add_reports(raw, version, 2 * first, first + last)
        _add_reports(raw, other, first + last + 1, 2 * last + 1)  # newer ones, of another version
        raw.execute("COMMIT")
        raw.execute("ANALYZE")
        newest = first + last
        with Lookup(registry.folder) as lookup:
            pages: dict[str, Callable[[Lookup], Any]] = {
                "the first": lambda lookup: evaluations_before(lookup.query, version, 2**53, 3),
                "one behind": lambda lookup: evaluations_before(lookup.query, version, newest - 2, 3),  # noqa: B023
            }
            assert [one.id for one in pages["the first"](lookup)] == [newest, newest - 1, newest - 2]
            assert [one.id for one in pages["one behind"](lookup)] == [newest - 3, newest - 4, newest - 5]
            counts.append(_steps(lookup, pages, raw))
    assert _grown(*counts) == {}


def test_a_lineage_asks_as_often_whatever_was_made_of_a_base(
    registry: Registry, add_base: Callable[..., Version], write_files: Any, make_report: Any, policy: Policy
) -> None:
    base, files = add_base(), write_files("adapter")
    counts = []
    for number in range(12):
        manifest = Manifest(
            "adapter", describe_files(files), base_fingerprint=base.base_fingerprint, seed=number,
            parents=(Parent(base.digest, "base"),),
        )  # fmt: skip
        made = registry.register(f"model-{number}", manifest, files)
        registry.record_evaluation(made.digest, make_report())
        registry.promote(made.digest, "champion", policy=policy, actor="ada")
        asked: list[str] = []
        with Lookup(registry.folder) as lookup:
            found = trace(lambda sql, values: (asked.append(sql), lookup.query(sql, values))[1], base)  # noqa: B023
        assert [node.aliases for node in found.nodes] == [(), *[("champion",)] * (number + 1)]
        assert len(found.edges) == number + 1
        counts.append(len(asked))
    assert len(set(counts)) == 1


def test_many_aliases_are_listed_in_order(registry: Registry, backend: Any) -> None:
    raw = backend.connect(registry.folder)
    _grow(raw, 1, 2)
    raw.execute("BEGIN")
    for number in range(1200):
        raw.execute(
            "INSERT INTO alias_events (name, alias, revision, version_id, action, actor, created_at) "
            "VALUES ('n', ?, 1, ?, 'promote', 'a', 't')",
            (f"a{'-_z'[number % 3]}{number}", 5),
        )
    raw.execute("COMMIT")
    with Lookup(registry.folder) as lookup:
        found = lookup.aliases()
        assert len(found) == 1203
        assert found == sorted(found, key=lambda a: (a.name, a.alias))
        assert lookup.aliases("n") == found[2:]
        assert lookup.aliases("nothing") == []
