"""The methods by name: what each needs, how it is attached to a base, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from components.errors import InputError
from components.finetuning import bottleneck, features, full, lora, p_tuning, prefix_tuning, prompt_tuning, qlora
from components.finetuning.bottleneck import BottleneckSettings
from components.finetuning.features import FeatureSettings
from components.finetuning.full import FullSettings
from components.finetuning.lora import LoraSettings
from components.finetuning.prompt_tuning import SoftPromptSettings

__all__ = ["METHODS", "Method", "MethodSettings", "find_method", "settings_for"]

MethodSettings = LoraSettings | FullSettings | BottleneckSettings | SoftPromptSettings | FeatureSettings


@dataclass(frozen=True)
class Method:
    """One way to change what a model does.

    Attributes:
        name: As the recipe has it.
        attach: (base, settings) -> what is trained; everything else is frozen.
        settings: Type of its settings.
        kind: What it leaves behind, as the registry calls it: "adapter", "full" or "head".
        quantization: How the base is loaded, or None.
        recomputes: Whether gradient checkpointing can be used with it.
    """

    name: str
    attach: Callable[[Any, Any], Any]
    settings: type
    kind: str = "adapter"
    quantization: str | None = None
    recomputes: bool = True


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("full", full.attach, FullSettings, kind="full"),
        Method("lora", lora.attach, LoraSettings),
        Method("qlora", qlora.attach, LoraSettings, quantization=qlora.QUANTIZATION),
        Method("bottleneck", bottleneck.attach, BottleneckSettings),
        Method("prefix_tuning", prefix_tuning.attach, SoftPromptSettings, recomputes=False),
        Method("prompt_tuning", prompt_tuning.attach, SoftPromptSettings),
        Method("p_tuning", p_tuning.attach, SoftPromptSettings),
        Method("features", features.attach, FeatureSettings, kind="head", recomputes=False),
    )
}


def find_method(name: str, settings: MethodSettings) -> Method:
    """Return a method, if it takes these settings.

    Raises:
        InputError: No such method, or settings of another one.
    """
    method = METHODS.get(name)
    if method is None:
        raise InputError(f"unknown method {name!r}", allowed=", ".join(METHODS))
    if type(settings) is not method.settings:
        raise InputError(
            f"{name} with {type(settings).__name__}", allowed=f"{method.settings.__name__}: its own settings"
        )
    return method


def settings_for(name: str, *known: MethodSettings) -> MethodSettings:
    """Return the one of some settings that a method takes; the others are those of other methods."""
    return next(settings for settings in known if type(settings) is METHODS[name].settings)
