"""How many threads a CPU engine computes with: settled by measuring, on the machine as it is when the server starts.

More threads than free cores make each of a forward pass's hundreds of barriers wait for a thread that isn't running:
with two threads on two cores shared with four other processes, decoding was 5 times slower than with one.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator

__all__ = ["one_thread", "settle_threads", "wait_politely"]

# Fewer threads are kept unless more are faster by this factor: so short a measurement is noisy.
WORTH_IT = 1.15


def wait_politely() -> None:
    """Let idle threads sleep instead of spin. Has an effect only before torch is imported."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread while the block runs: for a short piece of work beside other processes."""
    import torch

    present = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(present)


def settle_threads(work: Callable[[], None]) -> int:
    """Run a piece of work with one thread and with all, and keep the faster.

    Args:
        work: What to time; it is run once or twice.

    Returns:
        The number of threads in force afterwards. `OMP_NUM_THREADS`, where set, is taken as it is.
    """
    import torch

    present = torch.get_num_threads()
    if os.environ.get("OMP_NUM_THREADS") or torch.cuda.is_available() or present == 1:
        work()
        return present
    seconds = {}
    for count in (1, present):
        torch.set_num_threads(count)
        started = time.perf_counter()
        work()
        seconds[count] = time.perf_counter() - started
    chosen = present if seconds[present] * WORTH_IT < seconds[1] else 1
    torch.set_num_threads(chosen)
    return chosen
