"""GPUs by name: usable memory, the dtypes that they compute in, and dense peak rates, from their makers' datasheets.

For planning without the device. A GPU that is at hand is measured instead.
"""

from __future__ import annotations

from dataclasses import dataclass

from components.errors import InputError

__all__ = ["GPUS", "Gpu", "find_gpu"]

GIB = 2**30
TERA = 1e12


@dataclass(frozen=True)
class Gpu:
    """One kind of GPU.

    Attributes:
        name: How the user names it: model and gigabytes.
        memory_bytes: What the driver reports free on an idle card, a little under the number in the name.
        bfloat16_flops: Dense tensor-core peak with float32 accumulation, operations a second; None without bfloat16.
        float16_flops: The same in float16.
        float32_flops: Peak of plain float32: torch leaves TF32 off for matrix products.
        source: Where the numbers are from.
    """

    name: str
    memory_bytes: int
    bfloat16_flops: float | None
    float16_flops: float
    float32_flops: float
    source: str

    @property
    def dtype(self) -> str:
        """The 16-bit dtype to train in: bfloat16 where there is one, else float16 with loss scaling."""
        return "bfloat16" if self.bfloat16_flops else "float16"

    def peak_flops(self, dtype: str) -> float | None:
        """Return the dense peak of a dtype in operations a second, None where the device doesn't compute in it."""
        found: dict[str, float | None] = {
            "bfloat16": self.bfloat16_flops,
            "float16": self.float16_flops,
            "float32": self.float32_flops,
        }
        return found[dtype]


def _gpu(name: str, gib: float, bfloat16: float | None, float16: float, float32: float, source: str) -> Gpu:
    half = bfloat16 * TERA if bfloat16 else None
    return Gpu(name, round(gib * GIB), half, float16 * TERA, float32 * TERA, source)


# From the smallest to the largest, which is the order in which the plan looks for one that would do.
GPUS: dict[str, Gpu] = {
    gpu.name: gpu
    for gpu in (
        _gpu("t4-16", 14.6, None, 65, 8.1, "NVIDIA T4 datasheet"),
        _gpu("v100-16", 15.7, None, 125, 15.7, "NVIDIA V100 datasheet, SXM2"),
        _gpu("l4-24", 22.0, 121, 121, 30.3, "NVIDIA L4 datasheet, without sparsity"),
        _gpu("a10-24", 22.0, 125, 125, 31.2, "NVIDIA A10 datasheet, without sparsity"),
        _gpu("rtx3090-24", 23.5, 71, 71, 35.6, "NVIDIA Ampere GA102 whitepaper, FP32 accumulate"),
        _gpu("rtx4090-24", 23.5, 165.2, 165.2, 82.6, "NVIDIA Ada whitepaper, FP32 accumulate"),
        _gpu("v100-32", 31.7, None, 125, 15.7, "NVIDIA V100 datasheet, SXM2"),
        _gpu("rtx5090-32", 31.3, 209.5, 209.5, 104.8, "NVIDIA RTX Blackwell whitepaper, FP32 accumulate"),
        _gpu("a100-40", 39.4, 312, 312, 19.5, "NVIDIA A100 datasheet, SXM"),
        _gpu("l40s-48", 44.4, 362, 362, 91.6, "NVIDIA L40S datasheet, without sparsity"),
        _gpu("a6000-48", 47.4, 154.8, 154.8, 38.7, "NVIDIA RTX A6000 datasheet, without sparsity"),
        _gpu("a100-80", 79.1, 312, 312, 19.5, "NVIDIA A100 datasheet, SXM"),
        _gpu("h100-80", 79.1, 989.4, 989.4, 66.9, "NVIDIA H100 datasheet, SXM, without sparsity"),
        _gpu("h200-141", 139.7, 989.4, 989.4, 66.9, "NVIDIA H200 datasheet, SXM, without sparsity"),
        _gpu("b200-180", 178.0, 2250, 2250, 75, "NVIDIA HGX B200 datasheet, without sparsity"),
    )
}


def find_gpu(name: str) -> Gpu:
    """Return a GPU by its name.

    Raises:
        InputError: The name isn't in `GPUS`.
    """
    if name not in GPUS:
        raise InputError(
            f"unknown GPU {name!r}",
            allowed=", ".join(GPUS),
            next_step="or give its memory with --budget, such as 24GiB",
        )
    return GPUS[name]
