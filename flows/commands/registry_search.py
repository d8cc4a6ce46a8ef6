"""`tunewright registry search|trained-on`: versions by kind, base, data and score. Parses, calls, prints."""

from __future__ import annotations

import difflib
import hashlib
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.commands.output import emit, json_option, note
from flows.commands.registry_options import home_option

if TYPE_CHECKING:
    from registry.lookup import Query

__all__ = ["search_command", "trained_on_command"]


@click.command("search")
@click.option("--name", default=None, help="Of the model.")
@click.option("--kind", default=None, help="base, adapter, merged, full, head, prompt or quantized.")
@click.option("--base", default=None, metavar="FINGERPRINT", help="The base's fingerprint, or its first 12 digits.")
@click.option("--data", default=None, metavar="FILE", help="A data file it was trained on, or that file's sha256.")
@click.option("--metric", default=None, help="Task metric or general suite of the newest report.")
@click.option("--min", "minimum", type=float, default=None, help="Least score by --metric.")
@click.option("--max", "maximum", type=float, default=None, help="Largest score by --metric.")
@click.option("--limit", type=click.IntRange(min=1), default=None, help="Most versions to list.  [default: all]")
@home_option
@json_option
def search_command(
    name: str | None,
    kind: str | None,
    base: str | None,
    data: str | None,
    metric: str | None,
    minimum: float | None,
    maximum: float | None,
    limit: int | None,
    home: Path,
    as_json: bool,
) -> None:
    """List the versions that satisfy every condition. --data and --metric scan; the others go by index."""
    from registry.lookup import Lookup
    from registry.search import scores_of, search_versions

    with closing(Lookup(home / "registry")) as lookup:
        found = search_versions(
            lookup.query, name=name, kind=kind, base=base, data=None if data is None else _digest_of(data),
            metric=metric, minimum=minimum, maximum=maximum, limit=limit,
        )  # fmt: skip
        rows: list[dict[str, Any]] = []
        for version in found:
            row = version.to_dict()
            if metric is not None:
                newest = lookup.query(
                    "SELECT report FROM evaluations WHERE version_id = ? ORDER BY id DESC LIMIT 1", (version.id,)
                )
                row["scores"] = scores_of(newest[0][0], metric)
            rows.append(row)
        if not rows:
            for said in _unknown(lookup.query, name, metric):
                note(said)
    emit({"versions": rows}, as_json, _render)


@click.command("trained-on")
@click.argument("data", metavar="FILE")
@click.option(
    "--endpoint",
    "endpoints",
    multiple=True,
    metavar="URL",
    help="Ask this endpoint, too, what it serves; as often as there are endpoints.",
)
@home_option
@json_option
def trained_on_command(data: str, endpoints: tuple[str, ...], home: Path, as_json: bool) -> None:
    """Show what was trained on FILE (or on the file with this sha256), what was made of it, and the aliases of all.

    With --endpoint it says which of these endpoints serve something of that now, by the digest that each states; exit
    status 3 if one couldn't be asked.
    """
    from registry.lineage import trained_on
    from registry.lookup import Lookup

    if endpoints:
        from registry.http.endpoints import ask_endpoint, check_endpoint

        for url in endpoints:
            check_endpoint(url)
    with closing(Lookup(home / "registry")) as lookup:
        found = trained_on(lookup.query, _digest_of(data))
    document = found.to_dict()
    if endpoints:
        labels = {node.id: node.label for node in found.nodes if node.type == "version"}
        asked = [ask_endpoint(url) for url in dict.fromkeys(endpoints)]
        document["endpoints"] = [{**one.to_dict(), "serves": labels.get(one.digest or "")} for one in asked]
    emit(document, as_json, _render_trained)
    if any(one["error"] for one in document.get("endpoints", ())):
        sys.exit(3)


def _unknown(query: Query, name: str | None, metric: str | None) -> Iterator[str]:
    """Say which of the names asked for is none that is there: an empty answer would read as one about scores."""
    from registry.search import query_metrics, query_models

    named_there: tuple[tuple[str, str | None, Callable[[], list[str]]], ...] = (
        ("model", name, lambda: [model.name for model in query_models(query)]),
        ("metric or suite", metric, lambda: query_metrics(query)),
    )
    for what, given, there in named_there:
        if given is not None and given not in (known := there()):
            near = difflib.get_close_matches(given, known, n=3)
            named = f"did you mean {', '.join(near)}?" if near else f"there are {', '.join(known[:10]) or 'none'}"
            yield f"note: no {what} is named {given!r}; {named}"


def _digest_of(data: str) -> str:
    """Return the sha256 of a file, or the text itself where it is one."""
    from registry.errors import RegistryPathError
    from registry.names import is_digest

    if is_digest(data):
        return data
    try:
        with Path(data).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise RegistryPathError(
            f"data file {data!r} can't be read: {error.strerror}", allowed="a file, or its sha256 in lower-case hex"
        ) from error


def _render(document: dict[str, Any]) -> str:
    lines = [
        f"{row['name']}:v{row['version']}  {row['kind']}  {row['digest'][:12]}"
        + "".join(f"  {score:.4g}" for score in row.get("scores", ()))
        for row in document["versions"]
    ]
    return "\n".join(lines) or "no version satisfies this"


def _render_trained(document: dict[str, Any]) -> str:
    lines = []
    for node in document["nodes"]:
        marks = " ".join(f"@{alias}" for alias in node["aliases"])
        lines.append(f"{node['label']}  {node['kind'] or 'data'}  {node['id'][:12]}  {marks}".rstrip())
    lines = lines or ["nothing was trained on this file"]
    for one in document.get("endpoints", ()):
        if one["error"]:
            told = f"can't be asked: {one['error']}"
        elif one["serves"]:
            told = f"serves {one['serves']}" + ("" if one["status"] == "ready" else f", and is {one['status']}")
        else:
            told = f"serves nothing of this, but {one['digest'][:12]}"
        lines.append(f"{one['url']}  {told}")
    return "\n".join(lines)
