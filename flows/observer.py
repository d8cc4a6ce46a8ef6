"""Who watches a run: lines and progress on standard error, and under Prefect its logs and artifacts as well."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Protocol

__all__ = ["Observer", "TerminalObserver", "stored_in_mib"]

PLAIN_INTERVAL_SECONDS = 10.0
# less is stored before anybody could read of it
SHOWN_BYTES = 16 << 20


class Observer(Protocol):
    """What a step tells while it works."""

    def say(self, text: str) -> None:
        """Tell one line."""

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Tell how far a step is; called often."""


class TerminalObserver:
    """Write to standard error: a line that is redrawn on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._last: dict[str, float] = {}
        self._drawn = False

    def say(self, text: str) -> None:
        """Tell one line."""
        self._clear()
        print(text, file=sys.stderr, flush=True)

    def progress(self, what: str, done: int, total: int, detail: str = "") -> None:
        """Redraw the line, or write one when ten seconds have passed or the step is done."""
        text = f"  {what} {done}/{total}" + (f"  {detail}" if detail else "")
        if self._terminal:
            # a line that wraps can't be redrawn
            columns = shutil.get_terminal_size().columns
            text = text if len(text) < columns else text[: columns - 2] + "…"
            print(f"\r\033[2K{text}", end="\n" if done >= total else "", file=sys.stderr, flush=True)
            self._drawn = done < total
            return
        now = time.monotonic()
        if done >= total or now - self._last.get(what, 0.0) >= PLAIN_INTERVAL_SECONDS:
            self._last[what] = now
            print(text, file=sys.stderr, flush=True)

    def _clear(self) -> None:
        if self._drawn:
            print("\r\033[2K", end="", file=sys.stderr)
            self._drawn = False


def stored_in_mib(observer: Observer) -> Callable[[int, int], None]:
    """Return what tells an observer of bytes that are stored, once a MiB: small files pass without a word."""
    last = -1

    def tell(done: int, total: int) -> None:
        nonlocal last
        if done >> 20 != last and total >= SHOWN_BYTES:
            last = done >> 20
            observer.progress("store: MiB", last, total >> 20)

    return tell


def step_detail(log: Mapping[str, float]) -> str:
    """Return a training step in words: time left, losses, learning rate, gradient norm, speed, peak memory."""
    left = int(log["seconds_left"])
    dev = f"dev {log['dev_loss']:.3f}" if "dev_loss" in log else ""
    dev += f" {log['dev_score']:.1%}" if "dev_score" in log else ""
    norm = f"{log['gradient_norm']:.3g}" if math.isfinite(log["gradient_norm"]) else "overflow"
    return (
        f"{left // 60}:{left % 60:02d} left  loss {log['loss']:.3f}  {dev}{'  ' if dev else ''}"
        f"lr {log['learning_rate']:.1e}  grad {norm}  {log['tokens_per_second']:.0f} tokens/s  "
        f"{log['peak_bytes'] / 2**30:.2f} GiB"
    )
