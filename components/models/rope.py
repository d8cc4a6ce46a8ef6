"""RoPE scaling: positions past those that a base was trained on. Between the recipe and every place that loads a base.

A scaling is a part of what was trained: it stands in the adapter's binding or in the config of whole weights, and
comes back with them wherever they are loaded. What a base's own config says is never changed on disk.

linear   position / factor (Chen et al. 2023, "Position Interpolation", arXiv:2306.15595)
dynamic  another base of the frequencies for each length past the original ("dynamic NTK", as transformers has it)
yarn     slow frequencies divided by factor, fast ones kept, attention sharpened (Peng et al. 2023, arXiv:2309.00071)

transformers computes the frequencies (`modeling_rope_utils`); here its config is set, and its dynamic frequencies,
which depend on the longest row of a batch and on batches before it, are made to depend on each row alone.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MethodType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from components.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "LARGEST_FACTOR",
    "ROPE_TYPES",
    "RopeScaling",
    "cached_positions",
    "config_positions",
    "free_of_history",
    "read_scaling",
    "scale_config",
]

ROPE_TYPES = ("linear", "dynamic", "yarn")
LARGEST_FACTOR = 128.0
ALLOWED = f"{', '.join(ROPE_TYPES)} with a factor above 1 and up to {LARGEST_FACTOR:g}, such as yarn:2"


@dataclass(frozen=True)
class RopeScaling:
    """How positions are scaled.

    Attributes:
        type: One of `ROPE_TYPES`, as transformers calls them.
        factor: Reach over the original positions; above 1.
    """

    type: str
    factor: float

    def __post_init__(self) -> None:
        if self.type not in ROPE_TYPES or not 1 < self.factor <= LARGEST_FACTOR:
            raise InputError(f"RoPE scaling {self.type}:{self.factor:g}", allowed=ALLOWED)

    def __str__(self) -> str:
        return f"{self.type}:{self.factor:g}"

    @classmethod
    def parse(cls, text: str) -> RopeScaling:
        """Read `type:factor`.

        Raises:
            InputError: Anything else.
        """
        kind, _, factor = text.partition(":")
        try:
            number = float(factor)
        except ValueError:
            number = math.nan
        if math.isnan(number):
            raise InputError(f"RoPE scaling {text!r}", allowed=ALLOWED)
        return cls(kind, number)

    @classmethod
    def from_record(cls, record: object) -> RopeScaling | None:
        """Read what `to_record` wrote; None stands for no scaling.

        Raises:
            InputError: A record that can't be understood: it must not pass for none.
        """
        if record is None:
            return None
        if isinstance(record, Mapping) and set(record) == {"type", "factor"} and type(record["factor"]) in (int, float):
            return cls(str(record["type"]), float(record["factor"]))
        raise InputError(f"the RoPE scaling {record!r} can't be understood", allowed=ALLOWED)

    def to_record(self) -> dict[str, Any]:
        """Return the JSON that stands in bindings and manifests."""
        return {"type": self.type, "factor": self.factor}


def scale_config(config: Any, scaling: RopeScaling) -> None:
    """Set a base's config to a scaling.

    Args:
        config: A transformers config; it is changed.
        scaling: The scaling.

    Raises:
        InputError: A base without rotary positions, one with several kinds of them, or one that is scaled already.
    """
    text = config.get_text_config()
    rope, positions = getattr(text, "rope_parameters", None), getattr(text, "max_position_embeddings", None)
    flat = isinstance(rope, Mapping) and isinstance(rope.get("rope_type"), str) and rope.get("rope_theta")
    if rope is None or not flat or not isinstance(positions, int):
        raise InputError(
            f"RoPE scaling {scaling} on {type(config).__name__}",
            allowed="bases with one kind of rotary positions for all layers, and max_position_embeddings",
            next_step="leave finetune.rope_scaling out, or choose another base",
        )
    if rope["rope_type"] != "default":
        raise InputError(
            f"RoPE scaling {scaling} on a base whose positions are scaled already ({rope['rope_type']})",
            allowed="bases with plain rotary positions",
            next_step="leave the scaling out to keep the base's own, or choose its unscaled original",
        )
    scaled = {**rope, "rope_type": scaling.type, "factor": scaling.factor}
    if scaling.type == "yarn":
        scaled["original_max_position_embeddings"] = positions
    text.rope_parameters = scaled
    # dynamic frequencies are computed from the original length, which transformers looks for here
    if scaling.type != "dynamic":
        text.max_position_embeddings = int(positions * scaling.factor)


def read_scaling(config: Any) -> RopeScaling | None:
    """Return the scaling in a config, None where there is none of `ROPE_TYPES`.

    Args:
        config: A transformers config.
    """
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kind, factor = rope.get("rope_type"), rope.get("factor")
    if kind not in ROPE_TYPES or not isinstance(factor, int | float) or not 1 < factor <= LARGEST_FACTOR:
        return None
    return RopeScaling(str(kind), float(factor))


def config_positions(config: Any) -> int | None:
    """Return how many positions a model knows, those that its scaling adds included; None where it says none.

    Args:
        config: A transformers config.
    """
    text = config.get_text_config()
    positions: int | None = getattr(text, "max_position_embeddings", None)
    rope = getattr(text, "rope_parameters", None) or {}
    if positions is None or read_scaling(config) is None or rope["rope_type"] == "linear":
        return positions
    # some configs name the scaled length for YaRN, others leave the original one
    original = rope.get("original_max_position_embeddings", positions)
    return max(positions, int(original * rope["factor"]))


def cached_positions(config: Any) -> int | None:
    """Return how many positions can be computed piece by piece behind a key-value cache.

    Those of `config_positions`, but for dynamic scaling the original ones: past them every token changes the
    frequencies, and keys that are kept would stand at other places than the queries that look for them.

    Args:
        config: A transformers config.
    """
    scaling = read_scaling(config)
    if scaling is not None and scaling.type == "dynamic":
        positions: int = config.get_text_config().max_position_embeddings
        return positions
    return config_positions(config)


def free_of_history(model: Any) -> Any:
    """Let dynamic frequencies depend on each row's own length alone.

    transformers takes the longest row of a batch for all rows, and keeps what a longer batch before it left: the same
    row would give other logits in other company, and a resumed run another model.

    Args:
        model: A transformers model; one without dynamic scaling stays as it is.

    Returns:
        The model.
    """
    for module in model.modules():
        if getattr(module, "rope_type", None) == "dynamic":
            module.forward = MethodType(_row_by_row, module)
    return model


def _row_by_row(rotary: Any, x: Tensor, position_ids: Tensor, *rest: Any, **named: Any) -> tuple[Tensor, Tensor]:
    """Compute cosines and sines [B, T, D] at positions [B, T], each row at the frequencies of its last position."""
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    # beneath transformers' own update of the frequencies
    plain = inspect.unwrap(type(rotary).forward)
    config, original = rotary.config, rotary.original_inv_freq.to(x.device)
    found = []
    with torch.no_grad():
        for row in position_ids[:, None]:
            length = row.max() + 1
            scaled, attention_scaling = ROPE_INIT_FUNCTIONS["dynamic"](config, x.device, seq_len=length)
            # the same bits as the base's within the original length
            frequencies = torch.where(length > config.max_position_embeddings, scaled, original)
            own = SimpleNamespace(config=config, inv_freq=frequencies, attention_scaling=attention_scaling)
            found.append(plain(own, x, row, *rest, **named))
        return torch.cat([cosine for cosine, _ in found]), torch.cat([sine for _, sine in found])
