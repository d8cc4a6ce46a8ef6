"""The BentoML service: a thin shell round the endpoint's own app. BentoML imports this module from inside a bundle.

BentoML brings packaging, containers and process supervision. All requests, its own probe and metrics paths included,
go to our app, so that every answer carries the digest and /readyz waits for the canary.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import bentoml

from components.errors import TunewrightError
from deploy.application import REF_VARIABLE, TOKEN_VARIABLE, make_app
from deploy.lifeline import follow_parent
from deploy.model import ServedModel
from deploy.signature import required_key
from registry.errors import RegistryError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

MODEL_FOLDER = Path(__file__).resolve().parents[1] / "model"
# BentoML cuts a request that has sent nothing after 60 s; a queue before a long prompt may take longer on a CPU.
TIMEOUT_SECONDS = 3600

follow_parent()
model = ServedModel.read(MODEL_FOLDER)
served_by = os.environ.get(REF_VARIABLE)
app = make_app(
    model,
    os.environ.get(TOKEN_VARIABLE) or None,
    other_names=(served_by,) if served_by else (),
    public_key=required_key(),
)


class Passage:
    """Lead every HTTP request past BentoML's own routes to the endpoint."""

    def __init__(self, shell: ASGIApp, *, endpoint: ASGIApp) -> None:
        self._shell = shell
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (self._endpoint if scope["type"] == "http" else self._shell)(scope, receive, send)


@bentoml.service(
    name="tunewright",
    workers=1,
    traffic={"timeout": TIMEOUT_SECONDS},
    # BentoML listens on all addresses unless told otherwise; without a token the app would refuse those anyway
    http={"host": "127.0.0.1"},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
@bentoml.asgi_app(app, path="/")
class Endpoint:
    """One version behind an OpenAI-compatible API."""

    @bentoml.on_deployment
    @staticmethod
    def verify() -> None:
        """Refuse to start on a changed file, another base or a missing signature; runs once, before any worker."""
        try:
            model.verify(required_key())
        except (TunewrightError, RegistryError) as error:
            print(f"error: {error}", file=sys.stderr)
            raise SystemExit(error.exit_status) from error


service: Any = Endpoint
service.add_asgi_middleware(Passage, endpoint=app)
