"""Folders of others become versions: judged before anything is stored, bound to their base, and proven by nothing."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.errors import ConflictError, InputError, VerdictError
from components.models.fingerprint import base_files, fingerprint, write_binding
from components.models.tiny import make_tiny
from deploy.from_registry import version_files
from flows import registry_import
from flows.base_manifest import base_manifest
from flows.origin_mark import MARK, folder_origin
from flows.registry_export import export_version
from flows.registry_import import import_folder
from registry import folder_scan
from registry.errors import FileRefused, GateRefused, VersionNotFound
from registry.manifest import describe_files
from registry.store import Registry
from tests.flows.conftest import call_command


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry.open(tmp_path / "home" / "registry") as opened:
        yield opened


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "base"))


@pytest.fixture(scope="session")
def foreign_adapter(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter as peft itself saves it, its second factors not zero."""
    import torch
    from peft import LoraConfig, get_peft_model

    from components.models.load import load_model

    folder = tmp_path_factory.mktemp("adapter") / "lora"
    torch.manual_seed(5)
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
    model = get_peft_model(load_model(tiny_base), config)
    model.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\nbase_model: someone/tiny\n---\n# A card\n")
    return folder


@pytest.fixture
def adapter(foreign_adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(foreign_adapter, tmp_path / "adapter"))


def set_in(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_base_is_registered_as_it_is_and_may_be_served_but_not_promoted(registry: Registry, base: Path) -> None:
    found = import_folder(registry, base, name="tiny", licence="mit")
    assert (found["version"], found["kind"], found["base"]) == ("tiny:v1", "base", fingerprint(base).base)
    assert found["parameters"] > 90_000
    assert found["templates"] == ["chat_template.jinja"]
    assert found["standing"] == {"proven": True, "basis": "base", "reasons": [], "required_keys": []}
    version = registry.resolve("tiny")
    assert (version.manifest.licence, version.manifest.metadata["origin"]) == ("mit", "imported folder")
    assert version.manifest.metadata["dtypes"] == ["F32"]
    files = version_files(registry, "tiny", proven=True)
    assert fingerprint(files.base_folder) == fingerprint(base)
    with pytest.raises(GateRefused, match="no evaluation was recorded"):
        registry.promote("tiny", "champion", actor="test")
    assert registry.verify().intact


def test_the_same_folder_again_is_the_same_version(registry: Registry, base: Path) -> None:
    first = import_folder(registry, base, name="tiny")
    assert import_folder(registry, base, name="tiny")["digest"] == first["digest"]
    set_in(base / "generation_config.json", temperature=0.5)
    other = import_folder(registry, base, name="tiny")
    assert (other["version"], other["base"]) == ("tiny:v2", first["base"])


def test_weights_made_from_a_base_are_not_proven(registry: Registry, base: Path, tmp_path: Path) -> None:
    import_folder(registry, base, name="tiny")
    tuned = make_tiny(tmp_path / "tuned", seed=1)
    found = import_folder(registry, tuned, name="tuned", base="tiny")
    assert (found["kind"], found["standing"]["proven"]) == ("full", False)
    assert registry.resolve("tuned").manifest.parents[0].role == "base"
    with pytest.raises(VerdictError, match="tuned:v1 is not proven: no evaluation was recorded"):
        version_files(registry, "tuned", proven=True)
    assert import_folder(registry, tuned, name="mixed", base="tiny", kind="merged")["kind"] == "merged"


def test_what_was_made_from_a_base_does_not_come_back_as_one(registry: Registry, base: Path, tmp_path: Path) -> None:
    import_folder(registry, base, name="tiny")
    import_folder(registry, make_tiny(tmp_path / "tuned", seed=1), name="tuned", base="tiny")
    out = tmp_path / "out"
    export_version(registry, "tuned", out, "hf")
    (out / "README.md").unlink()
    with pytest.raises(InputError, match=r"holds the weights of tuned:v1, which is of kind full and no base"):
        import_folder(registry, out, name="laundered")
    # the same weights under settings that make another fingerprint
    set_in(out / "config.json", rope_theta=10_001.0)
    with pytest.raises(InputError, match=r"holds the weights of tuned:v1"):
        import_folder(registry, out, name="laundered")
    assert [version.label for version in registry.versions()] == ["tiny:v1", "tuned:v1"]
    export_version(registry, "tiny", tmp_path / "base-out", "hf")
    assert import_folder(registry, tmp_path / "base-out", name="tiny")["version"] == "tiny:v1"


def test_an_export_is_no_base_where_its_version_is_unknown_either(
    registry: Registry, base: Path, adapter: Path, tmp_path: Path
) -> None:
    import_folder(registry, base, name="tiny")
    import_folder(registry, adapter, name="sql", base="tiny")
    export_version(registry, "sql", tmp_path / "merged", "hf")
    with pytest.raises(InputError, match=r"was exported from a version of kind adapter, as its README.md says"):
        import_folder(registry, tmp_path / "merged", name="laundered")
    (tmp_path / "merged" / "README.md").unlink()
    with pytest.raises(InputError, match=r"say that they were made from 'sql:v1 [0-9a-f]{64}': they are no base"):
        import_folder(registry, tmp_path / "merged", name="laundered")
    with Registry.open(tmp_path / "elsewhere") as elsewhere, pytest.raises(InputError, match=r"made from 'sql:v1"):
        import_folder(elsewhere, tmp_path / "merged", name="laundered")
    assert [version.name for version in registry.versions()] == ["sql", "tiny"]
    found = import_folder(registry, tmp_path / "merged", name="sql-merged", base="tiny", kind="merged")
    assert not found["standing"]["proven"]


def test_each_of_the_words_that_merged_weights_carry_is_enough(
    registry: Registry, base: Path, adapter: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    import_folder(registry, base, name="tiny")
    import_folder(registry, adapter, name="sql", base="tiny")
    merged, saved = tmp_path / "merged", tmp_path / "saved"
    export_version(registry, "sql", merged, "hf")
    (merged / "README.md").unlink()
    assert folder_origin(merged) == f"sql:v1 {registry.resolve('sql').digest}"
    # saved again by another tool: the headers are new, the config keeps the word
    shutil.copytree(merged, saved)
    AutoModelForCausalLM.from_pretrained(merged).save_pretrained(saved)
    assert MARK.encode() not in (saved / "model.safetensors").read_bytes()[:10_000]
    # the config of the base in its place: the headers keep it
    shutil.copy(base / "config.json", merged / "config.json")
    for folder in (saved, merged):
        with pytest.raises(InputError, match=r"made from 'sql:v1"):
            import_folder(registry, folder, name="laundered")
    assert folder_origin(base) is None


def test_base_of_a_run_that_says_it_was_made_is_not_proven(registry: Registry, base: Path) -> None:
    files = base_files(base)
    plain = base_manifest(fingerprint(base), describe_files(files), None, {"origin": "local folder"})
    said = dataclasses.replace(plain, metadata={**plain.metadata, "made_from": "sql:v1"}, content_key="other")
    registry.register("said", said, files)
    assert registry.standing("said").reasons[0] == "its weights say that they were made from sql:v1"
    assert not registry.standing("said").proven
    registry.register("plain", plain, files)
    assert registry.standing("plain").proven


def test_an_adapter_of_another_tool_is_bound_to_the_base_that_is_named(
    registry: Registry, base: Path, adapter: Path
) -> None:
    from components.models.load import load_as_served

    machine = "/home/someone/models/tiny"
    set_in(adapter / "adapter_config.json", base_model_name_or_path="someone/tiny", tokenizer_name_or_path=machine)
    import_folder(registry, base, name="tiny")
    found = import_folder(registry, adapter, name="sql", base="tiny")
    assert (found["kind"], found["base"], found["licence"]) == ("adapter", fingerprint(base).base, "mit")
    assert found["left_out"] == ["README.md"]
    assert not found["standing"]["proven"]
    made = registry.resolve("sql").manifest
    assert made.peft_config is not None
    assert made.peft_config["base_model_name_or_path"] is None
    assert made.peft_config["tokenizer_name_or_path"] is None
    assert machine not in (registry.checkout("sql") / "adapter_config.json").read_text()
    assert made.metadata["trained_on_name"] == "someone/tiny"
    assert made.metadata["layers_held_against_base"] == 4
    assert made.metadata["bound_by"] == "whoever imported it"
    files = version_files(registry, "sql")
    model, _ = load_as_served(files.base_folder, adapter=files.adapter_folder, quantization=None)
    plain, _ = load_as_served(files.base_folder, adapter=None, quantization=None)
    name = "model.layers.0.self_attn.q_proj.weight"
    assert not model.state_dict()[name].equal(plain.state_dict()[name])
    with pytest.raises(VerdictError, match="not proven"):
        version_files(registry, "sql", proven=True)


def test_an_adapter_that_records_its_base_finds_it_and_no_other(
    registry: Registry, base: Path, adapter: Path, tmp_path: Path
) -> None:
    write_binding(adapter, fingerprint(base))
    with pytest.raises(InputError, match="no registered version is that"):
        import_folder(registry, adapter, name="sql")
    other = make_tiny(tmp_path / "other", seed=9)
    import_folder(registry, other, name="other")
    with pytest.raises(InputError, match="trained on another base than other:v1"):
        import_folder(registry, adapter, name="sql", base="other")
    import_folder(registry, base, name="tiny")
    found = import_folder(registry, adapter, name="sql")
    assert registry.resolve("sql").manifest.parents[0].digest == registry.resolve("tiny").digest
    assert found["base"] == fingerprint(base).base
    assert import_folder(registry, adapter, name="sql", base="tiny")["digest"] == found["digest"]


def test_an_adapter_that_does_not_fit_or_names_no_base_is_refused(
    registry: Registry, adapter: Path, tmp_path: Path
) -> None:
    import_folder(registry, make_tiny(tmp_path / "wide", hidden_size=96), name="wide")
    with pytest.raises(InputError, match="doesn't record which base"):
        import_folder(registry, adapter, name="sql")
    with pytest.raises(InputError, match=r"another base: its layer .* is 64 x 64, the base.s weight is 96 x 96"):
        import_folder(registry, adapter, name="sql", base="wide")
    with pytest.raises(VersionNotFound):
        import_folder(registry, adapter, name="sql", base="nobody")
    set_in(adapter / "adapter_config.json", peft_type="IA3")
    with pytest.raises(InputError, match="peft_type 'IA3'"):
        import_folder(registry, adapter, name="sql", base="wide")
    assert [version.label for version in registry.versions()] == ["wide:v1"]


def test_an_adapter_of_a_deeper_base_is_refused_and_the_layer_named(
    registry: Registry, base: Path, adapter: Path
) -> None:
    from safetensors.torch import load_file, save_file

    weights = adapter / "adapter_model.safetensors"
    tensors = load_file(weights)
    layers = {name: tensor.clone() for name, tensor in tensors.items() if ".layers.0." in name}
    save_file(tensors | {n.replace(".layers.0.", ".layers.47."): t for n, t in layers.items()}, weights)
    import_folder(registry, base, name="tiny")
    with pytest.raises(InputError, match=r"changes model\.layers\.47\..*, which the base doesn't have"):
        import_folder(registry, adapter, name="sql", base="tiny")


def test_a_prompt_that_began_as_text_keeps_a_name_that_peft_asks_for(
    registry: Registry, base: Path, adapter: Path
) -> None:
    from peft import PromptTuningConfig

    import_folder(registry, base, name="tiny")
    config = PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=4, prompt_tuning_init="TEXT", prompt_tuning_init_text="a",
        tokenizer_name_or_path="/home/someone/tiny",
    )  # fmt: skip
    config.save_pretrained(str(adapter))
    import_folder(registry, adapter, name="prompt", base="tiny")
    read = PromptTuningConfig.from_pretrained(str(registry.checkout("prompt")))
    assert read.tokenizer_name_or_path == "tiny"


def test_hidden_files_beside_a_model_are_left_where_they_are(registry: Registry, base: Path) -> None:
    for name, content in ((".DS_Store", b"\0\1"), (".gitkeep", b""), (".gitattributes", b"*.bin lfs")):
        (base / name).write_bytes(content)
    found = import_folder(registry, base, name="tiny")
    assert not [name for name in registry.resolve("tiny").manifest.files if name.startswith(".")]
    assert found["left_out"] == []


def test_a_licence_that_is_given_is_never_dropped(registry: Registry, base: Path) -> None:
    import_folder(registry, base, name="tiny", licence="MIT")
    with pytest.raises(ConflictError, match=r"tiny:v1 already, with the licence 'MIT', and 'Apache-2.0' was given"):
        import_folder(registry, base, name="tiny", licence="Apache-2.0")
    assert import_folder(registry, base, name="tiny", licence="mit")["licence"] == "MIT"


Change = Callable[[Path], object]
WRONG: dict[str, tuple[Change, dict[str, str], str]] = {
    "empty": (lambda f: [p.unlink() for p in f.iterdir()], {}, "neither a model nor an adapter"),
    "kind": (lambda f: None, {"kind": "adapter"}, "holds whole weights, and --kind adapter"),
    "kind that wants a base": (lambda f: None, {"kind": "full"}, "--kind full without --base"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), {}, "has no tokenizer"),
    "no template": (lambda f: (f / "chat_template.jinja").unlink(), {}, "has no chat template"),
    "quantized": (
        lambda f: set_in(f / "config.json", quantization_config={"quant_method": "gptq"}), {}, "quantized \\(gptq\\)"
    ),
    "either": (
        lambda f: (f / "adapter_config.json").write_text('{"peft_type": "LORA"}'), {}, "it could be either"
    ),
    "unknown kind": (lambda f: None, {"kind": "head"}, "unknown kind 'head'"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "options", "problem"), WRONG.values(), ids=WRONG)
def test_what_is_no_model_is_refused_and_nothing_is_stored(
    registry: Registry, base: Path, change: Change, options: dict[str, str], problem: str
) -> None:
    change(base)
    with pytest.raises(InputError, match=problem):
        import_folder(registry, base, name="tiny", **options)  # type: ignore[arg-type]
    assert registry.versions() == []
    assert not list((registry.folder / "blobs").rglob("*.*"))


ODD_SETTINGS = {
    "no object": ("config.json", []),
    "quantization in a word": ("config.json", {"quantization_config": "gptq"}),
    "numbers and words that end an answer": ("generation_config.json", {"eos_token_id": [3, "a"]}),
    "index of numbers": ("model.safetensors.index.json", {"weight_map": {"a": 3}}),
    "index of nothing": ("model.safetensors.index.json", None),
    "template that is a mapping": ("tokenizer_config.json", {"chat_template": {"default": 3}}),
    "templates that are words": ("tokenizer_config.json", {"chat_template": ["a", 3]}),
    "number without end": ("tokenizer_config.json", {"model_max_length": float("inf")}),
    "half of a character": ("config.json", {"architectures": ["\ud800"]}),
}


@pytest.mark.parametrize(("name", "values"), ODD_SETTINGS.values(), ids=ODD_SETTINGS)
def test_settings_of_a_form_that_nobody_writes_are_told_and_no_failure(
    registry: Registry, base: Path, name: str, values: Any
) -> None:
    path = base / name
    before = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**before, **values} if isinstance(values, dict) else values))
    (base / "chat_template.jinja").unlink()
    with pytest.raises((InputError, FileRefused)):
        import_folder(registry, base, name="tiny")
    assert registry.versions() == []


@pytest.mark.parametrize("record", [{"base_fingerprint": 3}, {}, [], {"rope_scaling": {"type": "x"}}])
def test_a_record_of_the_base_that_nobody_wrote_binds_nothing(
    registry: Registry, base: Path, adapter: Path, record: Any
) -> None:
    import_folder(registry, base, name="tiny")
    write_binding(adapter, fingerprint(base))
    path = adapter / "tunewright.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **record} if record else record))
    with pytest.raises((InputError, FileRefused)):
        import_folder(registry, adapter, name="sql", base="tiny")


def test_a_hostile_folder_leaves_nothing_behind(registry: Registry, base: Path) -> None:
    (base / "optimizer.json").write_bytes(pickle.dumps({"a": 1}))
    with pytest.raises(FileRefused, match=r"optimizer.json.*pickle"):
        import_folder(registry, base, name="tiny")
    assert registry.versions() == []
    assert not (registry.folder / "blobs").exists()


def test_a_file_that_changes_while_it_is_imported_is_found(
    registry: Registry, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged = registry_import.check_base

    def change_then_judge(folder: Path) -> None:
        set_in(folder / "tokenizer_config.json", extra=1)
        judged(folder)

    monkeypatch.setattr(registry_import, "check_base", change_then_judge)
    with pytest.raises(ConflictError, match=r"tokenizer_config.json changed while it was imported"):
        import_folder(registry, base, name="tiny")
    assert registry.versions() == []


@pytest.mark.parametrize(
    "change", [lambda f: (f / "late.json").write_text("{}"), lambda f: (f / "generation_config.json").unlink()]
)
def test_a_file_that_comes_or_goes_meanwhile_is_a_conflict(
    registry: Registry, base: Path, monkeypatch: pytest.MonkeyPatch, change: Change
) -> None:
    measured = registry_import.fingerprint

    def measure_then_change(folder: Path) -> Any:
        found = measured(folder)
        change(folder)
        return found

    monkeypatch.setattr(registry_import, "fingerprint", measure_then_change)
    with pytest.raises(ConflictError, match=r"(late|generation_config).json changed while it was imported"):
        import_folder(registry, base, name="tiny")
    assert registry.versions() == []


def test_settings_are_those_that_were_judged(
    registry: Registry, base: Path, adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import_folder(registry, base, name="tiny")
    found = folder_scan.scan_folder

    def scan_then_change(folder: Path, **options: Any) -> Any:
        judged = found(folder, **options)
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "auto_mapping": {"parent_library": "evil"}}')
        return judged

    monkeypatch.setattr(folder_scan, "scan_folder", scan_then_change)
    import_folder(registry, adapter, name="sql", base="tiny")
    stored = json.loads((registry.checkout("sql") / "adapter_config.json").read_text())
    assert (stored["r"], stored["auto_mapping"]) == (4, None)


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n", "apache-2.0"),
        ("---\nlicense: other\nlicense_name: own\n---\ntext", "own"),
        ("no front matter", "unknown"),
        ("---\nlicense: [a\n---\n", "unknown"),
        ("---\nlicense: 3\n---\n", "unknown"),
        ("---\n- a\n---\n", "unknown"),
        ("---\nlicense: mit\nmore: " + "x" * 70_000 + "\n---\n", "unknown"),
        ("---\nlicense: &a mit\nmore: [*a, *a]\n---\n", "unknown"),
    ],
)
def test_the_licence_is_the_one_that_the_card_states(registry: Registry, base: Path, card: str, licence: str) -> None:
    (base / "README.md").write_text(card)
    assert import_folder(registry, base, name="tiny")["licence"] == licence


def test_the_command_tells_what_was_found_and_what_may_be_done(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    home = ("--home", str(tmp_path / "home"))

    def call(*arguments: str) -> tuple[int, str, str]:
        return call_command(monkeypatch, capsys, "registry", *arguments, *home)

    status, out, err = call("import", str(base), "--name", "tiny", "--licence", "mit")
    assert status == 0, err
    assert "tiny:v1  base" in out
    assert "may be served" in out
    status, out, err = call("import", str(adapter), "--name", "sql", "--base", "tiny", "--json")
    assert status == 0, err
    document: dict[str, Any] = json.loads(out)
    assert (document["version"], document["standing"]["proven"]) == ("sql:v1", False)
    _, out, _ = call("lineage", "sql")
    assert "tiny:v1 (base)" in out
    (base / "x.bin").write_bytes(b"x")
    status, out, err = call("import", str(base), "--name", "tiny", "--json")
    assert (status, json.loads(out)["error"]["type"]) == (2, "FileRefused")
    assert "x.bin" in err
