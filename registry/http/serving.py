"""`registry serve`: the app under uvicorn, on an address that its tokens allow, until it is told to stop."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from registry.errors import RegistryPathError, RequestInvalid
from registry.http.app import make_app
from registry.http.telling import delivering
from registry.http.tokens import Tokens
from registry.store import Registry

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

__all__ = ["configuration", "listen", "serve"]

GRACE_SECONDS = 10
KEEP_ALIVE_SECONDS = 75


def listen(host: str, port: int, *, with_tokens: bool) -> socket.socket:
    """Bind the server's socket.

    Args:
        host: A numeric address, or "localhost".
        port: A port; 0 picks a free one.
        with_tokens: Whether clients have to send one.

    Raises:
        RequestInvalid: No address of this machine, one that others can reach without a token, or a port that can't be
            used.
    """
    numeric = "127.0.0.1" if host == "localhost" else host
    try:
        address = ipaddress.ip_address(numeric)
    except ValueError as error:
        raise RequestInvalid(
            f"host {host!r} is not an address", allowed="localhost or a numeric address such as 127.0.0.1"
        ) from error
    if not address.is_loopback and not with_tokens:
        raise RequestInvalid(
            f"host {host} can be reached by other machines, and the registry has no tokens",
            allowed="a loopback address, or any address once there is a token",
            next_step="tunewright registry token add NAME --role read, or leave --host at 127.0.0.1",
        )
    bound = socket.socket(socket.AF_INET6 if address.version == 6 else socket.AF_INET, socket.SOCK_STREAM)
    # as servers do: a port whose last connections are still fading may be taken again
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((numeric, port))
    except OSError as error:
        bound.close()
        raise RequestInvalid(
            f"port {port} on {host} can't be used: {error.strerror}",
            allowed="a free port of this machine, or 0 to pick one",
            next_step="stop the process that listens there, or choose another port with --port",
        ) from error
    return bound


def configuration(app: FastAPI) -> uvicorn.Config:
    """Return how uvicorn serves an app; the limits are the protocol's and the app's own.

    Args:
        app: As `make_app` makes it.
    """
    import uvicorn

    from registry.http.protocol import PatientProtocol

    return uvicorn.Config(
        app,
        http=PatientProtocol,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )


def serve(folder: Path, *, host: str, port: int, on_ready: Callable[[str, int], None]) -> None:
    """Serve a registry until the process is interrupted or terminated; requests under way get some seconds to end.

    Args:
        folder: The registry's folder; there has to be a registry.
        host: Numeric address, or "localhost".
        port: Port; 0 picks a free one.
        on_ready: Called once with the URL and the number of tokens, when the server answers.

    Raises:
        RequestInvalid: A host or port that can't be used.
        RegistryNotFound, RegistryPathError, SchemaUnsupported: As `Registry.open`.
    """
    import uvicorn

    tokens = Tokens(folder)
    held = len(tokens.all())
    with listen(host, port, with_tokens=held > 0) as bound, Registry.open(folder, create=False) as registry:
        app = make_app(registry, tokens, background=lambda: delivering(registry))
        config = configuration(app)
        name, number = bound.getsockname()[:2]

        class Server(uvicorn.Server):
            async def startup(self, sockets: list[socket.socket] | None = None) -> None:
                await super().startup(sockets)
                if self.started:
                    on_ready(f"http://[{name}]:{number}" if ":" in name else f"http://{name}:{number}", held)

        server = Server(config)
        server.run(sockets=[bound])
        if not server.started:
            raise RegistryPathError(f"the server at {name}:{number} did not start", next_step="look at its log above")
