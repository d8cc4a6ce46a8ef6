"""What the machine has: memory budget (with cgroup limits), cores, processor, GPUs.

The plan asks here. A GPU that is only named, and not at hand, is looked up in `gpus`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from components.errors import InputError
from components.memory.gpus import find_gpu
from components.runtime import available_cores

__all__ = [
    "Budget",
    "Gpus",
    "Machine",
    "detect_budget",
    "gpu_budget",
    "machine",
    "parse_size",
    "shared",
]

_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
    "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
    "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40,
}  # fmt: skip
_SIZE = re.compile(r"\s*([0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*")
_EXAMPLES = "a number of bytes or a size with a unit, such as 8GiB, 512MiB or 8e9"


# cgroup v1 writes this (page-rounded) when there is no limit
_NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True)
class Budget:
    """How much memory a run may take.

    Attributes:
        budget_bytes: The bytes.
        source: Where the number comes from, in words.
        device: "cpu" or "cuda".
        beside_context: Measured as free beside a CUDA context, which therefore doesn't come out of it.
    """

    budget_bytes: int
    source: str
    device: str
    beside_context: bool = False


@dataclass(frozen=True)
class Gpus:
    """The GPUs that CUDA shows; a run trains on the first.

    Attributes:
        name: Name of the first.
        memory_bytes: Its memory, free or not.
        compute_capability: Its architecture, such as 8.0.
        count: How many there are.
    """

    name: str
    memory_bytes: int
    compute_capability: str
    count: int


@dataclass(frozen=True)
class Machine:
    """The processor and its memory, and the GPUs.

    Attributes:
        cpu: Name as the system gives it.
        cores: Cores that this process may use.
        memory_bytes: Memory of the machine, or of the cgroup where that is less.
        gpus: The GPUs, None without CUDA.
    """

    cpu: str
    cores: int
    memory_bytes: int
    gpus: Gpus | None


def parse_size(text: str) -> int:
    """Read a size such as 8GiB, 512MiB or 8e9.

    Args:
        text: A number, with a unit or in bytes. GB counts in thousands, GiB in 1,024s.

    Returns:
        Bytes, 1 or more.

    Raises:
        InputError: Not a size.
    """
    match = _SIZE.fullmatch(text)
    unit = match.group(2).lower() if match else ""
    if match is None or unit not in _UNITS:
        raise InputError(f"{text!r} is not a size", allowed=_EXAMPLES)
    size = float(match.group(1)) * _UNITS[unit]
    if not 1 <= size < 2**63:
        raise InputError(f"the size {text!r} is out of range", allowed=_EXAMPLES)
    return round(size)


def gpu_budget(name: str) -> Budget:
    """Return the budget of a named GPU.

    Raises:
        InputError: The name isn't in the table.
    """
    return Budget(find_gpu(name).memory_bytes, f"usable memory of {name}", "cuda")


def detect_budget() -> Budget:
    """Return what is free on this machine: the GPU's memory, else the least of cgroup head-room and available RAM.

    On a GPU what torch's allocator keeps for this process without using it counts as free. Head-room of a cgroup is its
    limit less what its processes hold; caches that the kernel can drop don't count.
    """
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        kept = torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
        source = f"free of {total / 2**30:.1f} GiB on {torch.cuda.get_device_name()}"
        return Budget(free + kept, source, "cuda", beside_context=True)
    import psutil

    memory = psutil.virtual_memory()
    # what this process holds already is part of what the run may take
    own = psutil.Process().memory_info().rss
    available = memory.available + own
    limited = cgroup_headroom_bytes()
    if limited is not None and limited + own < available:
        return Budget(limited + own, "cgroup memory limit, less what other processes in it hold", "cpu")
    return Budget(min(available, memory.total), "available memory, with what this process holds", "cpu")


def shared(budget: Budget, processes: int, launcher_bytes: int) -> Budget:
    """Return what each of some processes may take of a machine's memory.

    Args:
        budget: What they may take together.
        processes: How many train.
        launcher_bytes: What the process that starts them holds beside them.
    """
    each = max(0, budget.budget_bytes - launcher_bytes) // processes
    source = (
        f"for each of {processes} processes: {budget.source}, of which the one that starts them holds "
        f"{launcher_bytes / 2**30:.2f} GiB"
    )
    return replace(budget, budget_bytes=each, source=source)


def cgroup_headroom_bytes(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Return the least head-room on the way from this process's cgroup to the root, None without a limit.

    Args:
        root: Where cgroups are mounted, v2 or v1.
        own: The file that says which cgroup this process is in.
    """
    least: int | None = None
    for folder, limit_name, usage_name in _cgroup_folders(root, own):
        limit, usage = _number(folder / limit_name), _number(folder / usage_name)
        if limit is None or limit >= _NO_LIMIT_BYTES:
            continue
        reclaimable = _inactive_file_bytes(folder / "memory.stat")
        room = max(0, limit - max(0, (usage or 0) - reclaimable))
        least = room if least is None else min(least, room)
    return least


def machine() -> Machine:
    """Describe the processor, its memory and the GPUs, by what stays the same from run to run."""
    import psutil

    total = psutil.virtual_memory().total
    limits = [
        limit
        for folder, limit_name, _ in _cgroup_folders(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))
        if (limit := _number(folder / limit_name)) is not None
    ]
    return Machine(_cpu_name(), available_cores(), min([total, *limits]), _gpus())


def _cgroup_folders(root: Path, own: Path) -> list[tuple[Path, str, str]]:
    """Return this process's memory cgroup and its parents, with the names of the limit and usage files."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []  # not Linux
    found: list[tuple[Path, str, str]] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, limit, usage = root, "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            mount, limit, usage = root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        folder = mount / path.lstrip("/")
        # inside a container the path may be the host's, and the mount itself is the cgroup
        chain = [folder, *folder.parents] if folder.is_dir() else [mount]
        found += [(step, limit, usage) for step in chain if step == mount or mount in step.parents]
    return found


def _number(path: Path) -> int | None:
    try:
        text = path.read_text(encoding="utf-8").strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _inactive_file_bytes(path: Path) -> int:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError:
        return 0
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name in {"inactive_file", "total_inactive_file"} and value.isdigit():
            return int(value)
    return 0


def _gpus() -> Gpus | None:
    import torch

    if not torch.cuda.is_available():
        return None
    first = torch.cuda.get_device_properties(0)
    return Gpus(first.name, first.total_memory, f"{first.major}.{first.minor}", torch.cuda.device_count())


def _cpu_name() -> str:
    import platform

    information = Path("/proc/cpuinfo")
    for line in information.read_text(encoding="utf-8").splitlines() if information.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
