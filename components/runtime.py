"""Settings of this process that decide how fast the processor is used. Called once, before torch is imported.

Two things were measured on a two-core virtual machine with the 135M model. glibc gives every large tensor back to the
kernel and faults its pages in again: with the thresholds raised, a training step's elementwise kernels took a tenth of
the time. OpenMP threads that spin at a barrier starve each other as soon as another process wants a core: with the
passive policy a busy neighbour costs its share and no more.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import sys
import warnings

__all__ = ["available_cores", "prepare_process", "quiet_libraries", "release_heap", "release_memory"]

# names of mallopt(3); values from glibc's malloc.h
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_LARGEST_MMAP_THRESHOLD_BYTES = 32 * 1024 * 1024
_TOP_PAD_BYTES = 256 * 1024 * 1024


def available_cores() -> int:
    """Return the number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def quiet_libraries() -> None:
    """Silence what libraries say of one another when they are imported: nothing that a run's reader could act on."""
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module=r"torch\.")
    # bitsandbytes misses an optional kernel of another package at its import, and does without it
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    # torchao, which transformers imports where it is installed, misses CUDA libraries and registers enums in an old way
    for name in ("torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)


def prepare_process(threads: int = 0, kept_bytes: int = _LARGEST_MMAP_THRESHOLD_BYTES) -> int:
    """Set allocator, thread policy and thread count.

    Args:
        threads: CPU threads for torch; 0 means as many as this process may use.
        kept_bytes: Tensors up to this size are kept mapped when they are freed, for the next one; 32 MiB at most.

    Returns:
        The number of threads set.
    """
    chosen = threads or available_cores()
    quiet_libraries()
    if "torch" not in sys.modules:
        # read once, when the OpenMP runtime is loaded
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        # What is kept for each shape of a bfloat16 product, by torch (with its scratch memory) and by oneDNN: 1,024
        # shapes each. Sequences of all lengths made that grow by 7 MiB with every step; with 64 the first stays at
        # what one step needs, and training was as fast.
        os.environ.setdefault("LRU_CACHE_CAPACITY", "64")
        os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # musl has none
            mallopt(_M_MMAP_THRESHOLD, kept_bytes)
            mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
            mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)
    import torch

    torch.set_num_threads(chosen)
    return chosen


def release_heap() -> None:
    """Give back the heap's idle pages, those between blocks in use among them. Nothing where the C library can't."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:  # musl has none
            trim(0)


def release_memory() -> None:
    """Give back what this process no longer uses: unreachable objects, idle pages of the heap, torch's idle GPU memory.

    `prepare_process` lets glibc keep what tensors held, which is right within a step and wrong between steps: after 60
    generated answers 1.7 GB of a 2.4 GB process were idle, and would have counted as the next step's.
    """
    gc.collect()
    release_heap()
    torch = sys.modules.get("torch")
    if torch is not None:
        # out of the count of free memory otherwise; without CUDA this does nothing
        torch.cuda.empty_cache()
