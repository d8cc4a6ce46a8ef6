"""`tunewright serve` and `tunewright bundle` on a real registry with a tiny base and an adapter of it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from click.testing import CliRunner

from components.errors import InputError, VerdictError
from components.models.fingerprint import fingerprint, write_binding
from components.models.tiny import make_tiny
from flows.commands.bundle import command as bundle_command
from flows.commands.serve import command as serve_command
from registry.errors import RegistryNotFound, VersionNotFound
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry

ENTRY = [sys.executable, "-c", "from flows.cli import main; main()"]


def files_of(folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    import torch
    from peft import LoraConfig, get_peft_model

    from components.models.load import load_model

    folder = tmp_path_factory.mktemp("serve")
    base, adapter = make_tiny(folder / "base", seed=1), folder / "adapter"
    torch.manual_seed(0)
    settings = LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    get_peft_model(load_model(base), settings).save_pretrained(str(adapter))
    (adapter / "README.md").unlink(missing_ok=True)
    prints = fingerprint(base)
    write_binding(adapter, prints)
    common = {
        "base_fingerprint": prints.base,
        "tokenizer_digest": prints.tokenizer,
        "template_digest": prints.template,
    }
    with Registry.open(folder / "state" / "registry") as registry:
        files = files_of(base)
        found = registry.register("tiny-base", Manifest(kind="base", files=describe_files(files), **common), files)
        files = files_of(adapter)
        parents = (Parent(found.digest, "base"),)
        metadata = {"max_new_tokens": 3}
        manifest = Manifest(kind="adapter", files=describe_files(files), parents=parents, metadata=metadata, **common)
        proven = registry.register("tiny", manifest, files)
        task = {"metric": "exact_match", "n": 200, "tuned": 0.5, "delta": 0.4, "low": 0.3, "high": 0.5}
        tax = [{"suite": "piqa", "low": -0.01}]
        registry.record_evaluation(proven.digest, {"task": task, "tax": tax})
        registry.register("unmeasured", replace(manifest, seed=3), files)
    return folder / "state"


def run(command: Any, *arguments: object, **environment: str | None) -> Any:
    outcome = CliRunner().invoke(command, [str(a) for a in arguments], env=environment, catch_exceptions=True)
    return outcome.exception


def test_unknown_version_is_not_found(home: Path) -> None:
    for command in (serve_command, bundle_command):
        arguments = ("nothing", "--home", home, *(("--port", 0) if command is serve_command else ()))
        error = run(command, *arguments)
        assert isinstance(error, VersionNotFound)
        assert error.exit_status == 4


def test_a_version_that_nothing_was_measured_of_is_refused(home: Path) -> None:
    for command in (serve_command, bundle_command):
        arguments = ("unmeasured", "--home", home, *(("--port", 0) if command is serve_command else ()))
        error = run(command, *arguments)
        assert isinstance(error, VerdictError)
        assert error.exit_status == 3
        assert "no evaluation" in str(error)
        assert "--unproven" in str(error)


def test_folder_without_a_registry_is_not_found_and_stays_empty(tmp_path: Path) -> None:
    assert isinstance(run(bundle_command, "tiny", "--home", tmp_path), RegistryNotFound)
    assert list(tmp_path.iterdir()) == []


def test_port_in_use_is_refused_before_anything_is_loaded(home: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = run(serve_command, "tiny", "--home", home, "--port", port)
    assert isinstance(error, InputError)
    assert f"port {port}" in str(error)
    assert error.exit_status == 2


def test_reachable_host_without_a_token_is_refused(home: Path) -> None:
    error = run(serve_command, "tiny", "--home", home, "--host", "0.0.0.0", "--port", 0, TUNEWRIGHT_TOKEN=None)
    assert isinstance(error, InputError)
    assert "token" in str(error)


def test_named_token_variable_must_be_set(home: Path) -> None:
    error = run(serve_command, "tiny", "--home", home, "--token-env", "NO_SUCH_TOKEN")
    assert isinstance(error, InputError)
    assert "NO_SUCH_TOKEN" in str(error)
    error = run(serve_command, "tiny", "--home", home, "--token-env", "")
    assert isinstance(error, InputError)
    assert "--token-env names no variable" in str(error)


@contextmanager
def serving(
    home: Path, *options: str, token: str = "", ref: str = "tiny"
) -> Iterator[tuple[subprocess.Popen[str], dict[str, Any]]]:
    command = [*ENTRY, "serve", ref, "--home", str(home), "--port", "0", "--json", *options]
    environment = {**os.environ, "TUNEWRIGHT_TOKEN": token}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    try:
        yield process, json.loads(process.stdout.readline())
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


@pytest.mark.integration
@pytest.mark.parametrize("engine", ["plain", "bento"])
def test_served_version_answers_and_ends_on_termination(home: Path, engine: str) -> None:
    with Registry.open(home / "registry") as registry:
        ref = registry.resolve("tiny").digest[:14]
    with serving(home, "--engine", engine, token="a-test-token", ref=ref) as (process, document):
        assert document["version"] == "tiny:v1"
        assert document["engine"] == engine
        assert document["canary"]["passed"] is True
        assert document["model_names"] == ["tiny", "tiny:v1", document["digest"], ref]
        client = openai.OpenAI(base_url=document["base_url"], api_key="a-test-token", max_retries=0)
        messages: Any = [{"role": "user", "content": "How many?"}]
        stream = client.chat.completions.create(model="tiny", messages=messages, max_tokens=5, stream=True)
        assert stream.response.headers["x-model-digest"] == document["digest"]
        assert [chunk.choices[0].finish_reason for chunk in stream][-1] in ("length", "stop")
        # the version's own limit where the request names none
        whole = client.chat.completions.create(model=ref, messages=messages)
        assert whole.usage is not None
        assert whole.usage.completion_tokens <= document["default_max_tokens"] == 3
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{document['url']}/livez")


@pytest.mark.integration
def test_bento_server_ends_when_its_starter_is_killed(home: Path) -> None:
    import time

    with serving(home, "--engine", "bento") as (process, document):
        process.kill()
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                httpx.get(f"{document['url']}/livez")
            except httpx.TransportError:
                return
            time.sleep(0.2)
    pytest.fail("the server outlived its starter")


@pytest.mark.integration
def test_bundling_again_finds_the_bundle(home: Path) -> None:
    def bundle() -> dict[str, Any]:
        outcome = CliRunner().invoke(bundle_command, ["tiny:v1", "--home", str(home), "--json"])
        assert outcome.exit_code == 0, outcome.output
        document: dict[str, Any] = json.loads(outcome.stdout)
        return document

    first = bundle()
    second = bundle()
    assert second["reused"] is True
    assert (first["tag"], first["path"], first["bytes"]) == (second["tag"], second["path"], second["bytes"])
    assert Path(first["path"]).is_dir()
