"""What is trained beside a base: read, written, switched off and folded in, peft's adapters and ours alike.

An adapter's folder has adapter_config.json, adapter_model.safetensors and the digests of its base. Its `peft_type`
says what it is; the bottleneck adapters that peft hasn't have the same files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.models import bottleneck_layers
from components.models.bottleneck_layers import CONFIG_FILE, WEIGHTS_FILE
from components.models.fingerprint import BINDING_FILE
from components.models.forward import causal_model
from components.models.quiet import quiet
from components.models.soft_prompt import soft_prompt_of

__all__ = [
    "ADAPTER_FILES",
    "adapter_in_its_place",
    "adapter_virtual_tokens",
    "add_adapter",
    "folded_in",
    "merges",
    "save_adapter",
    "without_adapter",
]

ADAPTER_FILES = (CONFIG_FILE, WEIGHTS_FILE, BINDING_FILE)
# A low-rank delta has the shape of the weight beside it; the others compute what no weight of the base can.
MERGED_TYPES = ("LORA",)
# What is trained here; peft knows more, and reads the config of each in a way of its own.
KNOWN_TYPES = (*MERGED_TYPES, bottleneck_layers.PEFT_TYPE, "PREFIX_TUNING", "PROMPT_TUNING", "P_TUNING")
SOFT_PROMPT_KEY = "prompt_embeddings"


def merges(folder: Path) -> bool:
    """Tell whether an adapter can be folded into its base's weights.

    Args:
        folder: The adapter's.

    Raises:
        InputError: No adapter_config.json that can be read.
    """
    return _peft_type(folder) in MERGED_TYPES


def adapter_virtual_tokens(folder: Path) -> int:
    """Return how many positions a saved adapter takes before every input; 0 where it is no soft prompt.

    Args:
        folder: The adapter's.

    Raises:
        InputError: No adapter_config.json that can be read.
    """
    if _peft_type(folder) in (*MERGED_TYPES, bottleneck_layers.PEFT_TYPE):
        return 0
    count = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8")).get("num_virtual_tokens")
    # what else it may say is refused with the tensors at hand, where the adapter is loaded
    return count if isinstance(count, int) else 0


def add_adapter(model: Any, folder: Path, *, merge: bool = False) -> Any:
    """Put a saved adapter on its base.

    Args:
        model: The base; it is changed.
        folder: The adapter's; that it belongs to this base has been checked.
        merge: Fold it into the weights.

    Returns:
        The model: a plain one when merged, and for bottleneck adapters, which hang inside it.

    Raises:
        InputError: Files that can't be used, or an adapter that can't be merged.
    """
    from peft import PeftModel

    kind = _peft_type(folder)
    _check_sizes(folder, kind)
    if merge and kind not in MERGED_TYPES:
        raise InputError(
            f"the adapter in {folder} ({kind}) can't be folded into weights",
            allowed=f"adapters of the types {', '.join(MERGED_TYPES)}",
            next_step="load it without merging",
        )
    if kind == bottleneck_layers.PEFT_TYPE:
        bottleneck_layers.load_bottlenecks(model, folder)
        return model
    with quiet():
        try:
            wrapped = PeftModel.from_pretrained(model, str(folder), is_trainable=False, local_files_only=True)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise InputError(f"the adapter in {folder} can't be loaded: {error}") from error
        _check_loaded(wrapped, folder)
        if not merge:
            return wrapped
        _untie_adapted_head(wrapped)
        return wrapped.merge_and_unload(safe_merge=True)


def save_adapter(model: Any, folder: Path, *, untrained: Path | None = None) -> None:
    """Write a model's adapter, without a path of this machine.

    Args:
        model: A peft model, or one with bottleneck adapters.
        folder: A folder of its own, which need not exist.
        untrained: For a start that took a part of the base's weights into the adapter (PiSSA): the folder of the
            adapter as it began. What is written then is a plain LoRA of twice the rank on the untouched base.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if bottleneck_layers.is_bottlenecked(model):
        bottleneck_layers.save_bottlenecks(model, folder)
        return
    converted = {} if untrained is None else {"path_initial_model_for_weight_conversion": str(untrained)}
    with quiet():
        # peft would look the base up on a hub to see whether its vocabulary was resized
        model.save_pretrained(folder, safe_serialization=True, save_embedding_layers=False, **converted)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / CONFIG_FILE).read_text())
    # a path of this machine is no name for a base; the fingerprint beside it is
    config["base_model_name_or_path"] = None
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


@contextmanager
def without_adapter(model: Any) -> Iterator[Any]:
    """Give the model as its base computes, while the block runs.

    Args:
        model: A peft model, or one with bottleneck adapters.
    """
    if bottleneck_layers.is_bottlenecked(model):
        context: Any = bottleneck_layers.switched_off(model)
    elif soft_prompt_of(model) is not None:
        # a soft prompt stands before the base, which is as it was
        model, context = causal_model(model), nullcontext()
    else:
        context = model.disable_adapter()
    with context:
        yield model


@contextmanager
def adapter_in_its_place(model: Any, folder: Path) -> Iterator[Any]:
    """Give the model with a saved adapter in the place of the one that it has, while the block runs.

    On the same base: a second one would need the memory of a whole run again.

    Args:
        model: A peft model, or one with bottleneck adapters.
        folder: A saved adapter of the same kind.
    """
    if bottleneck_layers.is_bottlenecked(model):
        kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items() if _is_ours(name)}
        bottleneck_layers.load_bottlenecks(model, folder)
        try:
            yield model
        finally:
            model.load_state_dict(kept, strict=False)
        return
    trained = model.active_adapter
    with quiet():
        model.load_adapter(str(folder), adapter_name="saved", is_trainable=False, local_files_only=True)
    model.set_adapter("saved")
    try:
        yield model
    finally:
        model.set_adapter(trained)
        model.delete_adapter("saved")


@contextmanager
def folded_in(model: Any) -> Iterator[Any]:
    """Give a peft model with its low-rank adapter folded into the weights, while the block runs.

    The deltas are added in place and taken away again, which leaves a weight off by its last bits; a head that shares
    the embedding's weight and has an adapter gets one of its own, and keeps it.

    Args:
        model: A peft model with one active adapter of a type that merges, on plain weights.
    """
    _untie_adapted_head(model)
    try:
        model.base_model.merge_adapter()
        yield model
    finally:
        # peft warns of each layer that a merge which failed halfway didn't reach
        with quiet():
            model.base_model.unmerge_adapter()


def _is_ours(name: str) -> bool:
    return f".{bottleneck_layers.CHILD}." in name


def _peft_type(folder: Path) -> str:
    try:
        kind = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder} holds no adapter: {CONFIG_FILE} is missing or says no peft_type ({type(error).__name__})",
            allowed=f"a folder with {', '.join(ADAPTER_FILES)}",
        ) from error
    if kind not in KNOWN_TYPES:
        raise InputError(
            f"the adapter in {folder} has the peft_type {kind!r}", allowed=", ".join(KNOWN_TYPES),
            next_step="train it by one of these methods",
        )  # fmt: skip
    return str(kind)


def _check_sizes(folder: Path, kind: str) -> None:
    """Hold the sizes that a config asks for against the tensors' header, before any of it is allocated.

    Raises:
        InputError: A config that asks for more than the file has, or a file that can't be read.
    """
    from safetensors import SafetensorError, safe_open

    config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
    path = folder / WEIGHTS_FILE
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} can't be read: {error}", next_step="register or copy the adapter again") from error
    if kind in MERGED_TYPES:
        key, ends = "r", ".lora_A.weight"
    elif kind == bottleneck_layers.PEFT_TYPE:
        key, ends = "width", f".{bottleneck_layers.CHILD}.0.weight"
    else:
        key, ends = "num_virtual_tokens", SOFT_PROMPT_KEY
    found = [shape[0] for name, shape in shapes.items() if name.endswith(ends) and shape]
    asked = [config.get(key), *(config.get("rank_pattern") or {}).values()]
    if not found or not all(type(value) is int and value >= 1 for value in asked) or max(asked) > max(found):
        raise InputError(
            f"the adapter in {folder} asks for {key} {config.get(key)!r}, and its tensors have {max(found, default=0)}",
            allowed="a config that fits the tensors beside it",
            next_step="register or copy the adapter again",
        )


def _check_loaded(wrapped: Any, folder: Path) -> None:
    """Refuse an adapter of which a tensor found no place, or that left a place empty: peft only warns.

    Raises:
        InputError: With the first tensor that is on one side only.
    """
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS_FILE, "pt") as file:
        given = set(file.keys())
    placed = set(get_peft_model_state_dict(wrapped, save_embedding_layers=False))
    if odd := sorted(given ^ placed):
        raise InputError(
            f"the adapter in {folder} is not one for this base: {odd[0]} is on one side only ({len(odd)} such tensors)",
            allowed="an adapter whose tensors are those that its config asks for",
        )


def _untie_adapted_head(wrapped: Any) -> None:
    """Give the head a weight of its own where it shares the embedding's and one of the two has an adapter.

    A delta folded into the shared weight would change both, which is not what was trained.
    """
    import torch

    inner = wrapped.get_base_model()
    head, embedding = inner.get_output_embeddings(), inner.get_input_embeddings()
    adapted = [part for part in (head, embedding) if hasattr(part, "base_layer")]
    if adapted and head is not None and head.weight is embedding.weight:
        plain = getattr(head, "base_layer", head)
        plain.weight = torch.nn.Parameter(plain.weight.detach().clone(), requires_grad=False)
        inner.config.tie_word_embeddings = False
