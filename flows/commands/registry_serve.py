"""`tunewright registry serve`: the registry's HTTP API. Parses, calls, prints."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from flows.commands.output import emit, json_option
from flows.commands.registry_options import home_option, make_registry

__all__ = ["serve_command"]


@click.command("serve")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address; others than loopback need `registry token add`."
)
@click.option(
    "--port", type=click.IntRange(0, 65535), default=3001, show_default=True, help="Port; 0 picks a free one."
)
@home_option
@json_option
def serve_command(host: str, port: int, home: Path, as_json: bool) -> None:
    """Serve the registry over HTTP until interrupted or terminated; webhooks are delivered meanwhile.

    Where there is none yet an empty one is made, for clients to register in.
    Without tokens it answers this machine only, and acts in the login name; with tokens every request needs one.
    """
    from registry.http.serving import listen, serve
    from registry.http.tokens import Tokens

    def ready(url: str, tokens: int) -> None:
        emit({"url": url, "api": f"{url}/v1", "tokens": tokens}, as_json, _render)

    listen(host, port, with_tokens=bool(Tokens(home / "registry").all())).close()  # nothing is made if it can't
    make_registry(home)
    signal.signal(signal.SIGTERM, _leave)
    serve(home / "registry", host=host, port=port, on_ready=ready)


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """Turn a termination into an orderly end."""
    raise SystemExit(0)


def _render(document: dict[str, Any]) -> str:
    who = f"{document['tokens']} tokens" if document["tokens"] else "this machine only: no tokens"
    return f"the registry is ready at {document['api']}  ({who})"
