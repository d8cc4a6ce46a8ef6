"""Build the model of a simulated step: the real classes on torch's meta device, then fake tensors in their place."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.finetuning.bottleneck import BottleneckSettings
from components.finetuning.features import FeatureSettings
from components.finetuning.full import FullSettings
from components.finetuning.lora import LoraSettings
from components.finetuning.methods import METHODS, MethodSettings, settings_for
from components.finetuning.prompt_tuning import SoftPromptSettings
from components.memory.quantized_layers import fake_parameter, quantize_linear_layers
from components.memory.settings import StepSettings
from components.models.base_config import read_config
from components.models.packed_attention import use_attention
from components.models.rope import RopeScaling, free_of_history, scale_config

__all__ = ["attachment", "build", "build_teacher", "is_mapped", "materialise", "prepared"]


def build(config: Any, settings: StepSettings, *, training: bool = True) -> Any:
    """Build a model without data, prepared by a method as the trainer prepares it.

    Args:
        config: A transformers config.
        settings: Method, dtypes, quantization and what belongs to the method.
        training: Attach what is trained and put the model into training mode; else the frozen model in evaluation mode.

    Returns:
        The model on the meta device.

    Raises:
        InputError: No causal language model of this architecture, targets that match nothing, or a RoPE scaling that it
            doesn't take.
    """
    import torch
    from transformers import AutoModelForCausalLM

    dtype = _loaded_as(settings) if training else getattr(torch, settings.dtype)
    if settings.rope_scaling is not None:
        config = copy.deepcopy(config)
        scale_config(config, RopeScaling.parse(settings.rope_scaling))
    with torch.device("meta"):
        try:
            model = free_of_history(_of_class(AutoModelForCausalLM, config, dtype))
        except (ValueError, KeyError) as error:
            raise InputError(
                f"no causal language model can be built of {type(config).__name__}: {error}",
                allowed="decoder architectures that transformers has",
            ) from error
        if settings.frozen_quantization:
            quantize_linear_layers(model, settings.frozen_quantization, dtype)
        if training:
            # batches of transformers' own loss are whole sequences, which its own attention computes
            if settings.objective == "weighted" and METHODS[settings.method].settings is not SoftPromptSettings:
                attention = "sdpa" if settings.attention == "alone" else settings.attention
                use_attention(model, attention, settings.device, simulated=True)
            model = prepared(model, settings)
        if not settings.mixed:
            _cast(model, dtype)
    model.train(training)
    return model


def build_teacher(settings: StepSettings) -> Any:
    """Build the frozen model that a step learns from, None where it has none.

    Returns:
        The model on the meta device, in the dtype of computation.

    Raises:
        InputError: A teacher's folder that can't be used.
    """
    if settings.teacher is None:
        return None
    frozen = replace(settings, method="lora", quantization=None, teacher=None, rope_scaling=None)
    return build(read_config(Path(settings.teacher)), frozen, training=False).requires_grad_(False)


def materialise(model: Any) -> None:
    """Put fake CPU tensors in the place of meta ones; call inside the fake mode. Ties between weights stay."""
    done: dict[int, tuple[Any, Any]] = {}  # the meta tensor is kept too, so that its id is not used again
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, old in list(tensors.items()):
                if old is None:
                    continue
                if id(old) not in done:
                    done[id(old)] = (old, _fake(old, module))
                tensors[name] = done[id(old)][1]


def is_mapped(tensor: Any, settings: StepSettings, file_dtype: Any) -> bool:
    """Tell whether a tensor of a model is a weight that is read from its file's pages, since it is loaded as it is.

    A weight that is raised to the file's dtype after it was loaded in another one, as 4-bit training does with
    embeddings and norms, is a copy.

    Args:
        tensor: A parameter, a buffer or a scale.
        settings: What is trained and how.
        file_dtype: dtype of the weights on disk.
    """
    import torch

    is_base = isinstance(tensor, torch.nn.Parameter) and tensor.requires_grad == (settings.method == "full")
    return is_base and tensor.dtype == file_dtype == _loaded_as(settings)


def _loaded_as(settings: StepSettings) -> Any:
    """Return the dtype in which a base is loaded for training: whole weights are their own master copy."""
    import torch

    whole = settings.method == "full" and settings.mixed
    return torch.float32 if whole else getattr(torch, settings.dtype)


def _of_class(auto_class: Any, config: Any, dtype: Any) -> Any:
    """Build with torch's fused attention, or, where an architecture hasn't that, with the one that it has."""
    try:
        return auto_class.from_config(config, dtype=dtype, attn_implementation="sdpa")
    except ValueError:
        return auto_class.from_config(config, dtype=dtype, attn_implementation="eager")


def prepared(model: Any, settings: StepSettings) -> Any:
    """Put what is trained beside a frozen model, by the trainer's own functions."""
    from peft import prepare_model_for_kbit_training

    quantized = settings.frozen_quantization is not None
    # whatever packs the base, LoRA on it is QLoRA
    method = METHODS["qlora" if settings.method == "lora" and quantized else settings.method]
    if quantized and method.quantization is None:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return method.attach(model, attachment(settings))


def attachment(settings: StepSettings) -> MethodSettings:
    """Return the method's own settings of a simulated step."""
    return settings_for(
        settings.method,
        LoraSettings(settings.rank, dropout=settings.dropout, targets=settings.targets, dora=settings.dora),
        BottleneckSettings(settings.bottleneck_width),
        SoftPromptSettings(settings.virtual_tokens),
        FullSettings(settings.quantization_aware),
        FeatureSettings(),
    )


def _cast(model: Any, dtype: Any) -> None:
    """Give every parameter that isn't packed one dtype: pure 16-bit training, or what FSDP computes with."""
    for parameter in model.parameters():
        if parameter.is_floating_point() and type(parameter).__name__ not in ("Params4bit", "Int8Params"):
            parameter.data = parameter.data.to(dtype)


def _fake(old: Any, module: Any) -> Any:
    import torch

    quantized = fake_parameter(old, module)
    if quantized is not None:
        return quantized
    new = torch.empty_strided(old.shape, old.stride(), dtype=old.dtype, device="cpu")
    if isinstance(old, torch.nn.Parameter):
        return torch.nn.Parameter(new, requires_grad=old.requires_grad)
    return new
