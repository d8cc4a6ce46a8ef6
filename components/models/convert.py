"""GGUF to safetensors: quantised blocks become a dense float32 base, once. Called by sources behind the download.

The result has the scores of the quantised file, not of the model it was made from. Two conversions of the same file
give the same bytes.
"""

from __future__ import annotations

import contextlib
import io
import struct
from pathlib import Path
from typing import Any

from components.errors import InputError, TunewrightError
from components.models.quiet import quiet

__all__ = ["CONVERTER_REVISION", "convert_gguf"]

# Part of the name of a converted folder: a change below that changes the bytes raises it.
CONVERTER_REVISION = 1
PROBE_TEXT = "SELECT count(*) FROM singer WHERE age > 30"


def convert_gguf(source: Path, folder: Path) -> Path:
    """Write a GGUF file's model, tokenizer and chat template as safetensors and text.

    Args:
        source: The GGUF file.
        folder: Existing, empty folder for config.json, model.safetensors, the tokenizer and its template.

    Returns:
        The folder.

    Raises:
        InputError: The file is not a GGUF model that transformers knows, or it has no chat template.
        TunewrightError: What was written doesn't load back with the same logits.
    """
    import torch

    tokenizer, model = _read(source)
    if not tokenizer.chat_template:
        raise InputError(f"{source} carries no chat template", next_step="choose an instruction-tuned model")
    _repair_tokenizer(tokenizer, source)
    config, generation = model.config, model.generation_config
    config.pad_token_id = generation.pad_token_id = tokenizer.pad_token_id
    config.eos_token_id = generation.eos_token_id = tokenizer.eos_token_id
    config.bos_token_id = generation.bos_token_id = tokenizer.bos_token_id
    model.eval()
    ids = torch.tensor([tokenizer(PROBE_TEXT, add_special_tokens=False)["input_ids"]])
    with torch.no_grad():
        before = model(input_ids=ids).logits
    with quiet():
        model.save_pretrained(str(folder), max_shard_size="4GB")
        tokenizer.save_pretrained(str(folder))
    del model
    _verify(folder, ids, before)
    return folder


def _read(source: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where, name = str(source.parent), source.name
    # the reader draws its bar with tqdm itself, on whatever standard error is at that moment
    with quiet(), contextlib.redirect_stderr(io.StringIO()):
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                where, gguf_file=name, local_files_only=True, mistral_format=False
            )
            model = AutoModelForCausalLM.from_pretrained(
                where,
                gguf_file=name,
                quantization_config=GgufConfig(dequantize=True),
                dtype=torch.float32,
                local_files_only=True,
            )
        except (OSError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError, struct.error) as error:
            raise InputError(
                f"{source} is not a GGUF model that can be converted: {error}",
                allowed="architectures that transformers reads from GGUF",
                next_step="give a folder of safetensors instead",
            ) from error
    # the loader's quantizer would make save_pretrained refuse, though nothing is quantised any more
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(model, name):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.is_quantized = False
    return tokenizer, model


def _repair_tokenizer(tokenizer: Any, source: Path) -> None:
    """Put back what the GGUF reader of transformers leaves out, and give padding a token of its own."""
    from gguf import GGUFReader
    from tokenizers import pre_tokenizers

    field = GGUFReader(str(source)).get_field("tokenizer.ggml.pre")
    if field is not None and field.contents() == "smollm":
        # this family was trained on digits one by one, split off before the byte-level rule sees the spaces
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        spare = [tokenizer.unk_token, "<|endoftext|>", "<pad>", "<|pad|>"]
        known = tokenizer.get_vocab()
        free = next((token for token in spare if token in known and token != tokenizer.eos_token), None)
        if free is not None:
            tokenizer.pad_token = free


def _verify(folder: Path, ids: Any, expected: Any) -> None:
    """Load the folder as anybody would and compare its logits on the probe."""
    import torch
    from transformers import AutoModelForCausalLM

    with quiet():
        again = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.float32, local_files_only=True)
    tied = again.get_input_embeddings().weight.data_ptr() == again.get_output_embeddings().weight.data_ptr()
    again.eval()
    with torch.no_grad():
        logits = again(input_ids=ids).logits
    if not torch.equal(logits, expected):
        raise TunewrightError(
            f"the converted base in {folder} gives other logits than its source",
            next_step="report this with the versions of transformers and safetensors",
        )
    if bool(again.config.tie_word_embeddings) != tied:
        raise TunewrightError(f"the converted base in {folder} lost the tie between its embeddings")
