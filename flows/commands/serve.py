"""`tunewright serve REF`: a registered version behind an OpenAI-compatible endpoint. Parses, calls, prints."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click
from click.core import ParameterSource

from components.errors import InputError
from components.paths import home as default_home
from flows.commands.output import emit, json_option, note

__all__ = ["command"]


@click.command()
@click.argument("ref")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address; others than loopback need a token.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=3000, show_default=True, help="Port; 0 picks a free one."
)
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    default=default_home,
    show_default="$TUNEWRIGHT_HOME, else .tunewright",
    help="The state folder that holds the registry.",
)
@click.option(
    "--token-env",
    default="TUNEWRIGHT_TOKEN",
    show_default=True,
    help="Environment variable with the token that clients must send; without one only this machine is answered.",
)
@click.option(
    "--engine",
    type=click.Choice(["plain", "bento"]),
    default="plain",
    show_default=True,
    help="The app by itself, or inside a BentoML bundle.",
)
@click.option(
    "--require-signature",
    "public_key",
    metavar="PUBLIC_KEY_FILE",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    envvar="TUNEWRIGHT_REQUIRE_SIGNATURE",
    show_envvar=True,
    help="Serve it only if this ed25519 key has signed it (`tunewright registry sign`).",
)
@click.option("--unproven", is_flag=True, help="Serve it although the gate says no, or nothing was measured.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    ref: str,
    host: str,
    port: int,
    home: Path,
    token_env: str,
    engine: str,
    public_key: Path | None,
    unproven: bool,
    as_json: bool,
) -> None:
    """Serve a registered version until interrupted.

    REF is name (its newest version), name:vN, name@alias, or at least 12 hex digits of a version digest. A version that
    no alias points at and that doesn't pass its gate is refused, unless --unproven is given; a base needs no proof,
    since nothing was trained into it. The files are verified,
    the base is compared with the one that the adapter was trained on, and a canary is asked, before the endpoint is
    ready.
    """
    from deploy.from_registry import version_files
    from deploy.serving import check_address
    from deploy.staging import stage_model
    from registry.store import Registry

    if not token_env:
        raise InputError("--token-env names no variable", allowed="the name of an environment variable")
    token = os.environ.get(token_env) or None
    if token is None and context.get_parameter_source("token_env") is ParameterSource.COMMANDLINE:
        raise InputError(
            f"the environment variable {token_env} is not set, or empty",
            allowed="a variable that holds the token",
            next_step=f"export {token_env}, or leave --token-env out to answer this machine only",
        )
    host, port = check_address(host, port, token)
    with Registry.open(home / "registry", create=False) as registry:
        files = version_files(registry, ref, proven=not unproven, public_key=public_key, served=True)
    if files.warning:
        note(f"warning: {files.warning}")
    note(f"loading {files.label} ({files.digest[:12]})")

    def ready(url: str, canary: Mapping[str, Any]) -> None:
        document = {
            "url": url,
            "base_url": f"{url}/v1",
            "model": files.name,
            "version": files.label,
            "digest": files.digest,
            "engine": engine,
            "model_names": list(dict.fromkeys((files.name, files.label, files.digest, ref))),
            "default_max_tokens": files.max_new_tokens,
            "canary": dict(canary),
        }
        emit(document, as_json, _render)

    signal.signal(signal.SIGTERM, _leave)
    model = stage_model(files, out_home=home)
    if engine == "plain":
        from deploy.plain import serve_plain

        serve_plain(model, host=host, port=port, token=token, on_ready=ready, other_names=(ref,), public_key=public_key)
    else:
        from deploy.bundle import build_bundle
        from deploy.serving import serve_bundle

        bundle = build_bundle(model, out_home=home)
        with serve_bundle(bundle.path, port, token, host=host, served_by=ref, public_key=public_key) as server:
            ready(server.url, server.ready.get("canary", {}))
            try:
                server.wait()
            except KeyboardInterrupt:
                note("stopping")


def _leave(_number: int, _frame: FrameType | None) -> NoReturn:
    """Turn a termination into an orderly end, so that a child server is stopped too."""
    raise SystemExit(0)


def _render(document: dict[str, Any]) -> str:
    longest = document["default_max_tokens"]
    return (
        f"{document['version']} is ready at {document['base_url']}  (digest {document['digest'][:12]})\n"
        f"  curl {document['base_url']}/chat/completions -H 'content-type: application/json' "
        f'-d \'{{"model":"{document["model"]}","messages":[{{"role":"user","content":"..."}}]}}\'\n'
        f"  model: {', '.join(document['model_names'])}\n"
        "  without max_tokens an answer takes "
        + (f"at most {longest} tokens, as it was measured" if longest else "what the context leaves")
    )
