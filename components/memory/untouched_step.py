"""A training step on real blocks of memory that nothing is written into: what the C library's heap makes of a step.

Every operator's result is allocated as its kernel would allocate it, but no kernel runs, so that no page is touched: a
step of many gigabytes takes seconds and no memory. What decides how many holes the heap gets is real: sizes, alignment,
order, and the small objects of autograd, modules and optimizer between the blocks. glibc before 2.38 can't give a freed
aligned block to the next request of the same size once a small object has been put beside it, so the heap grows to a
multiple of the live tensors. Run by `training_process`, in a process like that of the training.
"""

from __future__ import annotations

import ctypes
import gc
import mmap
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from components.memory.settings import StepSettings, StepShape
from components.models.base_config import read_config

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["grown_bytes"]

# The heap grows for some steps and then stays.
STEPS = 3
# In the steps whose results aren't put into the heap yet, smaller ones are: a mapping has whole pages.
PAGE_BYTES = 4096
# A block further from the heap's start than this is a mapping of its own.
HEAP_REACH_BYTES = 1 << 40
# the fields of struct mallinfo2, in their order
_HEAP_STATE_FIELDS = (
    "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
)  # fmt: skip


class _HeapState(ctypes.Structure):
    """struct mallinfo2 of glibc 2.33 and later."""

    _fields_ = tuple((name, ctypes.c_size_t) for name in _HEAP_STATE_FIELDS)


def _idle_top_bytes() -> int:
    """Return the heap's free bytes above its last block, maybe never written; 0 where it can't be told."""
    library = ctypes.CDLL(None)
    if not hasattr(library, "mallinfo2"):
        return 0
    library.mallinfo2.restype = _HeapState
    return int(library.mallinfo2().keepcost)


def grown_bytes(folder: Path, settings: StepSettings, shape: StepShape) -> int:
    """Let the allocator serve some training steps.

    Args:
        folder: A base; only its config.json is read.
        settings: What is trained and how, on a CPU.
        shape: The micro-batch.

    Returns:
        Bytes by which resident memory would grow: all tensors but the weights that are read from the file's pages, and
        the heap's holes.
    """
    import torch

    from components.memory import fake_model
    from components.memory.optimizers import build_optimizer
    from components.memory.quantized_layers import scale_tensors
    from components.memory.simulate import micro_batch_loss, zero_batch
    from components.memory.tracked_model import one_sequence_a_row, silently

    config = read_config(folder)
    with silently():
        model, teacher = fake_model.build(config, settings), fake_model.build_teacher(settings)
    heap = _Heap()
    mode = _untouched(heap)
    with mode, silently(), one_sequence_a_row():
        fake_model.materialise(model)
        weights = {
            tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes()
            for tensor in (*model.parameters(), *model.buffers(), *scale_tensors(model))
            if not fake_model.is_mapped(tensor, settings, config.dtype)
        }
        if teacher is not None:
            # its file's pages are counted with what is read into them
            fake_model.materialise(teacher)
            weights |= {
                tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes()
                for tensor in (*teacher.parameters(), *teacher.buffers())
            }
        if shape.gradient_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = build_optimizer(trained, settings.optimizer, "cpu")
        batch = zero_batch(settings, shape)

        def pass_through() -> None:
            micro_batch_loss(model, batch, settings, teacher).backward()

        # lays down what stays for good: caches of this mode, of torch and of Python; none of it between the blocks
        pass_through()
        optimizer.zero_grad(set_to_none=True)
        gc.collect()
        mode.in_heap = True
        if settings.step_in_backward:

            def update(parameter: Any) -> None:
                optimizer.step()
                parameter.grad = None

            for parameter in trained:
                parameter.register_post_accumulate_grad_hook(update)
        heap.begin()
        for _ in range(STEPS):
            for _ in range(1 + shape.accumulating):
                pass_through()
            if not settings.step_in_backward:
                optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    torch.clear_autocast_cache()
    return heap.peak_bytes + sum(weights.values())


class _Heap:
    """The C library's heap: how far it has grown, with the blocks that are mappings of their own."""

    def __init__(self) -> None:
        library = ctypes.CDLL(None)
        self._break = library.sbrk
        self._break.restype, self._break.argtypes = ctypes.c_void_p, [ctypes.c_ssize_t]
        self.begin()

    def begin(self) -> None:
        """Count from here on; what is idle above the heap's last block was not touched yet."""
        self._start = self._highest = self._end() - _idle_top_bytes()
        self._mapped_bytes = 0
        self.peak_bytes = 0

    def add(self, tensor: Tensor) -> None:
        """Count a tensor that was just allocated."""
        storage = tensor.untyped_storage()
        size, address = storage.nbytes(), storage.data_ptr()
        if self._start - HEAP_REACH_BYTES < address < self._end():
            self._highest = max(self._highest, address + size)
        else:
            self._mapped_bytes += size
            weakref.finalize(storage, self._unmap, size)
        self.peak_bytes = max(self.peak_bytes, self._highest - self._start + self._mapped_bytes)

    def _unmap(self, size: int) -> None:
        self._mapped_bytes -= size

    def _end(self) -> int:
        return int(self._break(0))


class _Layout(NamedTuple):
    """What tells one allocation from another."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: Any


def _untouched(heap: _Heap) -> Any:
    """Return the dispatch mode: views and bookkeeping run, everything else only allocates its results.

    Attribute `in_heap` says whether results are put into the heap and counted, or into mappings of their own.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_flatten, tree_unflatten

    from components.memory.bitsandbytes_scratch import scratch_and_flops
    from components.memory.storages import all_places

    aten = torch.ops.aten
    views = {aten._unsafe_view.default, aten._reshape_alias.default, aten.lift_fresh.default, aten.alias.default}

    class Untouched(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.in_heap = False
            self._known: dict[Any, list[Any]] = {}

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            kwargs = kwargs or {}
            if func.is_view or func in views or func.namespace in ("profiler", "prim"):
                return func(*args, **kwargs)
            if func is aten._local_scalar_dense.default:
                # as in the simulation, a branch on a value counts as not taken
                return False if args[0].dtype is torch.bool else 1
            if func is aten.index.Tensor:
                args = (args[0], all_places(args[1]))
            written = _written(func, args, kwargs)
            if func.namespace == "bitsandbytes":
                scratch, _ = scratch_and_flops(func._opname, args, "cpu")
                self._new(_Layout((scratch,), (1,), torch.uint8))
            if written is None:
                return self._allocated(func, args, kwargs)
            if not func._schema.returns:
                return None
            return written[0] if len(written) == 1 else tuple(written)

        def _allocated(self, func: Any, args: Any, kwargs: Any) -> Any:
            flat, spec = tree_flatten((args, kwargs))
            key = (func, tuple(_layout(leaf) for leaf in flat), spec)
            if key not in self._known:
                given, named = tree_unflatten([_on_meta(leaf) for leaf in flat], spec)
                if any(argument.name == "device" for argument in func._schema.arguments):
                    named["device"] = torch.device("meta")
                found = func(*given, **named)
                self._known[key] = [_layout(part) for part in (found if _is_several(found) else (found,))]
            parts = [self._new(part) if isinstance(part, _Layout) else part for part in self._known[key]]
            several = len(func._schema.returns) > 1 or str(func._schema.returns[0].type).startswith("List")
            if not several:
                return parts[0]
            return tuple(parts) if len(func._schema.returns) > 1 else parts

        def _new(self, layout: _Layout) -> Tensor:
            shape, stride, dtype = layout
            if not self.in_heap:
                last = sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
                size = (last + 1) * dtype.itemsize if all(shape) else 0
                if size >= PAGE_BYTES:
                    return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype).as_strided(shape, stride)
            tensor = torch.empty_strided(shape, stride, dtype=dtype, device="cpu")
            if self.in_heap:
                heap.add(tensor)
            return tensor

    def _layout(leaf: Any) -> Any:
        return _Layout(tuple(leaf.shape), leaf.stride(), leaf.dtype) if isinstance(leaf, torch.Tensor) else leaf

    def _on_meta(leaf: Any) -> Any:
        if not isinstance(leaf, torch.Tensor):
            return leaf
        return torch.empty_strided(leaf.shape, leaf.stride(), dtype=leaf.dtype, device="meta")

    return Untouched()


def _is_several(found: Any) -> bool:
    return isinstance(found, tuple | list)


def _written(func: Any, args: Any, kwargs: Any) -> list[Any] | None:
    """Return the arguments that an operator writes into, None for one that only makes new tensors."""
    if not func._schema.is_mutable:
        return None
    named = [argument for argument in func._schema.arguments if argument.alias_info and argument.alias_info.is_write]
    places = {argument.name: place for place, argument in enumerate(func._schema.arguments)}
    return [kwargs.get(a.name, args[places[a.name]] if places[a.name] < len(args) else None) for a in named]
