"""The measured peak of a training run, to hold the memory plan against; and what keeps it from growing by the step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from components.runtime import release_heap

__all__ = ["HeapGuard", "MemoryWatch"]

INTERVAL_SECONDS = 0.05
# How far a process may grow over what a step needs, and the steps after which that is known.
GROWTH = 1.1
SETTLING_STEPS = 2


class MemoryWatch:
    """Sample this process's resident memory while a block runs; on CUDA ask the allocator for its peak.

    Attributes:
        before_bytes: Resident memory when the block began.
        peak_bytes: Largest seen within the block.
    """

    def __init__(self) -> None:
        self.before_bytes = 0
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._looking = threading.Lock()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> MemoryWatch:
        import torch

        self.before_bytes = self.peak_bytes = _resident_bytes()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

        def watch() -> None:
            while not self._stop.wait(INTERVAL_SECONDS):
                self._look()

        self._thread = threading.Thread(target=watch, name="memory-watch", daemon=True)
        self._thread.start()
        return self

    def so_far(self) -> int:
        """Return the peak up to now, while the block runs: bytes, as `peak_bytes` counts them at its end."""
        import torch

        if torch.cuda.is_available():
            return int(torch.cuda.max_memory_allocated())
        return self._look()

    def _look(self) -> int:
        with self._looking:  # both threads write the peak, and the smaller would win
            self.peak_bytes = max(self.peak_bytes, _resident_bytes())
            return self.peak_bytes

    def __exit__(self, *reason: Any) -> None:
        self._stop.set()
        assert self._thread is not None
        self._thread.join()
        self.peak_bytes = self.so_far()


class HeapGuard:
    """Give idle heap back once steps have left a process larger than one step makes it. Ask it after every step.

    Steps of other lengths leave holes that the next one can't use: with bfloat16 tensors, which lie in the heap, a
    process grew from 2.2 to 4.4 GiB in 66 steps, where one step needs the former. Giving all back after every step
    would have the kernel clear the pages anew each time, for a tenth of the time and more.
    """

    def __init__(self, resident: Callable[[], int] | None = None, release: Callable[[], None] = release_heap) -> None:
        self._resident = resident or _resident_bytes
        self._release = release
        self._level = 0
        self._settling = SETTLING_STEPS

    def after_step(self) -> None:
        """Look at the process's memory, and give back what stands idle where it has grown."""
        now = self._resident()
        if self._settling:
            # optimizer states come with the first step; behind a release the next step shows what one step needs
            self._settling -= 1
            self._level = max(self._level, now)
        elif now > GROWTH * self._level:
            self._release()
            self._settling = 1


def _resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)
