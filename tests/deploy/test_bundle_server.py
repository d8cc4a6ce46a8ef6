"""A real bundle behind a real BentoML server, asked by the real openai client."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest

from components.data.rows import Message
from components.errors import ConflictError, VerdictError
from components.evaluation.generation import generate
from components.models.fingerprint import fingerprint
from deploy.bundle import Bundle, build_bundle
from deploy.from_registry import VersionFiles
from deploy.model import DESCRIPTION_FILE
from deploy.serving import RunningServer, serve_bundle
from deploy.staging import stage_model

pytestmark = pytest.mark.integration

DIGEST = "ab" * 32
QUESTION = "How many singers are there?"
TOKEN = "a-token-for-this-test"


def bundle_of(home: Path, folder: Path) -> Bundle:
    prints = fingerprint(folder)
    manifest = {
        "base_fingerprint": prints.base,
        "tokenizer_digest": prints.tokenizer,
        "template_digest": prints.template,
    }
    files = VersionFiles("Tiny SQL", 3, DIGEST, folder, None, manifest)
    model = stage_model(files, out_home=home, canary_messages=[Message("user", QUESTION)])
    return build_bundle(model, out_home=home)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # a hidden folder, as the default state folder is
    return tmp_path_factory.mktemp("state") / ".tunewright"


@pytest.fixture(scope="module")
def bundle(home: Path, tiny_folder: Path) -> Bundle:
    return bundle_of(home, tiny_folder)


@pytest.fixture(scope="module")
def server(bundle: Bundle) -> Iterator[RunningServer]:
    with serve_bundle(bundle.path, token=TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.base_url, api_key=TOKEN, max_retries=0)


def test_bundle_holds_code_model_and_pins_and_is_made_once(bundle: Bundle, home: Path, tiny_folder: Path) -> None:
    assert bundle.tag.startswith("tiny-sql:v3-abababababab-")
    assert bundle.path.parents[3] == home
    assert (bundle.path / "src/deploy/service.py").is_file()
    assert (bundle.path / "src/model/base/model.safetensors").samefile(tiny_folder / "model.safetensors")
    assert "torch==" in (bundle.path / "env/python/requirements.txt").read_text()
    again = bundle_of(home, tiny_folder)
    assert (again.path, again.reused, bundle.reused) == (bundle.path, True, False)
    assert again.bytes == bundle.bytes
    assert [entry.name for entry in home.iterdir() if entry.name.startswith(".bundle-")] == []


def test_ready_server_names_digest_and_canary(server: RunningServer) -> None:
    assert server.ready["digest"] == DIGEST
    assert server.ready["canary"]["passed"] is True


def test_code_comes_from_the_bundle(server: RunningServer, bundle: Bundle) -> None:
    workers = psutil.Process(server.pid).children(recursive=True)
    assert any(Path(worker.cwd()) == bundle.path / "src" for worker in workers)
    opened = {entry.path for worker in workers for entry in worker.memory_maps(grouped=True)}
    assert any(path.endswith("libtorch_cpu.so") for path in opened)


def test_openai_client_gets_the_evaluated_answer_whole_and_streamed(client: openai.OpenAI, loaded: Any) -> None:
    expected = generate(*loaded, [[Message("user", QUESTION)]], max_new_tokens=20)[0]
    messages: Any = [{"role": "user", "content": QUESTION}]
    whole = client.chat.completions.create(model="Tiny SQL", messages=messages, max_tokens=20)
    assert whole.choices[0].message.content == expected.text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == expected.completion_tokens
    stream = client.chat.completions.create(
        model="Tiny SQL", messages=messages, max_tokens=20, stream=True, stream_options={"include_usage": True}
    )
    assert stream.response.headers["x-model-digest"] == DIGEST
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected.text
    assert chunks[-1].usage == whole.usage
    assert len(chunks) > 5


def test_openai_client_understands_the_errors(client: openai.OpenAI, server: RunningServer) -> None:
    messages: Any = [{"role": "user", "content": QUESTION}]
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="other", messages=messages)
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError) as long:
        client.chat.completions.create(model="Tiny SQL", messages=messages, max_tokens=5000)
    assert long.value.code == "context_length_exceeded"
    stranger = openai.OpenAI(base_url=server.base_url, api_key="wrong", max_retries=0)
    with pytest.raises(openai.AuthenticationError) as refused:
        stranger.models.list()
    assert refused.value.code == "invalid_api_key"
    assert [model.id for model in client.models.list()] == ["Tiny SQL"]


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/healthz", "/metrics", "/", "/schema.json", "/docs.json", "/x"])
def test_bento_answers_nothing_past_the_endpoint(server: RunningServer, path: str) -> None:
    answer = httpx.get(server.url + path, headers={"authorization": f"Bearer {TOKEN}"})
    assert answer.headers["x-model-digest"] == DIGEST
    assert answer.status_code == (200 if path in ("/livez", "/readyz", "/metrics") else 404)


def test_client_that_leaves_stops_its_generation(server: RunningServer) -> None:
    headers = {"authorization": f"Bearer {TOKEN}"}
    body = {
        "model": "Tiny SQL",
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
        "temperature": 2,
        "seed": 1,
        "max_tokens": 900,
    }
    before = metric(server, "tunewright_disconnects_total")
    with httpx.stream("POST", f"{server.base_url}/chat/completions", json=body, headers=headers) as answer:
        for number, _ in enumerate(answer.iter_lines()):
            if number > 4:
                break
    deadline = time.monotonic() + 10
    while metric(server, "tunewright_engine_running") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert metric(server, "tunewright_engine_running") == 0
    assert metric(server, "tunewright_disconnects_total") == before + 1


def metric(server: RunningServer, name: str) -> float:
    text = httpx.get(f"{server.url}/metrics", headers={"authorization": f"Bearer {TOKEN}"}).text
    return float(next(line for line in text.splitlines() if line.startswith(name)).split()[-1])


def test_token_is_in_no_command_line_and_no_log(server: RunningServer) -> None:
    family = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    assert not any(TOKEN in part for process in family for part in process.cmdline())
    assert TOKEN not in server.log.read_text()


def copy_of(bundle: Bundle, target: Path) -> Path:
    from deploy.staging import link_tree

    folder = target / "bentos" / "tiny" / "v1"
    link_tree(bundle.path, folder)
    return folder


def rewrite(path: Path, content: bytes) -> None:
    path.unlink()  # it is a link to the original
    path.write_bytes(content)


def test_stopping_leaves_no_process_and_the_port_is_free(bundle: Bundle) -> None:
    with serve_bundle(bundle.path) as running:
        family = [psutil.Process(running.pid), *psutil.Process(running.pid).children(recursive=True)]
        port = running.port
        assert len(family) >= 2
    assert not any(process.is_running() for process in family)
    with serve_bundle_port(port):
        pass


def serve_bundle_port(port: int) -> Any:
    import contextlib
    import socket

    taken = socket.socket()
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    taken.bind(("127.0.0.1", port))
    return contextlib.closing(taken)


def test_wrong_base_is_refused_before_anything_listens(bundle: Bundle, other_folder: Path, tmp_path: Path) -> None:
    folder = copy_of(bundle, tmp_path)
    rewrite(folder / "src/model/base/model.safetensors", (other_folder / "model.safetensors").read_bytes())
    wanted = r"model\.safetensors is not what was bundled"
    with pytest.raises(ConflictError, match=wanted) as refusal, serve_bundle(folder):
        pass
    assert refusal.value.exit_status == 4


def test_canary_that_fails_keeps_the_server_from_becoming_ready(bundle: Bundle, tmp_path: Path) -> None:
    folder = copy_of(bundle, tmp_path)
    path = folder / "src/model" / DESCRIPTION_FILE
    document = json.loads(path.read_text())
    document["canary"]["tokens"][1] += 1
    rewrite(path, json.dumps(document).encode())
    with pytest.raises(VerdictError, match="differs from the recorded one at token 2"), serve_bundle(folder):
        pass


def test_log_end_is_shown_when_the_server_can_not_start(bundle: Bundle, tmp_path: Path) -> None:
    folder = copy_of(bundle, tmp_path)
    rewrite(folder / "src/deploy/service.py", b"raise RuntimeError('cannot begin')\n")
    with pytest.raises(Exception, match="cannot begin"), serve_bundle(folder):
        pass
    assert os.environ.get("TUNEWRIGHT_TOKEN") is None
