"""From a name to a folder: catalogue, folder, GGUF file, hub."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from transformers import AutoConfig

from components.errors import InputError, TunewrightError
from components.files import sha256_file
from components.models import sources
from components.models.fingerprint import fingerprint
from components.models.load import load_model, load_tokenizer
from components.models.sources import CATALOGUE, locate_base
from components.models.tiny import make_tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("bases") / "tiny")


def test_a_folder_is_checked_and_named(base: Path, tmp_path: Path) -> None:
    found = locate_base(str(base), tmp_path)
    assert (found.folder, found.origin) == (base, "local folder")


def test_a_base_whose_fingerprint_is_of_other_files_than_are_loaded_is_refused(base: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(base, tmp_path / "base"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.1.0.0.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    (folder / "config.json").write_text(json.dumps({**config, "configuration_files": ["config.1.0.0.json"]}))
    assert AutoConfig.from_pretrained(folder).rms_norm_eps == 0.5  # what transformers would take
    ways: tuple[Callable[[], object], ...] = (
        lambda: locate_base(str(folder), tmp_path),
        lambda: sources.config_folder(str(folder)),
        lambda: load_model(folder),
        lambda: load_tokenizer(folder),
    )
    for way in ways:
        with pytest.raises(InputError, match="configuration_files"):
            way()


@pytest.mark.parametrize("name", ["no-such-base", "/no/such/folder", "too/many/parts", "../up"])
def test_an_unknown_base_is_refused_with_the_catalogue(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown base") as caught:
        locate_base(name, tmp_path)
    assert "smollm2-135m-instruct" in str(caught.value)
    assert "--base" in str(caught.value)


def test_a_folder_that_is_no_model_is_told_as_that(tmp_path: Path) -> None:
    (tmp_path / "tool.lock").write_text("")
    with pytest.raises(InputError, match=r"has no config\.json.*\n.*\n.*name the folder that the base lies in"):
        locate_base(str(tmp_path), tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(InputError, match="it holds an adapter: name its base"):
        locate_base(str(tmp_path), tmp_path)


def test_a_cache_that_cant_be_written_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write the cache"):
        locate_base("smollm2-135m-instruct", tmp_path / "file")


def converting(base: Path, calls: list[Path]) -> object:
    """Stand in for the GGUF reader: the parts round it (lock, rename, record) are what is tested here."""
    import shutil

    def convert(source: Path, folder: Path) -> Path:
        calls.append(source)
        shutil.copytree(base, folder, dirs_exist_ok=True)
        return folder

    return convert


def test_a_file_is_converted_once_even_for_many_that_ask_at_once(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Path] = []
    monkeypatch.setattr(sources, "convert_gguf", converting(base, calls))
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    found: list[Path] = []
    askers = [
        threading.Thread(target=lambda: found.append(locate_base(str(file), tmp_path / "cache").folder))
        for _ in range(4)
    ]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert len(calls) == 1
    assert len(set(found)) == 1
    assert len(found) == 4
    assert not list((tmp_path / "cache" / "models").glob("*.partial"))


def test_a_conversion_that_fails_leaves_nothing_that_looks_whole(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")

    def fail(source: Path, folder: Path) -> Path:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("killed")

    monkeypatch.setattr(sources, "convert_gguf", fail)
    with pytest.raises(RuntimeError, match="killed"):
        locate_base(str(file), tmp_path / "cache")
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir() if not path.name.startswith(".")] == []
    calls: list[Path] = []
    monkeypatch.setattr(sources, "convert_gguf", converting(base, calls))
    assert (locate_base(str(file), tmp_path / "cache").folder / "model.safetensors").is_file()


def test_a_cached_base_that_changed_is_refused(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "convert_gguf", converting(base, []))
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    folder = locate_base(str(file), tmp_path / "cache").folder
    (folder / "chat_template.jinja").write_text("changed")
    with pytest.raises(TunewrightError, match="has changed since it was fetched"):
        locate_base(str(file), tmp_path / "cache")


def test_a_gguf_file_that_isnt_one_is_an_input_error(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF but not really")
    with pytest.raises(InputError, match="not a GGUF model"):
        locate_base(str(file), tmp_path / "cache")


class Hub(BaseHTTPRequestHandler):
    """The part of a hub's interface that a snapshot download uses."""

    folder: Path
    gets: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self.gets.append(self.path)
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        if self.path.startswith("/api/models/org/tiny/tree/"):
            listing = [
                {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": sha256_file(path)}
                for path in sorted(self.folder.iterdir())
            ]
            self._send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"}, body)
            return
        if self.path.startswith("/api/models/org/tiny"):
            names = [{"rfilename": path.name} for path in sorted(self.folder.iterdir())]
            document = {
                "id": "org/tiny",
                "sha": COMMIT,
                "siblings": names,
                "cardData": {"license": "mit"},
                "private": False,
            }
            self._send(200, json.dumps(document).encode(), {"Content-Type": "application/json"}, body)
            return
        prefix = f"/org/tiny/resolve/{COMMIT}/"
        path = self.folder / self.path.removeprefix(prefix)
        if self.path.startswith(prefix) and path.is_file():
            headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{sha256_file(path)}"'}
            self._send(200, path.read_bytes(), headers, body)
        else:
            self._send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)

    def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def hub(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    import shutil

    Hub.folder = Path(shutil.copytree(base, tmp_path / "on-the-hub"))
    Hub.gets = []
    (Hub.folder / "pytorch_model.bin").write_bytes(b"\x80\x02pickle")
    (Hub.folder / "modeling.py").write_text("raise SystemExit")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    yield server
    server.shutdown()
    server.server_close()


def test_a_hub_base_brings_its_weights_and_leaves_pickles_and_code(
    hub: ThreadingHTTPServer, base: Path, tmp_path: Path
) -> None:
    found = locate_base("org/tiny", tmp_path / "cache")
    assert (found.licence, found.origin) == ("mit", f"hub org/tiny at {COMMIT}")
    names = {path.name for path in found.folder.iterdir()}
    assert {"model.safetensors", "config.json", "tokenizer.json", "chat_template.jinja"} <= names
    assert not names & {"pytorch_model.bin", "modeling.py", ".cache"}
    assert fingerprint(found.folder) == fingerprint(base)
    assert not [path for path in Hub.gets if path.endswith((".bin", ".py"))]
    files = [path for path in Hub.gets if "/resolve/" in path]
    assert locate_base("org/tiny", tmp_path / "cache").folder == found.folder
    assert [path for path in Hub.gets if "/resolve/" in path] == files


def test_a_hub_base_once_fetched_needs_no_network(
    hub: ThreadingHTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = locate_base("org/tiny", tmp_path / "cache")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert locate_base("org/tiny", tmp_path / "cache") == first
    with pytest.raises(TunewrightError, match="hub can't be reached"):
        locate_base("org/other", tmp_path / "cache")


def test_a_hub_id_that_doesnt_exist_is_an_input_error(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the hub has no model"):
        locate_base("org/other", tmp_path / "cache")


@pytest.mark.real
def test_the_catalogue_base_answers_and_has_its_own_pad_token() -> None:
    import torch

    found = locate_base("smollm2-135m-instruct")
    assert found.licence == "Apache-2.0" == CATALOGUE["smollm2-135m-instruct"].licence
    tokenizer, model = load_tokenizer(found.folder), load_model(found.folder)
    assert (tokenizer.eos_token, tokenizer.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert tokenizer.tokenize("foo  12") == ["foo", "ĠĠ", "1", "2"]
    embeddings = model.get_input_embeddings().weight.data_ptr(), model.get_output_embeddings().weight.data_ptr()
    assert embeddings[0] == embeddings[1]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France?"}], add_generation_prompt=True, tokenize=False
    )
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    answer = model.generate(input_ids=ids, max_new_tokens=12, do_sample=False)[0, ids.shape[1] :]
    assert "Paris" in tokenizer.decode(answer)
