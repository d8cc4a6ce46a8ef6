"""`tunewright registry webhook`: who is told of what happens in the registry. Parses, calls, prints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.commands.group import VerbGroup
from flows.commands.output import emit, json_option
from flows.commands.registry_options import home_option, open_registry

if TYPE_CHECKING:
    pass

__all__ = ["webhook_group"]


@click.group("webhook", cls=VerbGroup)
def webhook_group() -> None:
    """Tell other systems of registrations, promotions and roll-backs, by signed HTTP requests.

    `tunewright registry serve` delivers them meanwhile. Hosts are allowed by a file in the registry's folder,
    webhook-hosts.txt: a host, or host:port, a line, with the word private behind it where its addresses are not on the
    open internet.
    """


@webhook_group.command("add")
@click.argument("url")
@click.option(
    "--events",
    default="*",
    show_default=True,
    help="Topics such as version.registered and alias.promote, or patterns such as 'alias.*', separated by commas.",
)
@click.option("--from-start", is_flag=True, help="Tell it what happened before, too.")
@home_option
@json_option
def add(url: str, events: str, from_start: bool, home: Path, as_json: bool) -> None:
    """Tell URL of events from now on, and print the secret that signs them, once."""
    from registry.http.webhooks import Webhooks

    with open_registry(home) as registry:
        patterns = [word for word in (part.strip() for part in events.split(",")) if word]
        position = 0 if from_start else registry.outbox_head()
        hook = Webhooks(registry.folder).add(url, patterns, position=position)
    document = {"id": hook.id, "url": hook.url, "events": list(hook.events), "secret": hook.secret}
    emit(document, as_json, lambda d: f"webhook {d['id']} is told of {', '.join(d['events'])}; secret: {d['secret']}")


@webhook_group.command("ls")
@home_option
@json_option
def list_webhooks(home: Path, as_json: bool) -> None:
    """List the webhooks, how far each has been told, and why one fails."""
    from registry.http.webhooks import Webhooks

    with open_registry(home) as registry:
        head, rows = registry.outbox_head(), Webhooks(registry.folder).describe()
    emit({"head": head, "webhooks": rows}, as_json, _render)


@webhook_group.command("remove")
@click.argument("webhook_id", metavar="ID")
@home_option
@json_option
def remove(webhook_id: str, home: Path, as_json: bool) -> None:
    """Remove a webhook."""
    from registry.http.webhooks import Webhooks

    with open_registry(home) as registry:
        gone = Webhooks(registry.folder).remove(webhook_id)
    emit({"id": gone.id, "url": gone.url}, as_json, lambda d: f"webhook {d['id']} ({d['url']}) is removed")


@webhook_group.command("revive")
@click.argument("webhook_id", metavar="ID")
@home_option
@json_option
def revive(webhook_id: str, home: Path, as_json: bool) -> None:
    """Try a webhook again that failed too often, from the event where it failed."""
    from registry.http.webhooks import Webhooks

    with open_registry(home) as registry:
        place = Webhooks(registry.folder).revive(webhook_id)
    document = {"id": webhook_id, "position": place.position}
    emit(document, as_json, lambda d: f"webhook {d['id']} is tried again, behind event {d['position']}")


@webhook_group.command("deliver")
@click.option(
    "--once",
    is_flag=True,
    required=True,
    expose_value=False,
    help="Deliver what is there and end; `registry serve` is what goes on.",
)
@home_option
@json_option
def deliver_command(home: Path, as_json: bool) -> None:
    """Deliver what is there now, failed tries included. Exit status 3 if one of them failed or is dead."""
    from registry.http.delivery import deliver

    with open_registry(home) as registry:
        rounds = [found.to_dict() for found in deliver(registry, again=True, most=None)]
    emit({"rounds": rounds}, as_json, _render_rounds)
    if any(found["error"] for found in rounds):
        sys.exit(3)


def _render(document: dict[str, Any]) -> str:
    if not document["webhooks"]:
        return "no webhooks"
    lines = []
    for hook in document["webhooks"]:
        state = "dead" if hook["dead"] else f"{hook['failures']} failures" if hook["failures"] else "well"
        lines.append(
            f"{hook['id']}  {hook['url']}  {', '.join(hook['events'])}  "
            f"told to {'?' if hook['position'] is None else hook['position']} of {document['head']}  {state}"
        )
        lines += [f"    {hook['last_error']}"] if hook["last_error"] else []
    return "\n".join(lines)


def _render_rounds(document: dict[str, Any]) -> str:
    lines = [
        f"{r['id']}  {r['url']}  {r['delivered']} delivered"
        + (f"  {'dead' if r['dead'] else 'failed'}: {r['error']}" if r["error"] else "")
        for r in document["rounds"]
    ]
    return "\n".join(lines) or "nothing to deliver"
