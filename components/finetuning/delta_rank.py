"""What LoRA learned, matrix by matrix: how large each delta is, and how many of its ranks it uses. After training.

Finetuning moves a large model within few dimensions (Aghajanyan et al. 2020, arXiv:2012.13255): where the deltas use a
part of their rank, a smaller one would have done, and where they fill it, a larger one may learn more.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["DeltaReport", "MatrixDelta", "measure_deltas"]

# Part of a delta's squared norm that counts as all of it.
ENERGY_FRACTION = 0.9
# Below and above these parts of the rank, half and double of it are worth a try.
LITTLE_USED, ALL_USED = 0.4, 0.8
_PLACE = re.compile(r"\.(\d+)\.")


@dataclass(frozen=True)
class MatrixDelta:
    """One layer's delta, scale x B A.

    Attributes:
        layer: Number of the block; None outside the blocks.
        matrix: Name of the layer's module, such as q_proj.
        norm: Frobenius norm.
        effective_rank: exp of the entropy of the normalised singular values (Roy & Vetterli 2007), from 1 to `rank`.
        energy_rank: Singular values that hold 90 % of the squared norm.
        rank: Width of the factors.
    """

    layer: int | None
    matrix: str
    norm: float
    effective_rank: float
    energy_rank: int
    rank: int


@dataclass(frozen=True)
class DeltaReport:
    """All deltas of an adapter.

    Attributes:
        matrices: One for each adapted layer, in the order of the blocks.
        median_effective_rank: Over the matrices.
        median_energy_rank: Over the matrices.
        rank: The largest width of the factors.
        hint: What that says about the next run's rank.
    """

    matrices: tuple[MatrixDelta, ...]
    median_effective_rank: float
    median_energy_rank: float
    rank: int
    hint: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return asdict(self)


def measure_deltas(adapter: Path) -> DeltaReport | None:
    """Measure the deltas of a saved LoRA adapter, from its factors alone.

    With DoRA the delta is that of the direction; the magnitudes are left out.

    Args:
        adapter: Folder with adapter_config.json and adapter_model.safetensors.

    Returns:
        The report; None for an adapter of another kind.
    """
    from safetensors.torch import load_file

    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("peft_type") != "LORA":
        return None
    tensors = load_file(adapter / "adapter_model.safetensors")
    found = []
    for name, down in tensors.items():
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removesuffix(".lora_A.weight")
        found.append(_measure(config, module, down.float(), tensors[f"{module}.lora_B.weight"].float()))
    matrices = tuple(sorted(found, key=lambda m: (m.layer is None, m.layer or 0, m.matrix)))
    effective, energy = median(m.effective_rank for m in matrices), float(median(m.energy_rank for m in matrices))
    rank = max(m.rank for m in matrices)
    return DeltaReport(matrices, effective, energy, rank, _hint(energy, rank))


def _measure(config: dict[str, Any], module: str, down: Tensor, up: Tensor) -> MatrixDelta:
    """Take the singular values of scale x up @ down [out, in] without forming it."""
    import torch

    rank = down.shape[0]
    alpha = _of_module(config.get("alpha_pattern"), module, config["lora_alpha"])
    scale = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    left, right = torch.linalg.qr(up)[1], torch.linalg.qr(down.T)[1]
    values = torch.linalg.svdvals(scale * left @ right.T).double()
    norm = float(values.square().sum().sqrt())
    place = _PLACE.search(module)
    if norm == 0.0:
        effective, energy = 0.0, 0
    else:
        shares = values / values.sum()
        effective = math.exp(float(-(shares * shares.clamp_min(1e-300).log()).sum()))
        energy = int((values.square().cumsum(0) < ENERGY_FRACTION * norm**2).sum()) + 1
    return MatrixDelta(
        layer=int(place[1]) if place else None,
        matrix=module.rpartition(".")[2],
        norm=norm,
        effective_rank=effective,
        energy_rank=energy,
        rank=rank,
    )


def _of_module(pattern: dict[str, Any] | None, module: str, default: float) -> float:
    """Return a value that a config may give for some modules apart, by the end of their names."""
    return float(next((value for name, value in (pattern or {}).items() if module.endswith(name)), default))


def _hint(energy_rank: float, rank: int) -> str:
    used = f"half of the deltas hold {ENERGY_FRACTION:.0%} of their norm's square in {energy_rank:g} of {rank} ranks"
    if energy_rank <= LITTLE_USED * rank and rank > 1:
        return f"{used}: rank {max(1, rank // 2)} is likely to learn as much"
    if energy_rank >= ALL_USED * rank:
        return f"{used}: they fill it, and rank {2 * rank} may learn more"
    return f"{used}: the rank fits"
