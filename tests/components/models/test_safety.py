"""What a model folder may hold."""

from __future__ import annotations

import importlib
import inspect
import json
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import InputError, TunewrightError
from components.models import template_sandbox
from components.models.fingerprint import fingerprint
from components.models.load import load_tokenizer
from components.models.pickles import runs_something
from components.models.safety import chat_template, check_base, check_chat_template, check_folder, weight_files
from components.models.settings import REPLACED_BESIDE_JSON
from components.models.sources import locate_base
from components.models.tiny import make_tiny


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("sound") / "base")


@pytest.fixture
def base(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "base"))


def set_in(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def add_pickle(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"a": 1}))


def add_disguised_pickle(folder: Path) -> None:
    (folder / "extra.json").write_bytes(pickle.dumps({"a": 1}))


def add_text_pickle(folder: Path) -> None:
    (folder / "data.pkl").write_bytes(pickle.dumps({"a": 1}, protocol=0))


def add_torch_archive(folder: Path) -> None:
    with zipfile.ZipFile(folder / "spiece.model", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}))


def disguise_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps(list(range(100))))


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def add_code(folder: Path) -> None:
    (folder / "modeling.py").write_text("print('hello')")


def add_nested_code(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "modeling.py").write_text("print('hello')")


def link_file(folder: Path) -> None:
    (folder / "notes.txt").symlink_to("/etc/hostname")


def link_folder(folder: Path) -> None:
    (folder / "more").symlink_to(folder.parent)


def ask_for_code(folder: Path) -> None:
    set_in(folder / "config.json", auto_map={"AutoModel": "modeling.Model"})


def ask_for_code_deep_inside(folder: Path) -> None:
    set_in(folder / "config.json", text_config={"layers": [{"auto_map": {"AutoModel": "modeling.Model"}}]})


def ask_peft_to_import(folder: Path) -> None:
    mapping = {"base_model_class": "Model", "parent_library": "somewhere"}
    (folder / "adapter_config.json").write_text(json.dumps({"auto_mapping": mapping}))


def point_outside(folder: Path) -> None:
    index = {"weight_map": {"a": "../outside.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def break_json(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (add_pickle, "pickle"),
        (add_disguised_pickle, "pickle"),
        (add_text_pickle, "not allowed"),
        (add_torch_archive, "zip"),
        (disguise_weights, "safetensors"),
        (cut_weights, "cut short"),
        (add_code, "not allowed"),
        (add_nested_code, "not allowed"),
        (link_file, "link"),
        (link_folder, "link"),
        (ask_for_code, "auto_map"),
        (ask_for_code_deep_inside, "auto_map"),
        (ask_peft_to_import, "auto_mapping"),
        (point_outside, "outside.safetensors"),
        (break_json, "not valid JSON"),
    ],
)
def test_an_unsafe_folder_is_refused_with_the_reason(base: Path, spoil: Callable[[Path], None], word: str) -> None:
    check_folder(base)
    spoil(base)
    with pytest.raises(InputError, match=word):
        check_folder(base)


def test_a_linked_folder_is_refused(base: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(base)
    with pytest.raises(InputError, match="is a link"):
        check_folder(link)


def test_licences_and_read_mes_may_lie_beside_the_model(base: Path) -> None:
    for name in ("LICENSE", "README.md", "notes.txt", ".gitattributes"):
        (base / name).write_text("text")
    (base / ".cache" / "huggingface").mkdir(parents=True)
    (base / ".cache" / "huggingface" / "model.lock").write_bytes(b"")
    check_base(base)


def remove_template(folder: Path) -> None:
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    set_in(folder / "tokenizer_config.json", chat_template=None)


def remove_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def remove_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (remove_template, "chat template"),
        (remove_config, "config.json"),
        (remove_weights, "no weights"),
        (remove_tokenizer, "no tokenizer"),
    ],
)
def test_an_incomplete_base_is_refused_with_what_is_missing(
    base: Path, spoil: Callable[[Path], None], word: str
) -> None:
    check_base(base)
    spoil(base)
    with pytest.raises(InputError, match=word):
        check_base(base)


def test_a_template_that_is_not_jinja_is_refused(base: Path) -> None:
    (base / "chat_template.jinja").write_text("{% for message in messages %}")
    with pytest.raises(InputError, match="not valid Jinja"):
        check_chat_template(base)


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize("name", ["chat_template.jinja", "CHAT.JINJA", "additional_chat_templates/tool_use.jinja"])
def test_a_hostile_template_is_refused_before_it_is_rendered(
    base: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_sandbox, "CPU_SECONDS", 1)
    (base / name).parent.mkdir(exist_ok=True)
    (base / name).write_text(LOOP)
    # a run's way to a base, an import's, and a server's
    for way in (lambda: locate_base(str(base)), lambda: check_base(base), lambda: load_tokenizer(base)):
        with pytest.raises(InputError, match=f"{name}.*processor time"):
            way()
    (base / name).write_text("{{ ''.__class__.__mro__ }}")
    with pytest.raises(InputError, match="reaches out of its sandbox"):
        check_base(base)


def test_a_process_that_fails_by_itself_says_nothing_of_the_template(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(template_sandbox, "CHILD", tmp_path / "missing.py")
    (base / "chat_template.jinja").write_text("{{ messages[0].content }} by a process that isn't there")
    with pytest.raises(TunewrightError, match="ended with status 2") as caught:
        check_chat_template(base)
    assert not isinstance(caught.value, InputError)
    monkeypatch.undo()
    check_chat_template(base)  # what failed once isn't kept


def test_a_template_in_the_tokenizer_config_counts(base: Path) -> None:
    text = (base / "chat_template.jinja").read_text()
    (base / "chat_template.jinja").unlink()
    set_in(base / "tokenizer_config.json", chat_template=[{"name": "default", "template": text}])
    assert chat_template(base) == text


@pytest.mark.parametrize(
    ("named", "has_json"),
    [
        (None, True),
        ("PreTrainedTokenizerFast", True),
        ("T5Tokenizer", False),
        ("LlamaTokenizer", True),
        ("LlamaTokenizer", False),
        ("GPTNeoXJapaneseTokenizer", True),
        ("GPTNeoXJapaneseTokenizer", False),
    ],
)
def test_a_tokenizer_that_the_settings_name_outside_is_never_read(
    base: Path, tmp_path: Path, named: str | None, has_json: bool
) -> None:
    """Where this fails, transformers has changed, and `tokenizer_file` in tokenizer_config.json may not be let in."""
    tokens = {"bos_token": "a", "eos_token": "b", "unk_token": "c", "pad_token": "b"}
    if named is not None:
        set_in(base / "tokenizer_config.json", tokenizer_class=named, **(tokens if named.startswith("GPT") else {}))
    (base / "vocab.txt").write_text("\n".join(["a", "b", "c", "<|endoftext|>", "<|startoftext|>", "x", "y", "z"]))
    (base / "emoji.json").write_text(json.dumps({"emoji": {}, "emoji_inv": {}}))
    outside = tmp_path / "outside.json"
    document = json.loads((base / "tokenizer.json").read_text())
    document["added_tokens"].append({**document["added_tokens"][0], "id": 99_999, "content": "<outside>"})
    outside.write_text(json.dumps(document))
    if named is None:  # it could be read, and would be seen
        from transformers import AutoTokenizer

        assert "<outside>" in AutoTokenizer.from_pretrained(base, tokenizer_file=str(outside)).get_vocab()
    if not has_json:
        (base / "tokenizer.json").unlink()

    def loaded() -> str | dict[str, int]:
        check_folder(base)
        try:
            return dict(load_tokenizer(base).get_vocab())
        except Exception as error:  # a class for which this folder is no tokenizer says so, with the setting or without
            return type(error).__name__

    before = loaded()
    set_in(base / "tokenizer_config.json", tokenizer_file=str(outside))
    after = loaded()
    assert after == before
    assert "<outside>" not in after


def test_every_class_names_the_vocabularies_that_it_reads_or_takes_tokenizer_json(base: Path, tmp_path: Path) -> None:
    """Where this fails, transformers has changed, and `REPLACED_BESIDE_JSON` may not be let in."""
    import transformers
    from transformers import AutoTokenizer, PreTrainedTokenizerBase
    from transformers.tokenization_utils_tokenizers import TokenizersBackend

    root, seen = Path(str(transformers.__file__)).parent, 0
    for file in root.glob("models/*/tokenization_*.py"):
        try:
            module = importlib.import_module(".".join(("transformers", *file.relative_to(root).with_suffix("").parts)))
        except (ImportError, NameError):  # a library of its own that isn't there
            continue
        for made in vars(module).values():
            if not (isinstance(made, type) and issubclass(made, PreTrainedTokenizerBase)):
                continue
            seen += 1
            arguments = set(inspect.signature(made).parameters) & set(REPLACED_BESIDE_JSON)
            if issubclass(made, TokenizersBackend):
                assert made is TokenizersBackend or "convert_to_native_format" not in vars(made), made
            else:
                assert arguments <= made.vocab_files_names.keys(), made
    assert seen > 100
    # and of those that take the tokenizer.json, some that name no vocabulary of their own
    outside = write_outside(tmp_path)
    for named in ("GemmaTokenizer", "Siglip2Tokenizer", "Qwen2Tokenizer", "Qwen3_5Tokenizer", "TokenizersBackend"):
        set_in(base / "tokenizer_config.json", tokenizer_class=named)
        before = AutoTokenizer.from_pretrained(base).get_vocab()
        set_in(base / "tokenizer_config.json", **outside)
        check_folder(base)
        assert load_tokenizer(base).get_vocab() == before
        set_in(base / "tokenizer_config.json", **dict.fromkeys(outside))


def write_outside(tmp_path: Path) -> dict[str, str]:
    """Write a vocabulary with a token "<outside>" outside the base, and return the settings that name it."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps({"<outside>": 0, "<unk>": 1, "<pad>": 2, "<eos>": 3, "<bos>": 4}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return {"vocab_file": str(folder / "vocab.json"), "merges_file": str(folder / "merges.txt")}


def reads_outside(base: Path) -> bool:
    """Say whether transformers itself takes the vocabulary outside; it may find none at all, and say so."""
    from transformers import AutoTokenizer

    try:
        return "<outside>" in AutoTokenizer.from_pretrained(base).get_vocab()
    except (ImportError, ValueError):
        return False


@pytest.mark.parametrize(
    ("beside", "named", "kind", "value"),
    [
        ("", "GemmaTokenizer", "llama", None),
        ("vocab.json", "GemmaTokenizer", "llama", None),
        # for some kinds of models transformers takes the model's class, whatever class is asked for
        ("vocab.json", "GPT2Tokenizer", "siglip2", None),
        # a plain name is one in the working folder
        ("vocab.json", "GemmaTokenizer", "llama", "vocab.json"),
        # what transformers takes for a tokenizer.json that is there, and opens not
        ("tokenizer.json/a.json", "GemmaTokenizer", "llama", None),
        ("tokenizer.json/a.json tokenizer.model", "GemmaTokenizer", "llama", None),
        ("old.tokenizer.json tokenizer.model", "GemmaTokenizer", "llama", None),
    ],
)
def test_without_a_tokenizer_json_a_vocabulary_that_the_settings_name_is_read_from_anywhere_and_refused(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: str, named: str, kind: str, value: str | None
) -> None:
    outside = write_outside(tmp_path)
    monkeypatch.chdir(tmp_path / "outside")
    (base / "tokenizer.json").unlink()
    for name in beside.split():
        (base / name).parent.mkdir(exist_ok=True)
        (base / name).write_text("{}")
    set_in(base / "config.json", model_type=kind)
    set_in(base / "tokenizer_config.json", tokenizer_class=named, **outside)
    if value is not None:
        set_in(base / "tokenizer_config.json", vocab_file=value)
    assert reads_outside(base)
    with pytest.raises(InputError, match=r"_file'.*take it out.*or put a tokenizer\.json beside it"):
        check_folder(base)


def test_beside_a_tokenizer_model_no_vocabulary_that_the_settings_name_is_read(base: Path, tmp_path: Path) -> None:
    """Where this fails, transformers has changed, and `REPLACED_BESIDE_MODEL` may not be let in."""
    outside = write_outside(tmp_path)
    (base / "tokenizer.json").unlink()
    for named in ("GemmaTokenizer", "Siglip2Tokenizer"):
        set_in(base / "tokenizer_config.json", tokenizer_class=named, **outside)
        assert reads_outside(base)
        (base / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>")
        assert not reads_outside(base)
        with pytest.raises(InputError, match="'merges_file'"):
            check_folder(base)
        set_in(base / "tokenizer_config.json", merges_file=None)
        check_folder(base)
        assert not reads_outside(base)
        (base / "tokenizer.model").unlink()


@pytest.mark.parametrize(
    ("file", "group"),
    [
        ("tokenizer_config.json", "extra_special_tokens"),
        ("tokenizer_config.json", "additional_special_tokens"),
        ("tokenizer_config.json", "model_specific_special_tokens"),
        ("special_tokens_map.json", "extra_special_tokens"),
    ],
)
def test_tokens_that_are_named_as_settings_are_tokens_and_nothing_else(
    base: Path, tmp_path: Path, file: str, group: str
) -> None:
    outside = write_outside(tmp_path)
    as_settings = {"vocab": outside["vocab_file"], "merges": outside["merges_file"]}
    if file == "special_tokens_map.json":
        (base / file).write_text("{}")
    set_in(base / file, **{group: {**as_settings, "init_inputs": "<i>"}})
    before = dict(load_tokenizer(base).get_vocab())
    assert {*as_settings.values(), "<i>"} <= before.keys()
    assert "<outside>" not in before
    # as settings they are read
    (base / "tokenizer.json").unlink()
    set_in(base / "tokenizer_config.json", tokenizer_class="GemmaTokenizer")
    check_folder(base)
    assert not reads_outside(base)
    set_in(base / "tokenizer_config.json", **as_settings)
    assert reads_outside(base)
    with pytest.raises(InputError, match=r"'(vocab|merges)', by which a tokenizer may read any file"):
        check_folder(base)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
def test_a_token_that_is_named_as_a_file_makes_a_token_of_where_the_folder_lies_and_is_refused(
    base: Path, file: str
) -> None:
    from transformers import AutoTokenizer

    (base / "tokenizer.model").write_bytes(b"\x0a\x0e\x0a\x05<unk>")
    if file == "special_tokens_map.json":
        (base / file).write_text("{}")
    set_in(base / file, extra_special_tokens={"vocab_file": "<v>"})
    moved = Path(shutil.copytree(base, base.parent / "moved"))
    assert fingerprint(moved) == fingerprint(base)
    assert AutoTokenizer.from_pretrained(moved).get_vocab() != AutoTokenizer.from_pretrained(base).get_vocab()
    with pytest.raises(InputError, match=r"names a token 'vocab_file'.*give the token a name that ends in _token"):
        check_folder(base)


def test_a_path_in_the_place_of_a_vocabulary_is_opened_and_refused(base: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    outside = tmp_path / "vocab.txt"
    outside.write_text("\n".join(["<outside>", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", "a"]))
    set_in(base / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    kept = (base / "tokenizer.json").read_text()
    wordpiece = {"type": "WordPiece", "unk_token": "[UNK]", "max_input_chars_per_word": 9}
    set_in(base / "tokenizer.json", model={**wordpiece, "continuing_subword_prefix": "##", "vocab": str(outside)})
    assert reads_outside(base)
    with pytest.raises(InputError, match=r"text as 'model\.vocab', which a tokenizer may open as a path"):
        check_folder(base)
    (base / "tokenizer.json").write_text(kept)
    set_in(base / "tokenizer_config.json", tokenizer_class="MyT5Tokenizer")
    maps = base / "byte_maps.json"
    maps.write_text(json.dumps({"decompose_map": str(outside), "merge_map": {}}))
    for rules in ({"61": "62"}, {"61": "63"}):
        outside.write_text(json.dumps(rules))
        assert AutoTokenizer.from_pretrained(base).decompose_rewriter.rewrite_bytes(["61"]) == list(rules.values())
    with pytest.raises(InputError, match="text as 'decompose_map'"):
        check_folder(base)


def test_ids_among_the_special_tokens_change_nothing_that_the_digest_would_not_tell(base: Path) -> None:
    before, digest = load_tokenizer(base), fingerprint(base).tokenizer
    (base / "special_tokens_map.json").write_text(json.dumps({"pad_token_id": 9, "eos_token_ids": [7], "unk_id": 5}))
    after = load_tokenizer(base)
    assert (after.get_vocab(), after.special_tokens_map) == (before.get_vocab(), before.special_tokens_map)
    assert after.pad_token_id == before.pad_token_id
    assert after("a b c").input_ids == before("a b c").input_ids
    assert fingerprint(base).tokenizer != digest


def test_a_shard_that_the_index_names_must_be_there(base: Path) -> None:
    (base / "model.safetensors").rename(base / "shard.safetensors")
    index = {"weight_map": {"a": "shard.safetensors", "b": "other.safetensors"}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match=r"other\.safetensors"):
        weight_files(base)


def test_weights_that_could_be_others_than_those_that_are_fingerprinted_are_refused(base: Path) -> None:
    shutil.copy(base / "model.safetensors", base / "shard.safetensors")
    index = base / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "shard.safetensors"}}))
    for judge in (check_base, fingerprint):
        with pytest.raises(InputError, match="could be either"):
            judge(base)
    index.unlink()
    (base / "adapter_config.json").write_text("{}")
    for judge in (check_base, fingerprint):
        with pytest.raises(InputError, match="an adapter would be laid over"):
            judge(base)


def test_vocabularies_as_they_are_trained_are_no_pickles(base: Path) -> None:
    """A real vocabulary as a list of words, each of its tokens in front once: some begin as a pickle's opcodes do."""
    words = list(json.loads((base / "tokenizer.json").read_text())["model"]["vocab"])
    for first in range(len(words)):
        content = "\n".join(words[first:] + words[:first]).encode()
        assert not runs_something(content), words[first]
    assert runs_something(b"cos\nsystem\n(S'id'\ntR" + content)
