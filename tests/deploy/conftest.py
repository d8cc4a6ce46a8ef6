from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from components.models.tiny import make_tiny

DIGEST = "d1" * 32


def make_sharp(folder: Path, seed: int) -> Path:
    """A tiny model with large weights in its layers: as initialised it only repeats one token."""
    from safetensors.torch import load_file, save_file

    make_tiny(folder, seed=seed)
    weights = load_file(folder / "model.safetensors")
    for name, value in weights.items():
        if "proj" in name:
            value *= 12
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sharp(tmp_path_factory.mktemp("base") / "tiny", seed=3)


@pytest.fixture(scope="session")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another base with the same shapes and the same tokenizer."""
    return make_sharp(tmp_path_factory.mktemp("base") / "other", seed=4)


@pytest.fixture(scope="session")
def loaded(tiny_folder: Path) -> tuple[Any, Any]:
    from components.models.load import load_model, load_tokenizer

    return load_model(tiny_folder), load_tokenizer(tiny_folder)


@pytest.fixture(scope="session")
def engine(loaded: tuple[Any, Any]) -> Iterator[Any]:
    from deploy.engines.torch_engine import TorchEngine

    made = TorchEngine(lambda: loaded, slots=4, waiting_limit=8)
    made.start()
    assert made.wait_until_loaded().state == "ready"
    yield made
    made.close()


ClientFactory = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def client_of() -> ClientFactory:
    """Talk to an app in process; `client=` sets the address that requests seem to come from."""

    @asynccontextmanager
    async def open_client(app: Any, client: tuple[str, int] = ("127.0.0.1", 5000)) -> AsyncIterator[httpx.AsyncClient]:
        transport = httpx.ASGITransport(app, client=client, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as opened:
            yield opened

    return open_client


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.01)
