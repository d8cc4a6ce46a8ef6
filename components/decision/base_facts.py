"""What a base says about itself without being loaded: size, width, layer names, and how its pretraining ended.

Read by the tactics (learning rate, targets), by the comparison of bases and by the plan of how many to deliver.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import InputError

__all__ = ["BaseFacts", "read_base_facts"]

# Keys under which a config, or the front matter of a card, names the rate that pretraining ended with.
FINAL_RATE_KEYS = (
    "pretraining_final_learning_rate",
    "final_learning_rate",
    "min_learning_rate",
    "minimum_learning_rate",
    "min_lr",
)
_KEYED = re.compile(rf"^\W*(?:{'|'.join(FINAL_RATE_KEYS)})\W+([0-9.]+(?:e-?[0-9]+)?)", re.IGNORECASE | re.MULTILINE)
_WORDED = re.compile(
    r"(?:final|minimum|min\.?|end)\s+learning\s+rate(?:\s+(?:of|is|was|to))?\W{0,6}([0-9.]+(?:e-?[0-9]+)?)",
    re.IGNORECASE,
)
_DECAYED = re.compile(
    r"learning\s+rate[^.\n]{0,80}?(?:decay\w*|anneal\w*|down)[^.\n]{0,40}?\bto\s+([0-9.]+(?:e-?[0-9]+)?)", re.IGNORECASE
)
CARD_CHARACTERS = 200_000
# Pretraining ends far below this; a larger number after such words is a share of the peak.
HIGHEST_FINAL_RATE = 0.01


@dataclass(frozen=True)
class BaseFacts:
    """A base as its files describe it.

    Attributes:
        parameters: Number of parameters that are stored; tied ones count once.
        hidden_size: Width of the model, or None where the config has no such key.
        has_query_and_value: Whether it has layers called q_proj and v_proj.
        final_learning_rate: Rate that pretraining ended with, or None where nothing names it.
        final_learning_rate_source: Which file and words name it; "" where nothing does.
    """

    parameters: int
    hidden_size: int | None
    has_query_and_value: bool
    final_learning_rate: float | None
    final_learning_rate_source: str


def read_base_facts(folder: Path) -> BaseFacts:
    """Read a base folder's config, card and weight headers; no weight is loaded.

    Args:
        folder: A folder with config.json and safetensors.

    Returns:
        The facts.

    Raises:
        InputError: No config.json, or no weights.
    """
    from safetensors import safe_open

    path = folder / "config.json"
    if not path.is_file():
        raise InputError(f"{folder} has no config.json", allowed="the folder of a base model")
    config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    # a config of a model with several parts keeps the decoder's values one level down
    decoder = config.get("text_config") if isinstance(config.get("text_config"), dict) else config
    parameters, names = 0, set()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(str(file), framework="numpy") as weights:
            for name in weights.keys():  # noqa: SIM118  (safe_open is no mapping)
                names.add(name)
                parameters += math.prod(weights.get_slice(name).get_shape())
    if not parameters:
        raise InputError(f"{folder} has no weights", allowed="*.safetensors", next_step="give the folder of a base")
    width = (decoder or {}).get("hidden_size", config.get("n_embd"))
    rate, source = _final_learning_rate(folder, config)
    return BaseFacts(
        parameters=parameters,
        hidden_size=width if isinstance(width, int) and width > 0 else None,
        has_query_and_value=all(any(layer in name for name in names) for layer in ("q_proj", "v_proj")),
        final_learning_rate=rate,
        final_learning_rate_source=source,
    )


def _final_learning_rate(folder: Path, config: Mapping[str, Any]) -> tuple[float | None, str]:
    for key in FINAL_RATE_KEYS:
        value = config.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < HIGHEST_FINAL_RATE:
            return float(value), f"config.json, {key}"
    card = folder / "README.md"
    if not card.is_file():
        return None, ""
    with card.open(encoding="utf-8", errors="replace") as stream:
        text = stream.read(CARD_CHARACTERS)
    for pattern in (_KEYED, _WORDED, _DECAYED):
        for match in pattern.finditer(text):
            rate = _rate(match.group(1))
            if rate is not None:
                return rate, f"README.md, {' '.join(match.group(0).split())!r}"
    return None, ""


def _rate(text: str) -> float | None:
    """Return a rate that a pretraining could have ended with; a sentence's full stop may cling to the number."""
    try:
        value = float(text.rstrip("."))
    except ValueError:
        return None
    return value if 0 < value < HIGHEST_FINAL_RATE else None
