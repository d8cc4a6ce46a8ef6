"""Serve a staged model with uvicorn in this process: the same app as in a bundle, without BentoML round it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.serving import check_address, refusal

if TYPE_CHECKING:
    from deploy.model import ServedModel

__all__ = ["serve_plain"]


def serve_plain(
    model: ServedModel,
    *,
    host: str,
    port: int,
    token: str | None,
    on_ready: Callable[[str, Mapping[str, Any]], None],
    other_names: Sequence[str] = (),
    public_key: Path | None = None,
) -> None:
    """Serve until interrupted or terminated.

    Args:
        model: A staged model.
        host: Numeric address, or "localhost".
        port: Port; 0 picks a free one.
        token: Bearer token of clients.
        other_names: What clients may name the model by besides its name, its version and its digest.
        on_ready: Called once, from another thread, with the URL and what the canary found.
        public_key: The key that must have signed it.

    Raises:
        InputError: A host or port that can't be used.
        ConflictError: A changed file, or another base; nothing listens then.
        VerdictError: The key has not signed it, or the canary failed.
    """
    import uvicorn

    from deploy.application import make_app, make_engine

    host, port = check_address(host, port, token)
    model.verify(public_key)
    engine = make_engine(model, public_key)
    app = make_app(model, token, engine, other_names=other_names)
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
    )
    server = uvicorn.Server(config)

    def watch() -> None:
        state = engine.wait_until_loaded()
        if state.state == "ready":
            on_ready(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", state.canary)
        else:
            server.should_exit = True

    watcher = threading.Thread(target=watch, name="readiness", daemon=True)
    engine.start()
    watcher.start()
    server.run()
    watcher.join()
    status = engine.status()
    if status.state == "failed":
        raise refusal(status.reason, status.exit_status)
