"""Which files may enter: judged by content, not by name."""

from __future__ import annotations

import io
import json
import pickle
import struct
import zipfile
from typing import Any

import pytest

from registry.errors import FileRefused
from registry.scan import scan


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


def _scan(path: str, content: bytes) -> None:
    scan(path, io.BytesIO(content), len(content))


def _tensors(header: object, data: bytes = b"1234") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


GOOD = {"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


def _zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("data.pkl", pickle.dumps(_Evil()))
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("model.safetensors", _tensors(GOOD)),
        ("model.safetensors", _tensors({"__metadata__": {"format": "pt"}, **GOOD})),
        ("empty.safetensors", _tensors({}, b"")),
        ("config.json", b'{"a": [1, {"b": 2}]}'),
        ("README.md", "cost\ncomputing\nis § fine.".encode()),
        ("merges.txt", b"c a\nb d\n."),
        ("chat_template.jinja", b"{% for m in messages %}{{ m.content }}{% endfor %}"),
        ("LICENSE", b"Apache License"),
        ("tokenizer.model", b"\x0a\x0e\x0a\x05<unk>"),
    ],
)
def test_ordinary_model_file_is_let_in(path: str, content: bytes) -> None:
    _scan(path, content)


TEXT_NAMES = ["config.json", "notes.txt", "weights.safetensors"]


@pytest.mark.parametrize(
    ("path", "protocol"),
    [(path, protocol) for path in [*TEXT_NAMES, "a.model"] for protocol in range(6)],
)
def test_pickle_is_refused_under_any_name(path: str, protocol: int) -> None:
    with pytest.raises(FileRefused):
        _scan(path, pickle.dumps(_Evil(), protocol))


@pytest.mark.parametrize(
    "path", ["model.bin", "model.pt", "code.py", "model.gguf", "x.pkl", "x", "x.json.exe", "a/b.so"]
)
def test_suffix_that_is_not_listed_is_refused(path: str) -> None:
    with pytest.raises(FileRefused, match="suffix"):
        _scan(path, b"{}")


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("x.json", _zip()),
        ("x.model", _zip()),
        ("x.txt", b"\x93NUMPY\x01"),
        ("x.model", b"\x7fELF\x02"),
        ("x.txt", b"\xff\xfe\x00"),
        ("x.txt", b"a\0b"),
        ("x.json", b"{"),
        ("x.json", b"[" * 100_000),
        ("config.json", b'{"auto_map": {"AutoModel": "evil.Model"}}'),
        ("config.json", b'{"a": [{"b": {"auto_map": 1}}]}'),
    ],
)
def test_file_that_is_not_what_it_says_is_refused(path: str, content: bytes) -> None:
    with pytest.raises(FileRefused):
        _scan(path, content)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        struct.pack("<Q", 2**63) + b"{}",
        _tensors(b"not json"),
        _tensors([]),
        _tensors(GOOD, b"12345"),
        _tensors(GOOD, b"123"),
        _tensors({"w": {**GOOD["w"], "shape": [2]}}),
        _tensors({"w": {**GOOD["w"], "shape": [-1]}}),
        _tensors({"w": {**GOOD["w"], "dtype": "PICKLE"}}),
        _tensors({"w": {**GOOD["w"], "data_offsets": [4, 0]}}),
        _tensors({"w": GOOD["w"], "v": GOOD["w"]}),
        _tensors({"w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}, b"12345678"),
    ],
)
def test_safetensors_header_that_lies_is_refused(content: bytes) -> None:
    with pytest.raises(FileRefused):
        _scan("model.safetensors", content)
