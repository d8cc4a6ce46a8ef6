"""`tunewright registry token`: who may ask the registry's server. Parses, calls, prints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.commands.group import VerbGroup
from flows.commands.output import emit, json_option
from flows.commands.registry_options import home_option, make_registry

if TYPE_CHECKING:
    from registry.http.tokens import Tokens

__all__ = ["token_group"]


@click.group("token", cls=VerbGroup)
def token_group() -> None:
    """Make, list and revoke the bearer tokens of the registry's server.

    Each has a name, which the audit trail writes, and a role: read; write, which registers and evaluates, too; promote,
    which also moves aliases.
    """


def _tokens(home: Path) -> Tokens:
    from registry.http.tokens import Tokens
    from registry.lookup import Lookup

    Lookup(home / "registry").close()  # says what to do where there is no registry, and makes nothing
    return Tokens(home / "registry")


@token_group.command("add")
@click.argument("name")
@click.option(
    "--role", type=click.Choice(["read", "write", "promote"]), required=True, help="Each includes those before it."
)
@home_option
@json_option
def add(name: str, role: str, home: Path, as_json: bool) -> None:
    """Make a token for NAME and print it, once: only its sha256 is kept.

    Where there is no registry yet an empty one is made.
    """
    from registry.http.tokens import Tokens, check_token

    check_token(name, role)
    make_registry(home)
    secret = Tokens(home / "registry").add(name, role)
    emit({"name": name, "role": role, "token": secret}, as_json, lambda document: document["token"])


@token_group.command("ls")
@home_option
@json_option
def list_tokens(home: Path, as_json: bool) -> None:
    """List the tokens' names and roles."""
    emit({"tokens": [token.to_dict() for token in _tokens(home).all()]}, as_json, _render)


@token_group.command("revoke")
@click.argument("name")
@home_option
@json_option
def revoke(name: str, home: Path, as_json: bool) -> None:
    """Revoke NAME's token: from the next request on it counts for nothing."""
    gone = _tokens(home).revoke(name)
    emit(gone.to_dict(), as_json, lambda document: f"{document['name']} ({document['role']}) is revoked")


def _render(document: dict[str, Any]) -> str:
    if not document["tokens"]:
        return "no tokens: a server answers its own machine only"
    return "\n".join(f"{t['name']:24} {t['role']:8} {t['created_at'][:19]}" for t in document["tokens"])
