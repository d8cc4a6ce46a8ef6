"""The measured peak of a training run, to hold the memory plan against."""

from __future__ import annotations

import threading
from typing import Any

__all__ = ["MemoryWatch"]

INTERVAL_SECONDS = 0.05


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
        self._thread: threading.Thread | None = None

    def __enter__(self) -> MemoryWatch:
        import psutil
        import torch

        process = psutil.Process()
        self.before_bytes = self.peak_bytes = process.memory_info().rss
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

        def watch() -> None:
            while not self._stop.wait(INTERVAL_SECONDS):
                self.peak_bytes = max(self.peak_bytes, process.memory_info().rss)

        self._thread = threading.Thread(target=watch, name="memory-watch", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *reason: Any) -> None:
        import torch

        self._stop.set()
        assert self._thread is not None
        self._thread.join()
        if torch.cuda.is_available():
            self.peak_bytes = torch.cuda.max_memory_allocated()
