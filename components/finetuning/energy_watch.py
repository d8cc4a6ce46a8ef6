"""The energy that a training took, where the machine counts it; nothing is estimated.

Processors count theirs in Linux's powercap tree (RAPL), NVIDIA's GPUs through NVML. Both count for the whole device:
what others ran on it meanwhile is in the figure. Many machines let only root read the processors' counters, and virtual
ones mostly show none; then the energy is unknown, and it is said why.
"""

from __future__ import annotations

import importlib.util
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["EnergyWatch"]

POWERCAP = Path("/sys/class/powercap")
# A processor's counter begins anew after 60 to 260 kJ, which is minutes at full load.
INTERVAL_SECONDS = 20.0
JOULES_PER_KWH = 3.6e6


class EnergyWatch:
    """Count energy while a block runs.

    Args:
        gpus: GPUs of this process and of those that train with it, by torch's numbers.
        powercap: Where the kernel shows processors' counters.
        interval_seconds: Between two looks at them.
    """

    def __init__(self, gpus: int = 0, *, powercap: Path = POWERCAP, interval_seconds: float = INTERVAL_SECONDS) -> None:
        self._gpus = gpus
        self._powercap = powercap
        self._interval_seconds = interval_seconds
        self._counters: dict[str, _Counter] = {}
        self._unknown: str | None = None
        self._seconds = 0.0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> EnergyWatch:
        try:
            self._counters = {**_processors(self._powercap), **_gpus(self._gpus)}
        except OSError as error:
            self._unknown = f"{error.filename} can't be read: {error.strerror}"
        except Exception as error:  # a driver's own; a training doesn't end for a figure
            self._unknown = _failed(error)
        if not self._counters and self._unknown is None:
            self._unknown = "this machine shows no counter of energy"
        self._began = time.perf_counter()

        def watch() -> None:
            while not self._stop.wait(self._interval_seconds):
                self._look()

        if self._counters:
            self._thread = threading.Thread(target=watch, name="energy-watch", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *reason: Any) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        self._look()
        self._seconds = time.perf_counter() - self._began

    def to_dict(self) -> dict[str, Any]:
        """Return `kwh` and the `seconds` behind it, the `counters` by name, and `unknown`, why there is no figure."""
        joules = sum(counter.joules for counter in self._counters.values())
        known = self._unknown is None
        return {
            "kwh": joules / JOULES_PER_KWH if known else None,
            "seconds": self._seconds,
            "counters": sorted(self._counters) if known else [],
            "unknown": self._unknown,
        }

    def _look(self) -> None:
        try:
            for counter in self._counters.values():
                counter.look()
        except Exception as error:  # as above
            self._unknown = _failed(error)


class _Counter:
    """A counter that only grows, and begins anew behind its largest value."""

    def __init__(self, read: Callable[[], float], largest_joules: float | None = None) -> None:
        self._read = read
        self._largest = largest_joules
        self._last = read()
        self.joules = 0.0

    def look(self) -> None:
        """Add what came since the last look."""
        now = self._read()
        passed = now - self._last
        if passed < 0 and self._largest is not None:
            passed += self._largest
        self.joules += max(0.0, passed)
        self._last = now


def _failed(error: Exception) -> str:
    return f"a counter failed while it was read: {error}"


def _processors(powercap: Path) -> dict[str, _Counter]:
    """Return a counter for each processor package and its memory. The other zones are parts of the packages."""
    found = {}
    for zone in sorted(powercap.glob("intel-rapl:*")):  # AMD's have this name, too
        name = (zone / "name").read_text().strip()
        if name.startswith("package") or name == "dram":
            largest = int((zone / "max_energy_range_uj").read_text()) / 1e6
            found[f"{zone.name} {name}"] = _Counter(_reader(zone / "energy_uj"), largest)
    return found


def _reader(file: Path) -> Callable[[], float]:
    return lambda: int(file.read_text()) / 1e6


def _gpus(count: int) -> dict[str, _Counter]:
    if not count or importlib.util.find_spec("pynvml") is None:
        return {}
    import pynvml
    import torch

    pynvml.nvmlInit()
    found = {}
    for index in range(count):
        properties = torch.cuda.get_device_properties(index)
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
        found[f"GPU {index} {properties.name}"] = _Counter(_gpu_reader(pynvml, handle))
    return found


def _gpu_reader(nvml: Any, handle: Any) -> Callable[[], float]:
    return lambda: float(nvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1e3
