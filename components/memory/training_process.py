"""A process that is like a training process but for the data: `python -m components.memory.training_process`.

It imports what training imports and prints its resident bytes; then it reads the allocations of a simulated step from
standard input, gives them to the C library's allocator in their order, again and again as training does, and prints how
far memory grew. Nothing is written into the blocks, so a step of many gigabytes takes a second and no memory.

Why: before version 2.38, glibc can't give a freed aligned block to the next request of the same size once a small
object has been put beside it, so the heap grows to a multiple of the live tensors. The small objects that a framework
makes with each tensor (autograd nodes, tensor headers) are imitated; sizes and lifetimes are those of a traced step.
"""

from __future__ import annotations

import ctypes
import json
import sys
from collections import deque
from typing import Any

__all__ = ["idle_heap_bytes", "main", "replay"]

# torch aligns its blocks to this
ALIGNMENT_BYTES = 64
# Bytes of small objects beside each tensor: freed soon after; made before and after the block and freed with it.
PASSING_OBJECTS = (32, 16, 64, 32, 16)
PASSING_TENSORS = 2
OWN_BEFORE, OWN_AFTER = (176, 96), (32, 16, 320, 192, 32)
# The heap grows for some steps and then stays.
REPETITIONS = 6
# the fields of struct mallinfo2, in their order
_HEAP_STATE_FIELDS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
)  # fmt: skip
# A block further from the heap's start than this is a mapping of its own.
HEAP_REACH_BYTES = 1 << 40


class _Heap:
    """The C library's allocator, and how far it has grown."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._malloc, self._free, self._break = library.malloc, library.free, library.sbrk
        self._malloc.restype, self._malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
        self._free.restype, self._free.argtypes = None, [ctypes.c_void_p]
        self._break.restype, self._break.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
        self._aligned = library.posix_memalign
        self._aligned.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t, ctypes.c_size_t]
        self._start = self._highest = self._end() - idle_heap_bytes()[1]
        self._mapped_bytes = 0
        self.peak_bytes = 0

    def take(self, size: int) -> tuple[int, int]:
        """Allocate a tensor's block; return its address and, where it is a mapping of its own, its size, else 0."""
        place = ctypes.c_void_p()
        if self._aligned(ctypes.byref(place), ALIGNMENT_BYTES, max(size, 1)) != 0:
            raise MemoryError(f"no address space for a block of {size} bytes")
        address = int(place.value or 0)
        mapped = 0 if self._start - HEAP_REACH_BYTES < address < self._end() else size
        if mapped:
            self._mapped_bytes += mapped
        else:
            self._highest = max(self._highest, address + size)
        self.peak_bytes = max(self.peak_bytes, self._highest - self._start + self._mapped_bytes)
        return address, mapped

    def give_back(self, address: int, mapped: int) -> None:
        """Free a tensor's block."""
        self._mapped_bytes -= mapped
        self._free(address)

    def small(self, sizes: tuple[int, ...]) -> list[int]:
        """Allocate small objects."""
        return [int(self._malloc(size)) for size in sizes]

    def forget(self, addresses: list[int]) -> None:
        """Free small objects."""
        for address in addresses:
            self._free(address)

    def _end(self) -> int:
        return int(self._break(0))


def replay(resident: list[int], changes: list[tuple[int, int]]) -> int:
    """Let the allocator serve a training step's allocations.

    Args:
        resident: Sizes of blocks that stay: adapter, optimizer states, converted weights.
        changes: (serial number, bytes) for a tensor that comes, (serial number, negative bytes) for one that goes.

    Returns:
        Bytes by which resident memory would grow.
    """
    heap = _Heap()
    for size in resident:
        heap.take(size)
    passing: deque[tuple[int, list[int]]] = deque()
    born = 0
    for _ in range(REPETITIONS):
        live: dict[int, tuple[int, int, list[int]]] = {}
        for serial, size in changes:
            if size > 0:
                born += 1
                while passing and passing[0][0] <= born:
                    heap.forget(passing.popleft()[1])
                passing.append((born + PASSING_TENSORS, heap.small(PASSING_OBJECTS)))
                own = heap.small(OWN_BEFORE)
                address, mapped = heap.take(size)
                live[serial] = (address, mapped, own + heap.small(OWN_AFTER))
            elif serial in live:
                _drop(heap, live.pop(serial))
        for block in live.values():
            _drop(heap, block)
    return heap.peak_bytes


def main() -> None:
    """Print resident bytes after the imports; then replay what standard input holds and print the growth."""
    import psutil

    from components.runtime import prepare_process

    prepare_process(1)
    import accelerate  # noqa: F401  (imported for what it takes)
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401

    print(psutil.Process().memory_info().rss, flush=True)
    # a search asks again when a candidate turns out not to fit
    for text in sys.stdin:
        request: dict[str, Any] = json.loads(text)
        print(replay(request["resident"], request["changes"]), flush=True)


def _drop(heap: _Heap, block: tuple[int, int, list[int]]) -> None:
    address, mapped, own = block
    heap.give_back(address, mapped)
    heap.forget(own)


class _HeapState(ctypes.Structure):
    """struct mallinfo2 of glibc 2.33 and later."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _HEAP_STATE_FIELDS)


def idle_heap_bytes() -> tuple[int, int]:
    """Return the heap's free bytes between blocks, and those above the last block, most of which are untouched.

    Both are 0 where the C library can't say.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return 0, 0
    library.mallinfo2.restype = _HeapState
    state = library.mallinfo2()
    return max(0, int(state.fordblks) - int(state.keepcost)), int(state.keepcost)


if __name__ == "__main__":
    main()
