"""What was trained goes to disk and is proven there: the saved weights give the logits of those in memory.

Written aside and renamed, so that a folder with this name is whole. Between the trainer and whoever registers.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import TunewrightError
from components.finetuning.full import FullSettings
from components.finetuning.lora import LoraSettings
from components.finetuning.methods import Method, MethodSettings
from components.finetuning.shards import gathered_dtype
from components.runtime import release_heap

if TYPE_CHECKING:
    from torch import Tensor

    from components.data.packing import PackedSequence
    from components.finetuning.settings import FinetuneSettings
    from components.models.rope import RopeScaling

__all__ = [
    "LOGIT_TOLERANCE",
    "check_saved",
    "keep_untrained",
    "kind_of",
    "probed",
    "rebuild",
    "rounded_by_start",
    "save",
    "takes_weights",
]

# reloaded float32 weights are the same bits; kernels may sum in another order
LOGIT_TOLERANCE = 1e-4
# How far rounding what PiSSA leaves of the weights may move a logit, against the largest: a fortieth was seen in
# bfloat16 (135M model, rank 16 on all layers), and 3e-6 in float32.
MOST_ROUNDED = {"16 bits": 2**-3, "float32": 1e-4}
# float32 tells logits of this size apart; a run that moves none of them by as much has taught nothing.
LEAST_CHANGE = 1e-6
# The last places of a sequence that are compared: an answer's.
PROBED_TOKENS = 64


def kind_of(method: Method, settings: MethodSettings) -> str:
    """Return what a run leaves, as the registry calls it: "adapter", "full", or "quantized" where it trained for it."""
    return "quantized" if isinstance(settings, FullSettings) and settings.quantization_aware else method.kind


def takes_weights(settings: MethodSettings) -> bool:
    """Tell whether what is attached takes a part of the base's weights with it (PiSSA)."""
    return isinstance(settings, LoraSettings) and settings.start == "pissa"


def rounded_by_start(plain: Tensor, start: Tensor, dtype: str) -> float:
    """Return how far a logit moved when a part of the base's weights was taken out and put beside them.

    Args:
        plain: What the base said, as `probed` gives it.
        start: What the model says before the first step.
        dtype: Of what is left of the weights.

    Raises:
        TunewrightError: Farther than rounding moves it: a part was lost.
    """
    moved = float((start - plain.to(start.device)).abs().max())
    limit = MOST_ROUNDED["float32" if dtype == "float32" else "16 bits"] * float(plain.abs().max())
    if not moved <= limit:
        raise TunewrightError(
            f"the adapter's start changes the base's logits by {moved:.3g}, more than rounding does",
            allowed=f"at most {limit:.3g} in {dtype}",
            next_step="set finetune.lora_start to zero, or memory.dtype to float32",
        )
    return moved


def keep_untrained(model: Any, settings: MethodSettings, run_folder: Path, *, write: bool = True) -> Path | None:
    """Write the adapter down as it begins, where it took a part of the base's weights with it (PiSSA).

    Args:
        model: The model before the first step.
        settings: The method's own.
        run_folder: The folder goes there.
        write: Whether this process does so, of several with the same adapter.

    Returns:
        Its folder, or None where the base is untouched.
    """
    if not takes_weights(settings):
        return None
    from components.models.adapters import save_adapter

    folder = run_folder / "untrained"
    if not write:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    config = model.peft_config["default"]
    start = config.init_lora_weights
    # peft would take the weights apart once more when it reads this
    config.init_lora_weights = True
    try:
        save_adapter(model, folder)
    finally:
        config.init_lora_weights = start
    return folder


def rebuild(
    base_folder: Path,
    method: Method,
    settings: FinetuneSettings,
    state: Mapping[str, Tensor],
    probe: PackedSequence,
    said: Tensor,
) -> Any:
    """Put a model together that several processes had parts of.

    Args:
        base_folder: The base.
        method: How it was trained.
        settings: The run's.
        state: What was trained, whole, by name.
        probe: A sequence to compare on.
        said: What the parted model said of it, as `probed` gives it.

    Returns:
        The whole model.

    Raises:
        TunewrightError: It gives other logits than the parted one.
    """
    from components.models.load import load_model

    dtype = "float32" if method.kind == "full" else settings.dtype
    # where one device holds a part only, the whole may not fit it
    base = load_model(base_folder, dtype=dtype, rope_scaling=settings.rope_scaling, device="cpu")
    model = method.attach(base, settings.attachment)
    parameters = dict(model.named_parameters())
    for name, value in state.items():
        # in the place of what was loaded, which is let go
        parameters[name].data = value.to(parameters[name].device)
    with _in_dtype(parameters.values(), gathered_dtype(settings)):
        found = probed(model, probe)
    _compare(said.to(found.device), found, settings.dtype, "the gathered weights", "the parted ones")
    return model


@contextmanager
def _in_dtype(parameters: Iterable[Any], dtype: str | None) -> Iterator[None]:
    """Let parameters have another dtype while the block runs, as they have where they are gathered; None: their own."""
    import torch

    before = [(parameter, parameter.data) for parameter in parameters]
    if dtype is not None:
        for parameter, value in before:
            parameter.data = value.to(getattr(torch, dtype))
    try:
        yield
    finally:
        for parameter, value in before:
            parameter.data = value


def save(
    model: Any,
    method: Method,
    base_folder: Path,
    folder: Path,
    untrained: Path | None = None,
    rope_scaling: RopeScaling | None = None,
    quantization_aware: str | None = None,
) -> Path:
    """Write an adapter with the digests of its base, or a whole model with its tokenizer.

    Args:
        model: The trained model.
        method: How it was trained.
        base_folder: The base that it was trained on.
        folder: Where it goes; what is there is replaced.
        untrained: As `keep_untrained` gave it.
        rope_scaling: How the base's positions were scaled; an adapter takes it along, whole weights have it in their
            config.
        quantization_aware: The integers that whole weights were trained to become.

    Returns:
        The folder.
    """
    from components.files import place_folder
    from components.models.adapters import save_adapter
    from components.models.fingerprint import fingerprint, write_binding
    from components.models.quantize import save_quantized

    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    if quantization_aware is not None:
        save_quantized(model, quantization_aware, base_folder, aside)
    elif method.kind == "full":
        _save_whole(model, base_folder, aside)
    else:
        save_adapter(model, aside, untrained=untrained)
        write_binding(aside, fingerprint(base_folder), rope_scaling)
    place_folder(aside, folder)
    if untrained is not None:
        shutil.rmtree(untrained)
    return folder


def check_saved(
    model: Any,
    method: Method,
    base_folder: Path,
    folder: Path,
    probe: PackedSequence,
    start: Tensor,
    dtype: str,
    *,
    fresh: bool = False,
    rounded: float = 0.0,
    rope_scaling: RopeScaling | None = None,
    device: str | None = None,
) -> float:
    """Load what was saved and compare what it says with what the trained model says.

    In float32 an adapter that merges is compared with its deltas folded into the weights as well; loading a merged
    model, as serving does, is not what is tried.

    Args:
        model: The trained model in memory. Its weights are let go where another whole model takes their place: with a
            method that leaves one, and with `fresh`.
        method: How it was trained.
        base_folder: The base that it was trained on.
        folder: What was saved.
        probe: A sequence to compare on.
        start: What the model said of it before the first step, as `probed` gave it.
        dtype: Of the weights that were not trained.
        fresh: Load an adapter on a base of its own: the one in memory isn't the base that it is bound to.
        rounded: How far a logit moved when a part of the base's weights was taken out and put beside them, which is
            nothing but rounding what is left: the base as it is doesn't have that.
        rope_scaling: How the base's positions were scaled.
        device: Where another whole model is loaded; None for the accelerator where there is one.

    Returns:
        The largest change of a logit that training made.

    Raises:
        TunewrightError: The saved weights give other logits, merged ones too, or lost their scaling; or training
            changed nothing.
        InputError: What was saved is bound to another base.
    """
    from components.models.adapters import adapter_in_its_place, merges
    from components.models.fingerprint import check_binding
    from components.models.load import load_model

    model.eval()
    in_memory = probed(model, probe)
    # merged into 4 bits nothing is, and 16 bits round what is merged
    merging = method.kind == "adapter" and method.quantization is None and dtype == "float32" and merges(folder)
    if method.kind == "adapter":
        check_binding(folder, base_folder)
    if rope_scaling is not None:
        _check_scaling(folder, method.kind, rope_scaling)
    if method.kind == "full" or fresh:
        whole = method.kind == "full"
        # two bases side by side would take more than the training did
        _let_go(model)
        loaded = load_model(
            folder if whole else base_folder,
            dtype=dtype,
            quantization=method.quantization,
            adapter=None if whole else folder,
            device=device,
        )
        saved = probed(loaded, probe)
        merged = _merged(loaded, probe) if merging else None
    else:
        with adapter_in_its_place(model, folder) as replaced:
            saved = probed(replaced, probe)
            merged = _merged(replaced, probe) if merging else None
    _compare(in_memory, saved, dtype, "the saved weights", "the trained ones", rounded)
    if merged is not None:
        # large logits show the rounding of a sum: of up to 44, sixteen adapters of the 135M model moved them by up to
        # 1.03e-4
        slack = LOGIT_TOLERANCE * max(0.0, float(saved.abs().max()) - 1)
        _compare(saved, merged, dtype, "the weights with the adapter merged", "base and adapter", slack)
    change = float((in_memory - start.to(in_memory.device)).abs().max())
    if change < LEAST_CHANGE:
        raise TunewrightError(
            "training changed no logit: it had no effect",
            next_step="check finetune.learning_rate, finetune.targets and the loss curve",
        )
    return change


def _merged(model: Any, probe: PackedSequence) -> Tensor:
    from components.models.adapters import folded_in

    with folded_in(model):
        return probed(model, probe)


def _compare(expected: Tensor, found: Tensor, dtype: str, what: str, with_what: str, rounded: float = 0.0) -> None:
    """Hold two models' logits against each other.

    Raises:
        TunewrightError: They differ by more than kernels do.
    """
    # bfloat16 keeps 8 bits: two kernels may differ in the last of them
    tolerance = rounded + (LOGIT_TOLERANCE if dtype == "float32" else 2**-6 * float(expected.abs().max()))
    difference = float((found - expected).abs().max())
    if not difference <= tolerance:
        raise TunewrightError(
            f"{what} give other logits than {with_what}: largest difference {difference:.3g}",
            allowed=f"at most {tolerance:.3g}",
            next_step="run again; if it stays, report it with the recipe",
        )


def _let_go(model: Any) -> None:
    """Free a model's weights, whoever else holds on to the model, for the one that is loaded in its place."""
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.new_empty(0)
    # what a heap keeps of the training would stand beside it: PiSSA's check took 0.6 GiB over the training's peak
    release_heap()


def _check_scaling(folder: Path, kind: str, trained: RopeScaling) -> None:
    """Hold the scaling on disk against that of training: short probes don't show dynamic frequencies.

    Raises:
        TunewrightError: It is another one, or none.
    """
    from transformers import AutoConfig

    from components.models.fingerprint import read_rope_scaling
    from components.models.rope import read_scaling

    if kind == "adapter":
        found = read_rope_scaling(folder)
    else:
        found = read_scaling(AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False))
    if found != trained:
        raise TunewrightError(
            f"what was saved has RoPE scaling {found}, and was trained under {trained}",
            next_step="run again; if it stays, report it with the recipe",
        )


def probed(model: Any, probe: PackedSequence) -> Tensor:
    """Return what a model says of the last places of a sequence: logits [64 at most, V] float32, in evaluation mode."""
    import torch

    from components.data.packing import collate
    from components.models.forward import hidden_states, logits

    device = next(model.parameters()).device
    batch = {name: value.to(device) for name, value in collate([probe], 0).items()}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        found: Tensor = logits(model, hidden_states(model, batch)[0, -PROBED_TOKENS:])
    model.train(was_training)
    return found


def _save_whole(model: Any, base_folder: Path, folder: Path) -> None:
    """Write weights and config, and what the base has beside them: tokenizer, template, licence."""
    from components.models.fingerprint import base_files
    from components.models.quiet import quiet

    folder.mkdir(parents=True)
    for name, path in base_files(base_folder).items():
        if not name.endswith((".safetensors", ".safetensors.index.json")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, folder / name)
    with quiet():
        model.save_pretrained(folder, safe_serialization=True)
