"""What the digests of a base are taken of."""

from __future__ import annotations

import inspect
import json
import re
import shutil
from pathlib import Path

import pytest
import transformers

from components.models.fingerprint import (
    FROM_JSON_ALONE,
    RARE_TOKENIZER_FILES,
    TEKKEN,
    TOKENIZER_FILES,
    belongs_to_base,
    fingerprint,
)
from components.models.load import load_tokenizer
from components.models.scan import ALLOWED_SUFFIXES
from components.models.tiny import make_tiny


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return make_tiny(tmp_path / "base")


def test_no_vocabulary_that_transformers_reads_is_without_a_digest() -> None:
    read: set[str] = set()
    for file in (Path(str(transformers.__file__)).parent / "models").glob("*/tokenization*.py"):
        read |= set(re.findall(r'"\w+_file": "([^"]+)"', file.read_text(encoding="utf-8")))
    let_in = {name for name in read - {"tokenizer_config.json"} if Path(name).suffix in ALLOWED_SUFFIXES}
    assert len(let_in) > 15
    assert {name for name in let_in if not name.endswith(".model")} <= {*TOKENIZER_FILES, *RARE_TOKENIZER_FILES}
    assert all(belongs_to_base(name) for name in let_in)


def test_a_class_of_tokenizers_that_is_asked_for_has_its_vocabulary_in_the_digest(base: Path) -> None:
    settings = base / "tokenizer_config.json"
    tokens = {"bos_token": "a", "eos_token": "b", "unk_token": "c", "pad_token": "b"}
    named = {"tokenizer_class": "GPTNeoXJapaneseTokenizer", **tokens}
    settings.write_text(json.dumps({**json.loads(settings.read_text()), **named}))
    (base / "vocab.txt").write_text("\n".join(["a", "b", "c", "<|endoftext|>", "<|startoftext|>", "x", "y", "z"]))
    found = []
    for number, emoji in enumerate(({}, {"x": "z"})):
        folder = Path(shutil.copytree(base, base.parent / str(number)))
        (folder / "emoji.json").write_text(json.dumps({"emoji": emoji, "emoji_inv": {}}))
        found.append((tuple(load_tokenizer(folder)("xy").input_ids), fingerprint(folder).tokenizer))
    assert found[0][0] != found[1][0]
    assert found[0][1] != found[1][1]


LEFT_OVER = ("sentencepiece.bpe.model", "spm.model", "dict.txt", "normalizer.json", "emoji.json")


def test_old_vocabularies_beside_tokenizer_json_leave_the_digest_as_it_was(base: Path) -> None:
    settings = base / "tokenizer_config.json"
    for named, counts in (
        ("TokenizersBackend", False),
        ("XLMRobertaTokenizerFast", False),
        ("WhisperTokenizer", True),
        ("SomebodysTokenizer", True),
        (None, True),
    ):
        settings.write_text(json.dumps({"tokenizer_class": named}))
        before = fingerprint(base).tokenizer
        for name in LEFT_OVER:
            (base / name).write_text("x")
            assert (fingerprint(base).tokenizer != before) == counts, (named, name)
            (base / name).unlink()


def test_classes_whose_digest_leaves_old_vocabularies_out_read_none_of_them(base: Path) -> None:
    """Where this fails, transformers has changed, and the class may not be among `FROM_JSON_ALONE`."""
    from tokenizers import Tokenizer, models
    from transformers.models.auto import tokenization_auto as auto
    from transformers.tokenization_utils_tokenizers import TokenizersBackend

    settings = base / "tokenizer_config.json"
    kept, by_pairs = json.loads(settings.read_text()), (base / "tokenizer.json").read_text()
    pieces = ["<unk>", "<s>", "</s>", "<pad>", "<|im_start|>", "<|im_end|>", "<|endoftext|>", "a", "b"]
    unigram = Tokenizer(models.Unigram([(piece, -float(place)) for place, piece in enumerate(pieces)], unk_id=0))

    def loaded() -> dict[str, int] | str:
        try:
            return dict(load_tokenizer(base).get_vocab())
        except Exception as error:  # a class that this vocabulary isn't for
            return f"{type(error).__name__}: {error}"

    # for some kinds of models transformers takes the model's class, whatever class is asked for
    instead = {auto.TOKENIZER_MAPPING_NAMES.get(kind) for kind in auto.MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS}
    good = 0
    for name in sorted(FROM_JSON_ALONE | {str(one).removesuffix("Fast") for one in instead if one}):
        made = auto.tokenizer_class_from_name(name) or auto.tokenizer_class_from_name(name + "Fast")
        made = TokenizersBackend if made is None or made.__name__ == "PythonBackend" else made
        assert issubclass(made, TokenizersBackend), name
        for one in made.__mro__[: made.__mro__.index(TokenizersBackend)]:
            own = inspect.getsource(one.__init__) if "__init__" in vars(one) else ""
            assert not re.search(r"open\(|from_file|Extractor|load\(", own), name
            assert not vars(one).keys() & {"from_pretrained", "_from_pretrained", "convert_to_native_format"}, name
        settings.write_text(json.dumps({**kept, "tokenizer_class": name}))
        (base / "tokenizer.json").write_text(by_pairs)
        before = loaded()
        if isinstance(before, str):
            unigram.save(str(base / "tokenizer.json"))
            before = loaded()
        for file in LEFT_OVER:
            (base / file).write_text("[]")
        assert loaded() == before, name
        good += isinstance(before, dict)
        for file in LEFT_OVER:
            (base / file).unlink()
    assert good > 20


@pytest.mark.parametrize(("name", "counts"), [("other.model", True), (TEKKEN, True), ("notes.json", False)])
def test_what_is_read_without_a_tokenizer_json_is_in_the_digest(base: Path, name: str, counts: bool) -> None:
    (base / "tokenizer.json").unlink()
    (base / "vocab.json").write_text("{}")
    before = fingerprint(base).tokenizer
    (base / name).write_text("{}")
    assert (fingerprint(base).tokenizer != before) == counts


def test_a_vocabulary_that_only_another_library_reads_is_not_in_the_digest(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.integrations.mistral import tokenizer as mistral
    from transformers.models.auto import tokenization_auto as auto

    before = fingerprint(base).tokenizer, load_tokenizer(base)("ab").input_ids
    (base / TEKKEN).write_text("{}")
    config = base / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "mistral"}))
    # as where mistral-common is installed, which vLLM brings
    monkeypatch.setattr(mistral, "is_mistral_common_available", lambda: True)
    monkeypatch.setitem(auto.TOKENIZER_MAPPING_NAMES, "mistral", "MistralCommonBackend")
    by_name = auto.tokenizer_class_from_name

    def refuse_other_libraries(name: str) -> object:
        assert name != "MistralCommonBackend", "transformers reads tekken.json beside tokenizer.json"
        return by_name(name)

    monkeypatch.setattr(auto, "tokenizer_class_from_name", refuse_other_libraries)
    # either way to the class of a model: its settings' is another, or they have none
    for named in ("LlamaTokenizerFast", None):
        settings = base / "tokenizer_config.json"
        kept = {key: value for key, value in json.loads(settings.read_text()).items() if key != "tokenizer_class"}
        settings.write_text(json.dumps(kept if named is None else {**kept, "tokenizer_class": named}))
        with_tekken, ids = fingerprint(base).tokenizer, load_tokenizer(base)("ab").input_ids
        assert ids == before[1]
        (base / TEKKEN).unlink()
        assert fingerprint(base).tokenizer == with_tekken
        (base / TEKKEN).write_text("{}")


@pytest.mark.parametrize("asks", ["tokenizer_config.json", "config.json"])
def test_a_class_that_reads_the_other_librarys_vocabulary_has_it_in_the_digest(base: Path, asks: str) -> None:
    for name in ("tokenizer_config.json", "config.json"):
        kept = {key: value for key, value in json.loads((base / name).read_text()).items() if key != "tokenizer_class"}
        (base / name).write_text(
            json.dumps({**kept, "tokenizer_class": "MistralCommonBackend"} if name == asks else kept)
        )
    before = fingerprint(base).tokenizer
    (base / TEKKEN).write_text("{}")
    assert fingerprint(base).tokenizer != before
