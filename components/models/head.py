"""A classification or regression head on a frozen base: built, saved, loaded, and turned into answers.

Its folder has head.json (classes or how numbers are written, pooling, layer, shape), head.safetensors (standardisation
and weights) and the digests of its base in tunewright.json, like an adapter's. Between training and serving.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.answers import HeadTask
from components.errors import InputError
from components.models.features import POOLINGS, check_layer
from components.models.fingerprint import BINDING_FILE

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "CONFIG_FILE",
    "HEAD_FILES",
    "Head",
    "HeadConfig",
    "HeadedModel",
    "answer_ids",
    "build_network",
    "is_head",
    "load_head",
    "save_head",
]

CONFIG_FILE, WEIGHTS_FILE = "head.json", "head.safetensors"
HEAD_FILES = (CONFIG_FILE, WEIGHTS_FILE, BINDING_FILE)
FORMAT = 1
# What head.safetensors holds beside the network's own tensors.
STANDARDISATION = ("mean", "scale")
LARGEST_WIDTH = 8192


@dataclass(frozen=True)
class HeadConfig:
    """What a head is, beside its tensors.

    Attributes:
        task: "classification" or "regression".
        labels: The classes, in the order of the outputs; empty for regression.
        decimals: Digits behind the point of an answered number.
        target_mean: Mean of the training numbers; outputs are in units of `target_scale` from it.
        target_scale: Their standard deviation.
        pooling: Which tokens' states are taken.
        layer: Of which layer.
        width: Width of the hidden layer; 0: linear.
        features: Size of a feature vector.
    """

    task: HeadTask
    labels: tuple[str, ...]
    decimals: int
    target_mean: float
    target_scale: float
    pooling: str
    layer: int | str
    width: int
    features: int

    @property
    def outputs(self) -> int:
        """How many numbers the head puts out: one a class, or one."""
        return len(self.labels) if self.task == "classification" else 1


@dataclass(frozen=True)
class Head:
    """A head that can answer.

    Attributes:
        config: What it is.
        network: From standardised features to outputs.
        mean: Of each feature over the training rows [H].
        scale: Its standard deviation [H]; 1 where a feature is constant.
    """

    config: HeadConfig
    network: Any
    mean: Tensor
    scale: Tensor

    def outputs(self, features: Tensor) -> Tensor:
        """Return logits [B, classes], or numbers in the answers' own unit [B, 1], of features [B, H]."""
        found: Tensor = self.network((features - self.mean) / self.scale)
        if self.config.task == "classification":
            return found
        return found * self.config.target_scale + self.config.target_mean

    def text(self, output: Tensor) -> str:
        """Return the answer behind one row of outputs: the likeliest class, or the number."""
        if self.config.task == "classification":
            return self.config.labels[int(output.argmax())]
        return self.number(float(output[0]))

    def number(self, value: float) -> str:
        """Write a number as the training answers do; there is no minus zero."""
        text = f"{value:.{self.config.decimals}f}"
        return text.removeprefix("-") if not text.strip("-0.") else text


@dataclass(frozen=True)
class HeadedModel:
    """A frozen base with a head: what answers in the place of a model that writes.

    Attributes:
        base: The causal language model, untouched.
        head: What was trained.
    """

    base: Any
    head: Head

    @property
    def config(self) -> Any:
        """The base's config."""
        return self.base.config

    def outputs(self, prompts: Sequence[Sequence[int]], batch_size: int, progress: Any = None) -> Tensor:
        """Return the head's outputs [prompts, K] for prompts in token ids.

        Args:
            prompts: Token ids of each, none empty.
            batch_size: Most prompts in one pass.
            progress: Called with (finished, all) after each pass.
        """
        import torch

        from components.models.features import prompt_features

        config = self.head.config
        features = prompt_features(
            self.base, prompts, pooling=config.pooling, layer=config.layer, batch_size=batch_size, progress=progress
        )
        with torch.inference_mode():
            return self.head.outputs(features)


def answer_ids(tokenizer: Any, text: str) -> list[int]:
    """Return a label or number as a client counts it: its tokens, and the one that ends the turn."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids if tokenizer.eos_token_id is None else [*ids, tokenizer.eos_token_id]


def build_network(config: HeadConfig, generator: Any = None) -> Any:
    """Build the network of a head: a linear layer, or a hidden layer with GELU before it.

    Args:
        config: Its shape.
        generator: Source of the start; a linear head begins at zero, and every start without one is uninitialised.
    """
    import torch

    def linear(inner: int, outer: int) -> Any:
        layer = torch.nn.utils.skip_init(torch.nn.Linear, inner, outer)  # type: ignore[no-untyped-call]
        if generator is not None:
            torch.nn.init.zeros_(layer.bias)
            torch.nn.init.normal_(layer.weight, std=inner**-0.5, generator=generator)
        return layer

    layers = [linear(config.features, config.width), torch.nn.GELU()] if config.width else []
    last = linear(config.width or config.features, config.outputs)
    if generator is not None:
        # nothing is preferred before the first step
        torch.nn.init.zeros_(last.weight)
    return torch.nn.Sequential(*layers, last)


def save_head(head: Head, folder: Path) -> None:
    """Write a head's config and tensors; the digests of its base are written beside them by `write_binding`.

    Args:
        head: The head.
        folder: A folder of its own, which need not exist.
    """
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"network.{name}": value.detach().contiguous() for name, value in head.network.state_dict().items()}
    save_file({**tensors, "mean": head.mean.contiguous(), "scale": head.scale.contiguous()}, folder / WEIGHTS_FILE)
    document = {"format": FORMAT, **asdict(head.config), "labels": list(head.config.labels)}
    (folder / CONFIG_FILE).write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def is_head(folder: Path) -> bool:
    """Tell whether a folder of trained weights holds a head."""
    return (folder / CONFIG_FILE).is_file()


def load_head(folder: Path, base_config: Any) -> Head:
    """Load a head for a base; that it was trained on this one is checked by its binding.

    Args:
        folder: What `save_head` wrote.
        base_config: The base's config.

    Raises:
        InputError: Files that can't be used, or that don't fit each other or the base.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    config = _read_config(folder)
    check_layer(base_config, config.layer)
    size = base_config.get_text_config().hidden_size
    try:
        tensors = load_file(folder / WEIGHTS_FILE)
        network = build_network(config)
        mean, scale = (tensors.pop(name) for name in STANDARDISATION)
        network.load_state_dict({name.removeprefix("network."): value for name, value in tensors.items()})
        if config.features != size or mean.shape != (size,) or scale.shape != (size,):
            raise ValueError(f"features of size {config.features}, and the base has {size}")
        if not all(bool(value.isfinite().all()) for value in (mean, scale, *tensors.values())):
            raise ValueError("a value that is not finite")
    except (OSError, SafetensorError, KeyError, RuntimeError, ValueError) as error:
        raise InputError(
            f"the head in {folder} can't be loaded: {str(error).splitlines()[0]}",
            allowed=f"a folder with {', '.join(HEAD_FILES)} that fit each other and the base",
            next_step="register or copy the head again, or train it anew",
        ) from error
    return Head(config, network.eval().requires_grad_(False), mean, scale)


def _read_config(folder: Path) -> HeadConfig:
    path = folder / CONFIG_FILE
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.pop("format") != FORMAT:
            raise ValueError(f"format is not {FORMAT}")
        config = HeadConfig(**{**document, "labels": tuple(document["labels"])})
        regression = config.task == "regression"
        right = (
            config.task in ("classification", "regression")
            and config.pooling in POOLINGS
            and (not config.labels if regression else len(config.labels) >= 2)
            and len(set(config.labels)) == len(config.labels)
            and all(isinstance(label, str) and label for label in config.labels)
            and all(type(n) is int and n >= 0 for n in (config.decimals, config.width, config.features))
            and config.width <= LARGEST_WIDTH
            and config.decimals <= 17
            and all(isinstance(n, int | float) for n in (config.target_mean, config.target_scale))
        )
        if not right:
            raise ValueError("values that no head has")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} is missing or can't be read ({error})",
            allowed=f"a folder with {', '.join(HEAD_FILES)}",
            next_step="register or copy the head again, or train it anew",
        ) from error
    return config
