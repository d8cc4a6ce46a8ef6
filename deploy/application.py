"""A staged folder behind the endpoint: what the plain server and the BentoML service both run."""

from __future__ import annotations

import importlib
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.canary import check_canary
from deploy.engines.head_engine import HeadEngine
from deploy.engines.threads import settle_threads
from deploy.engines.torch_engine import TorchEngine
from deploy.model import ServedModel

if TYPE_CHECKING:
    from fastapi import FastAPI

    from deploy.engines.engine import Engine

__all__ = ["REF_VARIABLE", "TOKEN_VARIABLE", "make_app", "make_engine"]

TOKEN_VARIABLE = "TUNEWRIGHT_TOKEN"
# the REF that a bundle is served by, for its server's process
REF_VARIABLE = "TUNEWRIGHT_SERVED_REF"


def make_engine(model: ServedModel, public_key: Path | None = None) -> TorchEngine:
    """Return an engine that verifies and loads the folder, and is ready once the canary has passed.

    Args:
        model: The staged model.
        public_key: The key that must have signed it.
    """

    seconds: dict[str, float] = {}

    def load() -> tuple[Any, Any]:
        started = time.perf_counter()
        # hashing and importing the frameworks each take seconds, and hashing holds no interpreter lock
        with ThreadPoolExecutor(1) as pool:
            verified = pool.submit(model.verify, public_key)
            importlib.import_module("transformers.modeling_utils")
            verified.result()
        seconds["verify"] = round(time.perf_counter() - started, 3)
        started = time.perf_counter()
        loaded = model.load()
        seconds["load"] = round(time.perf_counter() - started, 3)
        return loaded

    def accept(engine: TorchEngine) -> dict[str, Any]:
        from components.data.chat import prompt_ids

        found: dict[str, Any] = {}

        def ask() -> None:
            encode = partial(prompt_ids, engine.tokenizer)
            found.update(check_canary(model.canary, encode, engine.continue_greedily))

        # the probe is a fair piece of work to time; it has to be answered rightly with every number of threads tried
        started = time.perf_counter()
        threads = settle_threads(ask)
        seconds["canary"] = round(time.perf_counter() - started, 3)
        return {**found, "threads": threads, "seconds": seconds}

    kind = HeadEngine if model.has_head else TorchEngine
    return kind(load, accept=accept)


def make_app(
    model: ServedModel,
    token: str | None,
    engine: Engine | None = None,
    *,
    other_names: Sequence[str] = (),
    public_key: Path | None = None,
) -> FastAPI:
    """Return the endpoint of a staged model.

    Args:
        model: The staged model.
        token: Bearer token of clients; None answers clients on this machine only.
        engine: What generates; `make_engine(model, public_key)` when not given.
        other_names: What clients may name the model by besides its name, its version and its digest.
        public_key: The key that must have signed it.
    """
    from deploy.openai_api.app import create_app

    return create_app(
        engine or make_engine(model, public_key),
        model_name=model.name,
        digest=model.digest,
        token=token,
        other_names=(model.label, *other_names),
        created=model.created,
        default_max_tokens=model.max_new_tokens,
    )
