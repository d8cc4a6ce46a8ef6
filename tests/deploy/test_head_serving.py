"""A head behind the endpoint: answers as measured, the same canary, the contract of a model that writes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BloomConfig

from components.data.chat import prompt_ids
from components.data.rows import Message
from components.errors import InputError
from components.evaluation.generation import generate
from components.models.fingerprint import fingerprint, write_binding
from components.models.head import Head, HeadConfig, HeadedModel, build_network, save_head
from components.models.load import load_as_served
from components.models.tiny import make_tiny
from deploy.application import make_engine
from deploy.canary import CanaryFailedError, check_canary, record_canary
from deploy.engines.engine import EngineFailureError, Generation
from deploy.engines.head_engine import HeadEngine
from deploy.from_registry import VersionFiles
from deploy.openai_api.app import create_app
from deploy.staging import stage_model
from tests.deploy.conftest import DIGEST, ClientFactory

QUESTIONS = ("age", "How many singers?", "SELECT name FROM stadium " * 9, "x", "What is the oldest?", "1 2 3", "no")


def make_head(folder: Path, base: Path, task: str = "classification", **changes: Any) -> Path:
    """A head with large random weights: it answers differently from prompt to prompt."""
    labels = ("SELECT", "no", "quick brown fox") if task == "classification" else ()
    values: dict[str, Any] = {
        "task": task, "labels": labels, "decimals": 2, "target_mean": 1.0, "target_scale": 2.0, "pooling": "mean",
        "layer": 1, "width": 0, "features": 64,
    }  # fmt: skip
    config = HeadConfig(**{**values, **changes})
    generator = torch.Generator().manual_seed(5)
    network = build_network(config, generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.normal_(generator=generator)
    save_head(Head(config, network, torch.zeros(64), torch.ones(64)), folder)
    write_binding(folder, fingerprint(base))
    return folder


@pytest.fixture(scope="module", params=["classification", "regression"])
def head_folder(request: Any, tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_head(tmp_path_factory.mktemp("head") / "head", tiny_folder, request.param)


@pytest.fixture(scope="module")
def headed(tiny_folder: Path, head_folder: Path) -> tuple[HeadedModel, Any]:
    model, tokenizer = load_as_served(tiny_folder, adapter=head_folder, quantization=None)
    return model, tokenizer


@pytest.fixture
def engine(headed: tuple[HeadedModel, Any]) -> Any:
    made = HeadEngine(lambda: headed, slots=4, waiting_limit=8)
    made.start()
    assert made.wait_until_loaded().state == "ready"
    yield made
    made.close()


def read_all(engine: HeadEngine, requests: Sequence[Generation]) -> list[tuple[str, int, str | None]]:
    async def read(request: Generation) -> tuple[str, int, str | None]:
        pieces = [delta async for delta in engine.submit(request)]
        return "".join(piece.text for piece in pieces), pieces[-1].tokens, pieces[-1].finish_reason

    async def together() -> list[tuple[str, int, str | None]]:
        return list(await asyncio.gather(*map(read, requests)))

    return asyncio.run(asyncio.wait_for(together(), 60))


def test_the_endpoint_answers_what_was_measured(engine: HeadEngine, headed: tuple[HeadedModel, Any]) -> None:
    model, tokenizer = headed
    prompts = [[Message("user", question)] for question in QUESTIONS]
    measured = generate(model, tokenizer, prompts, max_new_tokens=16)
    found = read_all(engine, [Generation(tuple(prompt_ids(tokenizer, prompt)), 16) for prompt in prompts])
    assert found == [(one.text, one.completion_tokens, "stop") for one in measured]
    assert len({text for text, _, _ in found}) > 1
    # the last answers are out before they leave their slots
    deadline = time.monotonic() + 10
    while engine.status().running and time.monotonic() < deadline:
        time.sleep(0.01)
    assert engine.status().running == engine.status().waiting == 0


@pytest.mark.parametrize("names_the_scaled_length", [True, False])
def test_a_scaled_bases_positions_are_those_of_its_scaling(tmp_path: Path, names_the_scaled_length: bool) -> None:
    base = make_tiny(tmp_path / "scaled", positions=64)
    config = json.loads((base / "config.json").read_text())
    # both forms are published: YaRN with the scaled length, or with the original one
    config["max_position_embeddings"] = 128 if names_the_scaled_length else 64
    config["rope_parameters"] |= {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 64}
    (base / "config.json").write_text(json.dumps(config))
    model, tokenizer = load_as_served(base, adapter=make_head(tmp_path / "head", base), quantization=None)
    prompt = [Message("user", "singer " * 70)]
    assert 64 < len(prompt_ids(tokenizer, prompt)) < 128
    (measured,) = generate(model, tokenizer, [prompt], max_new_tokens=16)
    engine = HeadEngine(lambda: (model, tokenizer), slots=1, waiting_limit=2)
    engine.start()
    assert engine.wait_until_loaded().state == "ready"
    assert engine.context_tokens() == 128
    assert read_all(engine, [Generation(tuple(prompt_ids(tokenizer, prompt)), 16)])[0][0] == measured.text
    engine.close()
    with pytest.raises(InputError, match="the base has 128 positions"):
        generate(model, tokenizer, [[Message("user", "singer " * 140)]], max_new_tokens=16)


def test_a_base_that_names_no_positions_is_refused(headed: tuple[HeadedModel, Any]) -> None:
    config, tokenizer = BloomConfig(), headed[1]
    nameless = SimpleNamespace(base=SimpleNamespace(config=config), config=config)
    engine = HeadEngine(lambda: (nameless, tokenizer), slots=1, waiting_limit=2)
    engine.start()
    status = engine.wait_until_loaded()
    assert (status.state, "doesn't say how many positions" in status.reason) == ("failed", True)
    engine.close()


def test_an_answer_is_cut_at_the_requests_length_and_stop_texts(
    engine: HeadEngine, headed: tuple[HeadedModel, Any]
) -> None:
    tokenizer = headed[1]
    prompt = tuple(prompt_ids(tokenizer, [Message("user", QUESTIONS[1])]))
    ((whole, tokens, _),) = read_all(engine, [Generation(prompt, 16)])
    ((cut, one, reason),) = read_all(engine, [Generation(prompt, 1)])
    assert (one, reason) == (1, "length")
    assert tokens > 2
    assert whole.startswith(cut)
    ((stopped, _, reason),) = read_all(engine, [Generation(prompt, 16, stop=(whole[1],))])
    assert (stopped, reason) == (whole[0], "stop")


def test_a_temperature_draws_classes_by_seed(tiny_folder: Path, tmp_path: Path) -> None:
    loaded = load_as_served(tiny_folder, adapter=make_head(tmp_path / "head", tiny_folder), quantization=None)
    engine = HeadEngine(lambda: loaded, waiting_limit=64)
    engine.start()
    engine.wait_until_loaded()
    prompt = tuple(prompt_ids(loaded[1], [Message("user", "x")]))
    hot = [Generation(prompt, 16, temperature=2.0, seed=seed) for seed in range(30)]
    try:
        drawn = [text for text, _, _ in read_all(engine, [replace(one, temperature=1e3) for one in hot])]
        again = [text for text, _, _ in read_all(engine, [replace(one, temperature=1e3) for one in hot])]
    finally:
        engine.close()
    assert drawn == again
    assert len(set(drawn)) == 3


def test_a_head_that_breaks_fails_its_requests_and_no_others(headed: tuple[HeadedModel, Any]) -> None:
    engine = HeadEngine(lambda: headed)
    engine.start()
    engine.wait_until_loaded()
    prompt = tuple(prompt_ids(headed[1], [Message("user", "x")]))
    try:
        with pytest.raises(EngineFailureError, match="could not be computed"):
            read_all(engine, [Generation((10**9,), 4)])
        assert read_all(engine, [Generation(prompt, 16)])[0][2] == "stop"
    finally:
        engine.close()


def test_the_canary_is_recorded_by_the_models_own_pass_and_holds(headed: tuple[HeadedModel, Any]) -> None:
    model, tokenizer = headed
    canary = record_canary(model, tokenizer)
    assert canary.compared >= 1
    answer = generate(model, tokenizer, [canary.messages], max_new_tokens=16)[0]
    assert canary.text == answer.text
    engine = HeadEngine(
        lambda: headed,
        accept=lambda made: check_canary(canary, partial(prompt_ids, made.tokenizer), made.continue_greedily),
    )
    engine.start()
    assert engine.wait_until_loaded().state == "ready"
    engine.close()


def test_a_head_with_other_weights_is_refused_by_the_canary(tiny_folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_as_served(tiny_folder, adapter=make_head(tmp_path / "head", tiny_folder), quantization=None)
    canary = record_canary(model, tokenizer)
    with torch.no_grad():
        for parameter in model.head.network.parameters():
            parameter.neg_()
    engine = HeadEngine(
        lambda: (model, tokenizer),
        accept=lambda made: check_canary(canary, partial(prompt_ids, made.tokenizer), made.continue_greedily),
    )
    engine.start()
    status = engine.wait_until_loaded()
    engine.close()
    assert status.state == "failed"
    assert "the canary's answer differs" in status.reason


def test_outputs_that_are_not_finite_fail_the_canary(tiny_folder: Path, tmp_path: Path) -> None:
    model, tokenizer = load_as_served(tiny_folder, adapter=make_head(tmp_path / "head", tiny_folder), quantization=None)
    model.head.mean.fill_(float("nan"))
    with pytest.raises(CanaryFailedError, match="not finite"):
        record_canary(model, tokenizer)


def test_a_staged_head_is_served_over_http(
    tiny_folder: Path, head_folder: Path, headed: tuple[HeadedModel, Any], tmp_path: Path, client_of: ClientFactory
) -> None:
    from components.files import sha256_file

    prints = fingerprint(tiny_folder)
    files = VersionFiles(
        "sentiment", 3, DIGEST, tiny_folder, head_folder,
        {
            "base_fingerprint": prints.base,
            "tokenizer_digest": prints.tokenizer,
            "template_digest": prints.template,
            "files": {path.name: {"sha256": sha256_file(path)} for path in head_folder.iterdir()},
            "metadata": {"max_new_tokens": 16},
        },
    )  # fmt: skip
    staged = stage_model(files, out_home=tmp_path)
    assert staged.has_head
    engine = make_engine(staged)
    assert isinstance(engine, HeadEngine)
    engine.start()
    assert engine.wait_until_loaded().state == "ready"
    app = create_app(engine, model_name="sentiment", digest=DIGEST, default_max_tokens=16)

    async def ask() -> Any:
        async with client_of(app) as client:
            body = {"model": "sentiment", "messages": [{"role": "user", "content": QUESTIONS[4]}]}
            return await client.post("/v1/chat/completions", json=body)

    answer = asyncio.run(ask())
    engine.close()
    measured = generate(*headed, [[Message("user", QUESTIONS[4])]], max_new_tokens=16)[0]
    assert answer.status_code == 200
    assert answer.headers["x-model-digest"] == DIGEST
    document = answer.json()
    assert document["choices"][0]["message"]["content"] == measured.text
    assert document["choices"][0]["finish_reason"] == "stop"
    assert document["usage"]["completion_tokens"] == measured.completion_tokens
