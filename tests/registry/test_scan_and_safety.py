"""A base's folder and a version's file are judged by the same rules, though neither side may import the other."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import components.models.pickles
import components.models.render_templates
import components.models.scan as safety
import components.models.settings
import components.models.template_sandbox
import registry.allowed_files as allowed
import registry.pickles
import registry.render_templates
import registry.scan as scanning
import registry.settings
import registry.template_sandbox
import registry.tensors as tensor_rules
from components.errors import InputError
from components.models.safety import check_folder
from registry.errors import FileRefused
from registry.folder_scan import scan_folder
from registry.scan import scan


class _Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("executed",)


def tensors(*entries: dict[str, Any], data: bytes = b"1234") -> bytes:
    text = json.dumps({f"w{n}": entry for n, entry in enumerate(entries)}).encode()
    return struct.pack("<Q", len(text)) + text + data


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def raw_header(text: bytes, data: bytes = b"1234") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


def zip_after(front: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(_Evil()))
    return front + buffer.getvalue()


def weights_that_are_a_zip() -> bytes:
    """A whole safetensors file whose one tensor's bytes end as a zip: torch.load would find the pickle in it."""
    inner = zip_after(b"")
    return tensors({"dtype": "U8", "shape": [len(inner)], "data_offsets": [0, len(inner)]}, data=inner)


def tar_archive() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("pickle"))
    return buffer.getvalue()


ENTRY = b'"w0": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}'

REFUSED = {
    "zip behind a vocabulary": ("spiece.model", zip_after(b"\x0a\x0e\x0a\x05<unk>")),
    "zip inside the weights": ("a.safetensors", weights_that_are_a_zip()),
    "tar": ("spiece.model", tar_archive()),
    "7z": ("spiece.model", b"7z\xbc\xaf\x27\x1c"),
    "zstd": ("spiece.model", b"\x28\xb5\x2f\xfd\x00"),
    "tensor that stands twice": ("a.safetensors", raw_header(b"{" + ENTRY + b", " + ENTRY + b"}")),
    "dtype that stands twice": ("a.safetensors", raw_header(b"{" + ENTRY.replace(b"{", b'{"dtype": "I8", ') + b"}")),
    "white space before the header": ("a.safetensors", raw_header(b"  {" + ENTRY + b"}")),
    "header of another encoding": ("a.safetensors", raw_header(("{" + ENTRY.decode() + "}").encode("utf-16-le"))),
    "metadata that is no text": ("a.safetensors", raw_header(b'{"__metadata__": {"a": 1}, ' + ENTRY + b"}")),
    "code behind a name that stands twice": ("config.json", b'{"auto_map": {"a": "b.C"}, "auto_map": null}'),
    "number that is none": ("config.json", b'{"a": NaN}'),
    "number without end": ("tokenizer_config.json", b'{"model_max_length": 1e999}'),
    "half of a character": ("config.json", b'{"a": ["\\ud800"]}'),
    "half of a character as a key": ("config.json", b'{"\\ud800": 1}'),
    "settings that are a list": ("generation_config.json", b"[]"),
    "settings that are nothing": ("adapter_config.json", b"null"),
    "shape that costs time": ("a.safetensors", tensors({**ONE, "shape": [10**9] * 100_000})),
    "code through auto_map": ("config.json", b'{"auto_map": {"AutoModel": "evil.Model"}}'),
    "code deep inside": ("config.json", b'{"a": [{"b": {"auto_map": 1}}]}'),
    "trusted code": ("config.json", b'{"trust_remote_code": true}'),
    "pipelines": ("config.json", b'{"custom_pipelines": {"x": {"impl": "evil.Pipe"}}}'),
    "library for peft": ("adapter_config.json", b'{"auto_mapping": {"parent_library": "evil.model"}}'),
    "shard outside": ("model.safetensors.index.json", b'{"weight_map": {"w": "../w.safetensors"}}'),
    "shard of another folder": ("model.safetensors.index.json", b'{"weight_map": {"w": "a\\\\b"}}'),
    "shard that is hidden": ("model.safetensors.index.json", b'{"weight_map": {"w": ".w.safetensors"}}'),
    "shard that is a pickle": ("model.safetensors.index.json", b'{"weight_map": {"w": "w.bin"}}'),
    "index without a map": ("model.safetensors.index.json", b"{}"),
    "GGUF": ("notes.txt", b"GGUF\x03"),
    "script": ("README.md", b"#!/bin/sh\nrm -rf /\n"),
    "zip": ("spiece.model", b"PK\x03\x04"),
    "bzip2": ("spiece.model", b"BZh9"),
    "xz": ("spiece.model", b"\xfd7zXZ\0"),
    "gzip": ("spiece.model", b"\x1f\x8b"),
    "HDF5": ("spiece.model", b"\x89HDF\r\n"),
    "NumPy": ("spiece.model", b"\x93NUMPY"),
    "program": ("spiece.model", b"\x7fELF"),
    "Windows program": ("spiece.model", b"MZ\x90"),
    "pickle": ("spiece.model", pickle.dumps(_Evil(), 4)),
    "pickle of protocol 0 as text": ("notes.txt", pickle.dumps(_Evil(), 0)),
    "pickle of protocol 1 as text": ("notes.txt", pickle.dumps(_Evil(), 1)),
    "pickle of protocol 0 as a vocabulary": ("tokenizer.model", pickle.dumps(_Evil(), 0)),
    "pickle without its end": ("notes.txt", pickle.dumps(_Evil(), 0)[:-1]),
    "pickle without its end as a vocabulary": ("tokenizer.model", pickle.dumps(_Evil(), 1)[:-1]),
    "pickle behind another": ("notes.txt", b"I1\n." + pickle.dumps(_Evil(), 0)),
    "pickle behind others as a vocabulary": ("tokenizer.model", b"N.K\1.}." + pickle.dumps(_Evil(), 0)),
    "pickle behind a number that pickletools can't read": ("notes.txt", b"I0x10\n0" + pickle.dumps(_Evil(), 0)),
    "pickle that makes an object at once": ("notes.txt", b"(S'id'\nios\nsystem\n"),
    "pickle that makes an object": ("notes.txt", b"(cos\nsystem\nS'id'\no"),
    "pickle that sets a state": ("notes.txt", b"ccollections\nOrderedDict\nNb"),
    "pickle that never ends": ("tokenizer.model", b"N0" * 600_000),
    "attention from a hub's repository": ("config.json", b'{"attn_implementation": "evil/kernel"}'),
    "attention under its other name": ("config.json", b'{"_attn_implementation": "paged|evil/kernel@v1:f"}'),
    "attention of a part": ("config.json", b'{"attn_implementation": {"text_config": "evil/kernel"}}'),
    "experts from a hub's repository": ("config.json", b'{"a": {"experts_implementation": "evil/kernel"}}'),
    "module for peft": ("adapter_config.json", b'{"megatron_core": "evil"}'),
    "settings of that module": ("adapter_config.json", b'{"megatron_config": {"a": 1}}'),
    "JSON that is deep": ("notes.json", b"[" * 200 + b"]" * 200),
    "tensor with another key": ("a.safetensors", tensors({**ONE, "x": [[], []]})),
    "header with more than tensors need": (
        "a.safetensors",
        raw_header(b'{"__metadata__": {"a": "' + b"," * 3_000_001 + b'"}, ' + ENTRY + b"}"),
    ),
    "byte order mark": ("config.json", b"\xef\xbb\xbf{}"),
    "broken JSON": ("config.json", b"{"),
    "endless JSON": ("config.json", b"[" * 100_000),
    "not UTF-8": ("notes.txt", b"\xff\xfe"),
    "zero bytes": ("notes.txt", b"a\0b"),
    "page": ("notes.html", b"<script></script>"),
    "code": ("modeling.py", b"print()"),
    "name without a suffix": ("weights", b"text"),
    "gap in the weights": ("a.safetensors", tensors({**ONE, "data_offsets": [4, 8]}, data=b"12345678")),
    "overlap in the weights": ("a.safetensors", tensors(ONE, ONE)),
    "shape that doesn't fit": ("a.safetensors", tensors({**ONE, "shape": [2]})),
    "unknown dtype": ("a.safetensors", tensors({**ONE, "dtype": "PICKLE"})),
    "padded weights": ("a.safetensors", tensors(ONE, data=b"12345")),
    "template among the special tokens": ("special_tokens_map.json", b'{"chat_template": "{{ messages }}"}'),
    "file among the special tokens": ("special_tokens_map.json", b'{"tokenizer_file": "/somewhere/tokenizer.json"}'),
    "setting among the special tokens": ("special_tokens_map.json", b'{"bos_token": "<s>", "add_bos_token": true}'),
    "special token with more to it": ("special_tokens_map.json", b'{"a_token": {"content": "a", "b": true}}'),
    "special token without a text": ("special_tokens_map.json", b'{"a_token": {"special": true}}'),
    "special token whose mark is a text": ("special_tokens_map.json", b'{"a_token": {"content": "a", "special": "x"}}'),
    "special tokens that are one text": ("special_tokens_map.json", b'{"extra_special_tokens": "ab"}'),
    "special tokens in lists": ("special_tokens_map.json", b'{"extra_special_tokens": [["a"]]}'),
    "id of a special token that is a text": ("special_tokens_map.json", b'{"pad_token_id": "/somewhere/x"}'),
    "ids of special tokens with a text": ("special_tokens_map.json", b'{"eos_token_ids": [1, "/somewhere/x"]}'),
    "special token of a file's name": ("special_tokens_map.json", b'{"extra_special_tokens": {"vocab_file": "<v>"}}'),
    "token of a file's name": ("tokenizer_config.json", b'{"extra_special_tokens": {"vocab_file": "<v>"}}'),
    "tokens that are none": ("tokenizer_config.json", b'{"extra_special_tokens": {"a": {"vocab": "/somewhere/x"}}}'),
    "tokens of something else": ("tokenizer_config.json", b'{"a": {"extra_special_tokens": {"vocab": "/somewhere"}}}'),
    "path as a vocabulary": ("tokenizer.json", b'{"model": {"type": "WordPiece", "vocab": "/somewhere/vocab.txt"}}'),
    "path as a map of bytes": ("byte_maps.json", b'{"decompose_map": "/somewhere/x.json", "merge_map": {}}'),
    "path as another map of bytes": ("byte_maps.json", b'{"decompose_map": {}, "merge_map": "/somewhere/x.json"}'),
    "special tokens in other letters": ("Special_Tokens_Map.JSON", b'{"chat_template": "a"}'),
    "template that wins over the default": ("additional_chat_templates/default.jinja", b"{{ messages }}"),
    "tokenizer outside": ("tokenizer_config.json", b'{"backend": {"tokenizer_file": "/somewhere/tokenizer.json"}}'),
    "vocabulary in other letters": ("TOKENIZER_CONFIG.json", b'{"vocab_file": "/somewhere/vocab.json"}'),
    "vocabulary outside": ("tokenizer_config.json", b'{"vocab_file": "../vocab.json"}'),
    "vocabulary of a library": ("tokenizer_config.json", b'{"sp_model_kwargs": {"model_file": "/somewhere/x"}}'),
    "vocabulary that is a path": ("tokenizer_config.json", b'{"vocab": "/somewhere/vocab.json"}'),
    "path of a dictionary": ("tokenizer_config.json", b'{"word_kwargs": {"config_path": "/somewhere/x"}}'),
    "path in a schema of something else": ("tokenizer_config.json", b'{"a": {"response_schema": {"x_file": "/x"}}}'),
    "argument without a name": ("tokenizer_config.json", b'{"init_inputs": ["/somewhere/vocab.json"]}'),
    "tokenizers outside": ("tokenizer_config.json", b'{"fast_tokenizer_files": ["../../tokenizer.1.0.0.json"]}'),
    "config of another version": ("config.json", b'{"configuration_files": ["config.1.0.0.json"]}'),
    "config of another version, in a part": ("config.json", b'{"a": [{"configuration_files": ["config.1.0.0.json"]}]}'),
    "weights of another name": ("config.json", b'{"transformers_weights": "other.safetensors"}'),
    "tokenizer of another version": ("tokenizer_config.json", b'{"fast_tokenizer_files": ["tokenizer.1.0.0.json"]}'),
    "tokenizers that are passed over": ("tokenizer_config.json", b'{"fast_tokenizer_files": ["tokenizer.json"]}'),
    "index in capitals": ("MODEL.SAFETENSORS.INDEX.JSON", b'{"weight_map": {"w": "../w.safetensors"}}'),
    "settings in capitals that are a list": ("TOKENIZER_CONFIG.JSON", b"[]"),
    "suffix in capitals": ("CONFIG.JSON", b"{"),
    "weights in capitals": ("A.SAFETENSORS", b"1234"),
}
LET_IN = {
    "weights": ("a.safetensors", tensors(ONE)),
    "index": ("model.safetensors.index.json", b'{"weight_map": {"w": "a.safetensors"}}'),
    "no code": ("config.json", b'{"auto_map": null, "trust_remote_code": false}'),
    "library that is there": ("adapter_config.json", b'{"auto_mapping": {"parent_library": "transformers.models"}}'),
    "token that reads like a key": ("vocab.json", b'{"auto_map": 17}'),
    "token in the tokenizer": ("tokenizer.json", b'{"model": {"vocab": {"trust_remote_code": 17}}}'),
    "token that stands twice": ("vocab.json", b'{"a": 1, "a": 2}'),
    "merges": ("merges.txt", b"#version: 0.2\nc a\n."),
    "licence": ("LICENCE", b"text"),
    "policy": ("USE_POLICY", b"text"),
    "license in small letters": ("license", b"text"),
    "vocabulary that begins like a pickle": ("vocab.txt", b"cat\ndog\nRed\nbird\n"),
    "words that begin like a pickle with text in it": ("vocab.txt", b"cat\ndog\nIt is\nRed\n(tR\n"),
    "vocabulary with an argument in it": ("vocab.txt", b"cat\ndog\nVery\nRed\n"),
    "vocabulary with a look-up in it": ("vocab.txt", b"constructive\ndescendants\nhobart\nand\n"),
    "marks": ("vocab.txt", b"(\n)\nin\nos\n"),
    "attention that transformers has": ("config.json", b'{"attn_implementation": {"": "sdpa", "text_config": null}}'),
    "module that peft writes": ("adapter_config.json", b'{"megatron_core": "megatron.core", "megatron_config": null}'),
    "JSON that is nested": ("notes.json", b"[" * 90 + b"]" * 90),
    "special tokens": (
        "special_tokens_map.json",
        b'{"bos_token": "<s>", "pad_token": null, "image_token": {"content": "<i>", "lstrip": false, "special": true},'
        b' "additional_special_tokens": ["<a>", {"content": "<b>", "__type": "AddedToken"}],'
        b' "extra_special_tokens": {"audio_token": "<c>"}, "model_specific_special_tokens": null}',
    ),
    "ids of special tokens": (
        "special_tokens_map.json",
        b'{"pad_token": "<p>", "pad_token_id": 0, "unk_id": null, "eos_token_ids": [1, 2]}',
    ),
    "tokens named as settings are": (
        "tokenizer_config.json",
        b'{"extra_special_tokens": {"vocab": "<v>", "init_inputs": {"content": "<i>", "__type": "AddedToken"}},'
        b' "additional_special_tokens": ["vocab_file"], "model_specific_special_tokens": {"merges": "<m>"}}',
    ),
    "tokens that read like settings": ("tokenizer.json", b'{"model": {"vocab": [["vocab_file", 0]], "merges": "a b"}}'),
    "maps of bytes": ("byte_maps.json", b'{"decompose_map": {"a": "b"}, "merge_map": {}}'),
    "template beside the default one": ("additional_chat_templates/tool_use.jinja", b"{{ messages }}"),
    "paths that nothing reads": (
        "tokenizer_config.json",
        b'{"special_tokens_map_file": "/root/a.json", "vocab_file": null, "name_or_path": "/root", "vocab": {},'
        b' "init_inputs": [], "sp_model_kwargs": {}, "chat_template": "{{ messages }}"}',
    ),
    "tokenizer that the folder's own replaces": (
        "tokenizer_config.json",
        b'{"tokenizer_class": "T5Tokenizer", "tokenizer_file": "/root/.cache/huggingface/transformers/abc.def"}',
    ),
    "schema of an answer with a file in it": (
        "tokenizer_config.json",
        b'{"response_schema": {"properties": {"file_path": {"type": "string"}}},'
        b' "response_template": {"output_file": "x"}, "added_tokens_decoder": {"5": {"content": "a", "x_file": "b"}}}',
    ),
    "no other versions": ("config.json", b'{"configuration_files": [], "transformers_weights": null}'),
    "sentencepiece": ("spiece.model", b"\x0a\x0e\x0a\x05<unk>"),
}


@pytest.mark.parametrize(("name", "content"), REFUSED.values(), ids=REFUSED)
def test_what_one_side_refuses_the_other_refuses(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError):
        check_folder(tmp_path)
    with pytest.raises(FileRefused):
        scan(name, io.BytesIO(content), len(content))


@pytest.mark.parametrize(("name", "content"), LET_IN.values(), ids=LET_IN)
def test_what_one_side_lets_in_the_other_lets_in(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content)
    check_folder(tmp_path)
    scan(name, io.BytesIO(content), len(content))


@pytest.mark.parametrize(
    ("beside", "let_in"),
    [
        (["tokenizer.json"], ("vocab_file", "merges_file", "spm_file")),
        (["tokenizer.json", "tokenizer.model"], ("vocab_file", "merges_file", "spm_file")),
        (["tokenizer.model"], ("vocab_file", "spm_file")),
        (["vocab.json", "merges.txt"], ()),
        (["below/tokenizer.json"], ()),
        (["../tokenizer.json", "../tokenizer.model"], ()),
        # transformers takes each of these for a tokenizer.json that is there, and opens none
        (["tokenizer.json/a.json"], ()),
        (["tokenizer.model", "tokenizer.json/a.json"], ()),
        (["tokenizer.model", "old.tokenizer.json"], ()),
    ],
    ids=str,
)
def test_a_vocabulary_that_the_settings_name_may_be_one_that_is_replaced(
    tmp_path: Path, beside: list[str], let_in: tuple[str, ...]
) -> None:
    for other in beside:
        (tmp_path / "m" / other).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "m" / other).write_bytes(b"{}")
    paths = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()]
    for key in ("vocab_file", "merges_file", "spm_file"):
        settings = json.dumps({key: "vocab.json", "tokenizer_class": "GPT2Tokenizer"}).encode()
        (tmp_path / "m" / "tokenizer_config.json").write_bytes(settings)

        def scanned(settings: bytes = settings) -> None:
            scan("m/tokenizer_config.json", io.BytesIO(settings), len(settings), paths)

        for judge in (lambda: check_folder(tmp_path), lambda: scan_folder(tmp_path), scanned):
            if key in let_in:
                judge()
                continue
            with pytest.raises(
                (InputError, FileRefused), match=f"'{key}'.*take it out.*or put a tokenizer.json beside"
            ):
                judge()


def test_an_argument_of_something_else_is_not_replaced() -> None:
    odd = registry.settings.odd_setting(
        "tokenizer_config.json", {"sp_model_kwargs": {"vocab_file": "x"}}, {"tokenizer.json", "tokenizer.model"}
    )
    assert odd is not None
    assert "'vocab_file'" in odd
    assert "beside it" not in odd  # there it is


def test_both_sides_have_the_same_lists() -> None:
    assert set(allowed.ALLOWED_SUFFIXES) == safety.ALLOWED_SUFFIXES
    assert {name.lower() for name in allowed.ALLOWED_NAMES} == safety.TEXT_NAMES
    assert scanning._MAGIC.keys() == {magic for magic, _ in safety.MAGIC}
    assert tensor_rules.DTYPE_BITS == safety.DTYPE_BITS
    assert scanning.CODE_KEYS == safety.CODE_KEYS
    assert scanning.MEGATRON_CORE == safety.MEGATRON_CORE
    assert scanning.IMPLEMENTATION == safety.IMPLEMENTATION
    assert scanning.MAX_NESTING == safety.MAX_NESTING
    assert scanning.OBJECTS == safety.OBJECTS
    assert scanning.INDEX_SUFFIX == safety.INDEX_SUFFIX
    assert scanning.VOCABULARIES == safety.VOCABULARIES
    assert allowed.MAX_TEXT_BYTES == safety.MAX_TEXT_BYTES
    assert tensor_rules.MAX_TENSOR_BITS == safety.MAX_TENSOR_BITS
    assert tensor_rules.MAX_TENSORS == safety.MAX_TENSORS
    assert tensor_rules.HEADER_COMMAS == safety.HEADER_COMMAS
    assert tensor_rules.MAX_HEADER_BYTES == safety.MAX_SAFETENSORS_HEADER_BYTES


@pytest.mark.parametrize(
    "modules",
    [
        (registry.pickles, components.models.pickles),
        (registry.settings, components.models.settings),
        (registry.template_sandbox, components.models.template_sandbox),
        (registry.render_templates, components.models.render_templates),
    ],
    ids=["pickles", "settings", "sandbox", "child"],
)
def test_both_sides_judge_by_one_text(modules: tuple[ModuleType, ModuleType]) -> None:
    assert len({Path(str(module.__file__)).read_text() for module in modules}) == 1


def test_hidden_files_and_folders_of_tools_are_left_out_and_depth_has_an_end(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"\0\1")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "hook.py").write_text("import os")
    check_folder(tmp_path)
    deep = tmp_path.joinpath(*"abcdefg")
    deep.mkdir(parents=True)
    (deep / "x.json").write_text("{}")
    check_folder(tmp_path)
    (deep / "h").mkdir()
    with pytest.raises(InputError, match="deeper"):
        check_folder(tmp_path)
