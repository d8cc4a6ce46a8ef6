"""How many models to deliver for several tasks: memory and storage of each way, counted on the real model classes.

Needs a base's config alone. One multitask model, one model finetuned on task after task, one adapter a task on a
shared base (kept apart: Hu et al. 2021, section 4), or a model of its own for each task.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from components.errors import InputError
from components.memory.formula import INFERENCE_OVERHEAD

__all__ = ["Way", "plan_delivery"]

DTYPE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Factors are trained, saved and served in float32.
ADAPTER_BYTES = 4
MULTITASK, SEQUENTIAL, ADAPTERS, SEPARATE = (
    "one multitask model",
    "sequential finetuning",
    "one adapter a task",
    "separate models",
)


@dataclass(frozen=True)
class Way:
    """One way to deliver.

    Attributes:
        name: What it is called.
        models: Versions to register, evaluate and keep.
        storage_bytes: Weights on disk.
        serving_bytes: Memory to answer for every task, with a fifth of the base for activations and the cache.
        fits: Whether that fits the budget.
        pro: What speaks for it.
        con: What speaks against it.
    """

    name: str
    models: int
    storage_bytes: int
    serving_bytes: int
    fits: bool
    pro: str
    con: str

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON, with `for` and `against`."""
        found = asdict(self)
        return {**found, "for": found.pop("pro"), "against": found.pop("con")}


def plan_delivery(
    base_folder: Path, *, base: str, tasks: int, rank: int, targets: str, budget_bytes: int, dtype: str = "bfloat16"
) -> dict[str, Any]:
    """Count what each way of delivering several tasks takes, and recommend one.

    Args:
        base_folder: Folder with the base's config.json; no weights are needed.
        base: Its name.
        tasks: Number of tasks, 1 or more.
        rank: LoRA rank.
        targets: LoRA targets.
        budget_bytes: Memory of the machine that serves.
        dtype: Of the base's weights: float32, bfloat16 or float16.

    Returns:
        `tasks`, `base`, `budget_bytes`, `base_parameters`, `adapter_parameters`, `base_bytes`, `adapter_bytes`,
        `adapters_that_fit`, `ways` [{name, models, storage_bytes, serving_bytes, fits, for, against}], `recommended`,
        `reasons`, `fits`.

    Raises:
        InputError: No task, an unknown dtype, or a config or targets that can't be used.
    """
    if tasks < 1:
        raise InputError(
            f"{tasks} tasks to deliver", allowed="1 or more", next_step="say how many with --deliver TASKS"
        )
    if dtype not in DTYPE_BYTES:
        raise InputError(f"unknown dtype {dtype!r}", allowed=", ".join(DTYPE_BYTES))
    parameters, adapter = _count(base_folder, rank, targets)
    base_bytes, adapter_bytes = parameters * DTYPE_BYTES[dtype], adapter * ADAPTER_BYTES
    served = round(base_bytes * INFERENCE_OVERHEAD)
    ways = _ways(tasks, base_bytes, served, adapter_bytes, budget_bytes)
    room = max(0, (budget_bytes - served) // adapter_bytes)
    recommended, reasons = _recommend(tasks, ways, served, adapter_bytes, room, budget_bytes)
    return {
        "tasks": tasks,
        "base": base,
        "dtype": dtype,
        "rank": rank,
        "targets": targets,
        "budget_bytes": budget_bytes,
        "base_parameters": parameters,
        "adapter_parameters": adapter,
        "base_bytes": base_bytes,
        "adapter_bytes": adapter_bytes,
        "adapters_that_fit": room,
        "ways": [way.to_dict() for way in ways],
        "recommended": recommended,
        "reasons": reasons,
        "fits": served <= budget_bytes,
    }


def _count(base_folder: Path, rank: int, targets: str) -> tuple[int, int]:
    """Return the parameters of the base and of one adapter, on the real classes without any data."""
    import torch
    from transformers import AutoModelForCausalLM

    from components.finetuning.lora import LoraSettings, attach
    from components.models.base_config import read_config

    config = read_config(base_folder)
    with torch.device("meta"):
        try:
            model = AutoModelForCausalLM.from_config(config)
        except (ValueError, KeyError) as error:
            raise InputError(
                f"no causal language model can be built of {type(config).__name__}: {error}",
                allowed="decoder architectures that transformers has",
            ) from error
        base = sum(parameter.numel() for parameter in model.parameters())
        wrapped = attach(model, LoraSettings(rank=rank, targets=targets))
    return base, sum(parameter.numel() for parameter in wrapped.parameters() if parameter.requires_grad)


def _ways(tasks: int, base_bytes: int, served: int, adapter_bytes: int, budget_bytes: int) -> list[Way]:
    def way(name: str, models: int, storage: int, serving: int, pro: str, con: str) -> Way:
        return Way(name, models, storage, serving, serving <= budget_bytes, pro, con)

    return [
        way(
            MULTITASK, 1, base_bytes + adapter_bytes, served,  # merged
            "one model to evaluate and serve; merged, it answers as fast as the base; tasks may help each other",
            "all data at once; a change of one task trains and measures all of them again; tasks may harm each other",
        ),
        way(
            SEQUENTIAL, 1, base_bytes + adapter_bytes, served,
            "one model to serve, merged; a task's data is needed only while it is learnt",
            "what was learnt first is forgotten first: earlier tasks must be measured again after each one",
        ),
        way(
            ADAPTERS, tasks, base_bytes + tasks * adapter_bytes, served + tasks * adapter_bytes,
            "each task is trained, gated and rolled back alone; a further task costs one adapter",
            "an adapter that is kept apart makes each answer a little slower than merged weights",
        ),
        way(
            SEPARATE, tasks, tasks * base_bytes, tasks * served,
            "merged weights: no added latency, and any task can move to another base or machine",
            "the whole base once for each task, on disk and in memory",
        ),
    ]  # fmt: skip


def _recommend(
    tasks: int, ways: list[Way], served: int, adapter_bytes: int, room: int, budget_bytes: int
) -> tuple[str, list[str]]:
    by_name = {way.name: way for way in ways}
    if served > budget_bytes:
        return ADAPTERS if tasks > 1 else MULTITASK, [
            f"the base alone takes {_gib(served)} of {_gib(budget_bytes)}: take a smaller base, or a larger machine"
        ]
    if tasks == 1:
        return MULTITASK, ["there is one task: one model, merged for the fastest answers"]
    times = by_name[SEPARATE].storage_bytes / by_name[ADAPTERS].storage_bytes
    saved = (
        f"{tasks} adapters of {adapter_bytes / 2**20:.1f} MiB share one base: separate models take "
        f"{times:.1f} times the storage"
    )
    alone = "each task keeps its own data, gate and roll-back, and none makes another forget"
    if by_name[ADAPTERS].fits:
        return ADAPTERS, [saved, alone]
    if room:
        return ADAPTERS, [
            saved,
            alone,
            f"{room} of {tasks} adapters are in memory at once beside the base; the others are loaded when asked for",
        ]
    return MULTITASK, [
        f"the base takes {_gib(served)} of {_gib(budget_bytes)} and leaves no room for one adapter of "
        f"{adapter_bytes / 2**20:.1f} MiB: one adapter for all tasks, merged into the base, adds nothing",
    ]


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
