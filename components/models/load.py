"""Load a base, plain or quantized, with or without an adapter. Behind sources and safety, before training and serving.

Everything is read from local folders; code in a model folder is never imported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.errors import InputError
from components.models.adapters import adapter_virtual_tokens, add_adapter, merges
from components.models.fingerprint import check_binding, read_rope_scaling
from components.models.forward import check_logits
from components.models.head import HeadedModel, is_head, load_head
from components.models.quantize import QUANTIZED, load_quantized, stored_quantization
from components.models.quiet import quiet
from components.models.rope import RopeScaling, cached_positions, free_of_history, read_scaling, scale_config
from components.models.safety import check_chat_template, check_folder

__all__ = [
    "DTYPES",
    "QUANTIZATIONS",
    "load_as_served",
    "load_headed",
    "load_model",
    "load_tokenizer",
    "served_positions",
]

DTYPES = ("float32", "bfloat16", "float16")
# nf4 is made at loading; the others are how weights are stored
QUANTIZATIONS = ("nf4", *QUANTIZED)


def load_tokenizer(folder: Path) -> Any:
    """Load a base's tokenizer.

    Args:
        folder: A checked base folder.

    Returns:
        The tokenizer; it has a pad token, apart from the turn end where the vocabulary has one to spare.

    Raises:
        InputError: Unsafe folder, no chat template, or files that transformers can't read.
    """
    check_folder(folder)
    check_chat_template(folder)
    from transformers import AutoTokenizer

    with quiet():
        try:
            # else tekken.json is read where mistral-common is installed, and the digest is of tokenizer.json
            tokenizer = AutoTokenizer.from_pretrained(
                str(folder), local_files_only=True, trust_remote_code=False, mistral_format=False
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"the tokenizer in {folder} can't be loaded: {error}", next_step="fetch the base again"
            ) from error
    if tokenizer.pad_token is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        # a pad token that is the turn end hides the turn end from anyone who masks padding by its id
        unknown = tokenizer.unk_token
        tokenizer.pad_token = unknown if unknown and unknown != tokenizer.eos_token else tokenizer.eos_token
    return tokenizer


def load_model(
    folder: Path,
    *,
    dtype: str = "float32",
    quantization: str | None = None,
    adapter: Path | None = None,
    merge: bool = False,
    rope_scaling: RopeScaling | None = None,
    device: str | None = None,
) -> Any:
    """Load a causal language model in evaluation mode.

    Args:
        folder: A checked base folder.
        dtype: One of `DTYPES`; with quantization the dtype of computation.
        quantization: None, or "nf4": linear layers in 4 bits, blocks of 64, with the scales quantized again
            (Dettmers et al. 2023, arXiv:2305.14314). Weights that are stored as integers are loaded as they are; "int8"
            or "int4" asks for such.
        adapter: Folder of a peft adapter that was trained on exactly this base.
        merge: Fold the adapter into the weights and return a plain model.
        rope_scaling: Scale the base's positions; an adapter brings its own, under which it was trained.
        device: Where plain weights go, such as "cpu"; None for the accelerator where there is one.

    Returns:
        The model, on the accelerator where there is one, else on the CPU; a peft model when an adapter stays apart.

    Raises:
        InputError: Unknown dtype or quantization, unsafe folder, an adapter of another base or under another scaling,
            a base that can't be scaled, a contradiction, or a model whose logits
            `components/models/forward.py` can't reproduce.
    """
    if dtype not in DTYPES:
        raise InputError(f"unknown dtype {dtype!r}", allowed=", ".join(DTYPES))
    if quantization is not None and quantization not in QUANTIZATIONS:
        raise InputError(f"unknown quantization {quantization!r}", allowed=", ".join(QUANTIZATIONS))
    if merge and adapter is None:
        raise InputError("merge was asked for without an adapter", next_step="give the adapter to merge")
    if merge and quantization:
        raise InputError(
            "an adapter can't be merged into 4-bit weights without losing part of it",
            allowed="merge into the base in float32, bfloat16 or float16",
            next_step="load without quantization, merge, and evaluate the result as a version of its own",
        )
    check_folder(folder)
    if _is_stored(folder, quantization, adapter, rope_scaling):
        model = load_quantized(folder, dtype)
        check_logits(model)
        return model
    if adapter is not None:
        check_folder(adapter)
        check_binding(adapter, folder)
        rope_scaling = _scaling_of(adapter, rope_scaling)
    model = _load_base(folder, dtype, quantization, rope_scaling, device)
    if quantization is None:
        # in 4 bits the head is the same; a processor's packing for inference is not wanted before training
        check_logits(model.eval())
    if adapter is not None:
        model = add_adapter(model, adapter, merge=merge)
    model.eval()
    return model


def load_as_served(
    folder: Path,
    *,
    adapter: Path | None,
    quantization: str | None,
    dtype: str = "float32",
    rope_scaling: RopeScaling | None = None,
) -> tuple[Any, Any]:
    """Load (model, tokenizer) the way a version is measured and served alike.

    A low-rank adapter on plain weights is merged: the same numbers, fewer multiplications. On a base in 4 bits it stays
    apart, and so do soft prompts and bottleneck adapters everywhere. With a head the model is a `HeadedModel`.

    Args:
        folder: A checked base folder, or that of whole weights.
        adapter: The adapter's or the head's folder, where the version is one.
        quantization: None, "nf4", "int8" or "int4", as the version was trained or made.
        dtype: One of `DTYPES`.
        rope_scaling: Scale a bare base's positions; whatever was trained brings its own scaling.

    Raises:
        InputError: As `load_model` and `load_tokenizer`.
    """
    if adapter is not None and is_head(adapter):
        return load_headed(folder, adapter, dtype=dtype), load_tokenizer(folder)
    merge = adapter is not None and quantization is None and merges(adapter)
    model = load_model(
        folder, dtype=dtype, quantization=quantization, adapter=adapter, merge=merge, rope_scaling=rope_scaling
    )
    return model, load_tokenizer(folder)


def served_positions(folder: Path, adapter: Path | None) -> int | None:
    """Tell from files alone how many positions a prompt and its answer may take together, loaded by `load_as_served`.

    Args:
        folder: A checked base folder, or that of whole weights.
        adapter: What was trained beside it and writes, under the scaling that it was trained under.

    Returns:
        The positions, without those that a soft prompt takes; None where the config says none.

    Raises:
        InputError: Files that can't be read, or a base that can't be scaled so.
    """
    from components.models.base_config import read_config

    config = read_config(folder)
    scaling = None if adapter is None else read_rope_scaling(adapter)
    if scaling is not None:
        scale_config(config, scaling)
    positions = cached_positions(config)
    if positions is None or adapter is None:
        return positions
    return positions - adapter_virtual_tokens(adapter)


def load_headed(folder: Path, head: Path, *, dtype: str = "float32") -> HeadedModel:
    """Load a base with a head that was trained on it.

    Args:
        folder: A checked base folder.
        head: The head's folder.
        dtype: One of `DTYPES`, of the base.

    Raises:
        InputError: As `load_model`, a head of another base, or one that can't be used.
    """
    check_folder(head)
    check_binding(head, folder)
    base = load_model(folder, dtype=dtype)
    return HeadedModel(base, load_head(head, base.config))


def _is_stored(folder: Path, quantization: str | None, adapter: Path | None, rope_scaling: RopeScaling | None) -> bool:
    """Tell whether a folder's weights are stored as integers.

    Raises:
        InputError: They are, and something was asked for that changes or extends them; or they aren't, and should be.
    """
    stored = stored_quantization(folder)
    if stored is None:
        if quantization in QUANTIZED:
            raise InputError(
                f"the weights in {folder} are not in {quantization}",
                allowed="the folder of a version of kind quantized",
                next_step="make one with `tunewright quantize`",
            )
        return False
    own = stored["method"]
    if quantization not in (None, own) or adapter is not None or rope_scaling is not None:
        extended = "an adapter" if adapter is not None else f"RoPE scaling {rope_scaling}" if rope_scaling else None
        asked = extended or quantization
        raise InputError(
            f"the weights in {folder} are in {own} already, and {asked} was asked for",
            allowed="such weights as they are",
            next_step="take the version that they were made from; `tunewright registry lineage` names it",
        )
    return True


def _scaling_of(adapter: Path, asked: RopeScaling | None) -> RopeScaling | None:
    """Return the scaling that an adapter was trained under.

    Raises:
        InputError: Another one was asked for.
    """
    trained = read_rope_scaling(adapter)
    if asked is not None and asked != trained:
        raise InputError(
            f"the adapter in {adapter} was trained {f'under RoPE scaling {trained}' if trained else 'without scaling'}",
            allowed="its own scaling, which is applied wherever it is loaded",
            next_step=f"leave {asked} out",
        )
    return trained


def _load_base(
    folder: Path, dtype: str, quantization: str | None, rope_scaling: RopeScaling | None, device: str | None
) -> Any:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig

    options: dict[str, Any] = {}
    if quantization == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=getattr(torch, dtype),
        )
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    with quiet():
        try:
            if rope_scaling is not None:
                config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
                scale_config(config, rope_scaling)
                options["config"] = config
            model = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=getattr(torch, dtype),
                device_map={"": device},
                attn_implementation="sdpa",
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                **options,
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(
                f"the base in {folder} can't be loaded: {error}",
                allowed="a causal language model whose architecture transformers has",
                next_step="fetch the base again, or choose another",
            ) from error
    if rope_scaling is not None and read_scaling(model.config) != rope_scaling:
        raise InputError(
            f"{type(model).__name__} doesn't take RoPE scaling {rope_scaling}: its config came out with "
            f"{read_scaling(model.config)}",
            next_step="leave finetune.rope_scaling out, or choose another base",
        )
    return free_of_history(model)
