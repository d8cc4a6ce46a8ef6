"""A corpus of hostile folders: nothing of them is let in, and the error names what is wrong, all of it at once."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tempfile
import uuid
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest

from registry import folder_scan
from registry.errors import FileRefused, RegistryPathError
from registry.folder_scan import scan_folder
from registry.manifest import describe_files

# what a pickle that is loaded leaves behind
EXECUTED = Path(tempfile.gettempdir()) / f"executed-{uuid.uuid4().hex}"


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {EXECUTED}",)


def weights(**arrays: numpy.ndarray[Any, Any]) -> bytes:
    header: dict[str, Any] = {}
    data = b""
    for name, array in arrays.items():
        raw = array.tobytes()
        dtype = {"float32": "F32", "uint16": "BF16", "uint8": "F8_E4M3"}[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


ONES = numpy.ones((2, 3), dtype="float32")


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A folder as `save_pretrained` writes it, in two shards."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama", "auto_map": null}')
    (folder / "tokenizer.json").write_text('{"model": {"vocab": {"auto_map": 1}}}')
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages[0].content }}"}))
    (folder / "LICENSE").write_text("text")
    (folder / ".gitattributes").write_text("hidden")
    (folder / "model-1.safetensors").write_bytes(weights(a=ONES))
    (folder / "model-2.safetensors").write_bytes(weights(b=ONES, c=numpy.zeros(5, dtype="uint16")))
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_what_was_judged_is_what_is_returned(sound: Path) -> None:
    found = scan_folder(sound)
    names = {path.name: path for path in sound.iterdir() if not path.name.startswith(".")}
    assert dict(found.files) == describe_files(names)
    assert found.parameters == 6 + 6 + 5
    assert found.templates == ("tokenizer_config.json",)


def change_index(folder: Path, **entries: str | None) -> None:
    path = folder / "model.safetensors.index.json"
    mapped = json.loads(path.read_text())["weight_map"] | entries
    path.write_text(json.dumps({"weight_map": {k: v for k, v in mapped.items() if v is not None}}))


def put(name: str, content: bytes | str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)

    return change


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Evil()))
    return buffer.getvalue()


def link(name: str, target: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).symlink_to(target)


def outside_link(folder: Path) -> None:
    secret = folder.parent / "secret.json"
    secret.write_text("{}")
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(secret)


def pipe(folder: Path) -> None:
    os.mkfifo(folder / "config.yaml")


def capitals(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "CONFIG.JSON").write_text('{"auto_map": {"x": "y"}}')


def nested_folders(folder: Path) -> None:
    # a few more than may be: what removes temporary folders goes by recursion, too
    folder.joinpath(*"abcdefghijkl").mkdir(parents=True)


def grown(folder: Path) -> None:
    with (folder / "model-1.safetensors").open("ab") as stream:
        stream.write(b"\0" * 8)


def nan_at_the_end(folder: Path) -> None:
    values = numpy.ones(700_000, dtype="float32")
    values[-1] = numpy.nan
    (folder / "model-1.safetensors").write_bytes(weights(a=values))


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "pickle beside the weights": (put("pytorch_model.bin", pickle.dumps(_Evil())), "pytorch_model.bin.*suffix"),
    "pickle in a folder below": (put("original/consolidated.pth", zipped()), "original/consolidated.pth"),
    "pickle named as JSON": (put("extra.json", pickle.dumps(_Evil())), "extra.json.*pickle"),
    "pickle named as a vocabulary": (put("spiece.model", pickle.dumps(_Evil(), 4)), "spiece.model.*pickle"),
    "pickle of protocol 0": (put("notes.txt", pickle.dumps(_Evil(), 0)), "notes.txt.*pickle"),
    "pickle inside a zip": (put("spiece.model", zipped()), "spiece.model.*zip"),
    "zip behind other bytes": (put("spiece.model", b"\x0a\x03abc" + zipped()), "spiece.model.*zip"),
    "weights that are a pickle": (put("model-1.safetensors", pickle.dumps(_Evil())), "model-1.safetensors"),
    "code": (put("modeling_evil.py", "import os"), "modeling_evil.py"),
    "auto_map": (put("config.json", '{"auto_map": {"AutoModel": "modeling.Evil"}}'), "'auto_map'"),
    "auto_map of another file": (put("processor_config.json", '{"a": [{"auto_map": {"x": "y"}}]}'), "'auto_map'"),
    "auto_map in capitals of the name": (capitals, "CONFIG.JSON.*'auto_map'"),
    "auto_map by an escape": (put("config.json", '{"auto\\u005fmap": {"x": "y"}}'), "'auto_map'"),
    "trust_remote_code": (put("adapter_config.json", '{"trust_remote_code": true}'), "'trust_remote_code'"),
    "custom pipelines": (put("config.json", '{"custom_pipelines": {"x": {"impl": "a.B"}}}'), "'custom_pipelines'"),
    "link to a file": (outside_link, "config.json.*link"),
    "link to a folder": (link("more", "/etc"), "more.*link"),
    "hanging link": (link("x.json", "/nowhere"), "x.json.*link"),
    "pipe": (pipe, "config.yaml.*neither"),
    "line break in a name": (put("a\nb.json", "{}"), "can't be used"),
    "backslash in a name": (put("a\\b.json", "{}"), "can't be used"),
    "letters that look like others": (put("cοnfig.json", "{}"), "can't be used"),
    "two files where case is ignored": (put("Config.json", "{}"), "one file where case is ignored"),
    "shard outside": (lambda f: change_index(f, a="../x.safetensors"), "names the shard"),
    "shard that isn't there": (lambda f: change_index(f, a="model-3.safetensors"), "isn't there"),
    "tensor that isn't there": (lambda f: change_index(f, d="model-1.safetensors"), "puts there tensor 'd'"),
    "tensor that isn't named": (lambda f: change_index(f, c=None), "lacks tensor 'c'"),
    "weights that no index names": (put("more.safetensors", weights(z=ONES)), "doesn't name 'more.safetensors'"),
    "weights with bytes behind": (grown, "bytes of them"),
    "NaN in bfloat16": (
        put("model-2.safetensors", weights(b=ONES, c=numpy.array([1, 2, 3, 4, 0x7FC0], dtype="uint16"))),
        "NaN or infinite: tensor 'c', element 4",
    ),
    "infinity": (put("model-1.safetensors", weights(a=ONES * numpy.float32("-inf"))), "tensor 'a', element 0"),
    "NaN after a piece": (nan_at_the_end, "element 699999"),
    "template in capitals": (put("CHAT_TEMPLATE.JINJA", "{{ ''.__class__.__mro__ }}"), "CHAT_TEMPLATE.JINJA.*sandbox"),
    "template that leaves its sandbox": (
        put("chat_template.jinja", "{{ ''.__class__.__mro__ }}"), "chat_template.jinja.*sandbox"
    ),
    "one of several templates": (
        put("tokenizer_config.json", json.dumps({"chat_template": [{"name": "rag", "template": "{{ 'x' * 10**6 }}"}]})),
        "template 'rag'",
    ),
    "template in a folder below": (put("additional_chat_templates/a.jinja", "{% if %}"), "not valid Jinja"),
    "folders without end": (nested_folders, "'a/b/c/d/e/f/g/h' lies deeper"),
    "a template of megabytes": (
        put("chat_template.jinja", "{% " + "a" * 1_100_000 + " %}"), "chat_template.jinja.*1100006 bytes"
    ),
    "JSON deeper than settings are": (put("a.json", "[" * 500 + "]" * 500), "nested more than 100"),
    "JSON without an end": (put("config.json", "[" * 100_000), "config.json"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "problem"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_folder_is_refused_whole(sound: Path, change: Callable[[Path], None], problem: str) -> None:
    change(sound)
    with pytest.raises(FileRefused, match=f"(?s){problem}") as caught:
        scan_folder(sound)
    assert "nothing of it was stored" in caught.value.problem
    assert not EXECUTED.exists()


def test_all_that_is_wrong_is_told_at_once(sound: Path) -> None:
    for number in range(20):
        (sound / f"weights-{number:02}.bin").write_bytes(b"x")
    (sound / "x.json").symlink_to("config.json")
    with pytest.raises(FileRefused) as caught:
        scan_folder(sound)
    assert caught.value.problem.count("weights-") == folder_scan.SHOWN_PROBLEMS
    assert "and 13 more" in caught.value.problem


def test_the_folder_itself_must_be_one(sound: Path) -> None:
    linked = sound.parent / "linked"
    linked.symlink_to(sound)
    for folder in (linked, sound / "config.json", sound / "nowhere"):
        with pytest.raises(RegistryPathError, match=r"is a link|is no folder"):
            scan_folder(folder)


def test_a_folder_without_end_is_not_walked_to_it(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_scan, "MAX_FILES", 3)
    with pytest.raises(FileRefused, match="more than 3 files"):
        scan_folder(sound)


def test_what_version_control_and_downloads_leave_is_no_part_of_it(sound: Path) -> None:
    put(".git/hooks/pre-commit.py", "import os")(sound)
    put(".cache/huggingface/x.lock", "")(sound)
    assert not [name for name in scan_folder(sound).files if name.startswith(".")]


def test_headers_of_many_tensors_are_not_all_read(sound: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_scan, "MAX_TENSORS", 2)
    with pytest.raises(FileRefused, match="have 3 tensors in"):
        scan_folder(sound)
    monkeypatch.undo()
    monkeypatch.setattr(folder_scan, "MAX_HEADER_BYTES", 100)
    with pytest.raises(FileRefused, match=r"model-2.safetensors' have 3 tensors in .* the limits are 250000 and 100"):
        scan_folder(sound)


def test_what_is_asked_for_is_returned_as_it_was_judged(sound: Path) -> None:
    found = scan_folder(sound, keep=("config.json", "README.md"))
    assert found.kept == {"config.json": (sound / "config.json").read_bytes()}
    assert found.dtypes == ["BF16", "F32"]
