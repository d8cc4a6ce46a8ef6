"""Follow live tensor storages while code runs: what is alive, what it is for, and when there was most of it.

A dispatch mode sees every operator below autograd; each new storage gets a serial number, and a finalizer notes when it
is freed. Works on fake tensors (no memory is touched) and on real ones alike, which is how the simulation is checked.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CATEGORIES", "Moment", "Peak", "StorageLog", "all_places", "tracking"]

CATEGORIES = ("weights", "gradients", "optimizer", "activations", "other")


@dataclass(frozen=True)
class Peak:
    """The moment at which most was alive; sizes in bytes.

    Attributes:
        peak_bytes: Live storages, and the working operator's own scratch, at that moment.
        breakdown: The same by category.
        phase: Phase that the moment lies in.
        module: Module at work, "" outside all modules.
        phase_peaks: The peak of each phase.
    """

    peak_bytes: int
    breakdown: dict[str, int]
    phase: str
    module: str
    phase_peaks: dict[str, int]


class Moment(NamedTuple):
    """What was alive after one change.

    Attributes:
        operation: Operators run so far.
        sizes: Bytes by category.
        phase: Phase that the moment lies in.
        module: Module at work.
    """

    operation: int
    sizes: dict[str, float]
    phase: str
    module: str


class _Event(NamedTuple):
    serial: int
    change: int
    phase: str
    module: str
    operation: int


class StorageLog:
    """The history of live storages.

    Args:
        device: cpu or cuda: whose operators are followed, for what they take for themselves.

    Attributes:
        phase: Set by the caller as the step goes on.
        module: Set by hooks as modules start.
        flops: Floating-point operations of matrix products so far (a multiply-add counts as two).
        operations: Operators run so far.
        live_bytes: What is alive now.
    """

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self.phase = "setup"
        self.module = ""
        self.flops = 0
        self.operations = 0
        self.live_bytes = 0
        self._serial = 0
        # address of the storage -> its serial number; addresses are used again once a storage is freed
        self._live: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        self._category: dict[int, str] = {}
        # part of a storage that this device holds, where it isn't all of it
        self._share: dict[int, float] = {}
        # serial -1 is scratch that comes and goes within one operator
        self._events: list[_Event] = []

    def restart(self) -> None:
        """Forget the history; what is alive now stands at its beginning, with its categories."""
        alive = set(self._bytes)
        self._category = {serial: name for serial, name in self._category.items() if serial in alive}
        self._share = {serial: part for serial, part in self._share.items() if serial in alive}
        self._events = [_Event(serial, size, "setup", "", 0) for serial, size in self._bytes.items()]
        self.phase, self.module, self.flops, self.operations = "setup", "", 0, 0

    def add(self, tensors: Iterable[Tensor], category: str | None = None, share: float | None = None) -> None:
        """Note storages, new ones as born now; a category given later wins over an earlier one.

        Args:
            tensors: Whose storages.
            category: What they are for.
            share: The part of them that this device holds, against what the simulation holds; all when not given.
        """
        for tensor in tensors:
            storage = tensor.untyped_storage()
            address = storage._cdata
            serial = self._live.get(address)
            if serial is None:
                serial = self.take(storage.nbytes())
                self._live[address] = serial
                weakref.finalize(storage, self._freed, address, serial)
            if category is not None:
                self._category[serial] = category
            if share is not None:
                self._share[serial] = share

    def take(self, size: int, category: str | None = None) -> int:
        """Note memory that no storage stands for, such as a gathered block; return its serial number."""
        serial = self._serial = self._serial + 1
        self._bytes[serial] = size
        self.live_bytes += size
        self._event(serial, size)
        if category is not None:
            self._category[serial] = category
        return serial

    def give_back(self, serial: int) -> None:
        """Note that what `take` took is free again."""
        size = self._bytes.pop(serial)
        self.live_bytes -= size
        self._event(serial, -size)

    def scratch(self, size: int) -> None:
        """Note memory that an operator takes and gives back by itself."""
        self._event(-1, size)
        self._event(-1, -size)

    def peak(self, phases: Iterable[str]) -> Peak:
        """Replay the history and return its greatest moment within the given phases."""
        wanted = set(phases)
        level, best, at = 0.0, -1.0, -1
        phase_peaks: dict[str, float] = {}
        for place, event in enumerate(self._events):
            level += event.change * self._share.get(event.serial, 1.0)
            if event.phase not in wanted:
                continue
            phase_peaks[event.phase] = max(phase_peaks.get(event.phase, 0.0), level)
            if level > best:
                best, at = level, place
        sizes: dict[str, float] = dict.fromkeys(CATEGORIES, 0.0)
        for event in self._events[: at + 1]:
            name = self._category.get(event.serial, "activations")
            sizes[name] = sizes.get(name, 0.0) + event.change * self._share.get(event.serial, 1.0)
        breakdown = {name: round(size) for name, size in sizes.items()}
        phase, module = (self._events[at].phase, self._events[at].module) if at >= 0 else ("", "")
        return Peak(
            sum(breakdown.values()), breakdown, phase, module, {name: round(size) for name, size in phase_peaks.items()}
        )

    def moments(self) -> Iterator[Moment]:
        """Replay the history after its beginning, change by change."""
        sizes: dict[str, float] = dict.fromkeys(CATEGORIES, 0.0)
        for event in self._events:
            name = self._category.get(event.serial, "activations")
            sizes[name] = sizes.get(name, 0.0) + event.change * self._share.get(event.serial, 1.0)
            if event.phase != "setup":
                yield Moment(event.operation, dict(sizes), event.phase, event.module)

    def _event(self, serial: int, change: int) -> None:
        self._events.append(_Event(serial, change, self.phase, self.module, self.operations))

    def _freed(self, address: int, serial: int) -> None:
        del self._live[address]
        self.give_back(serial)


def tracking(log: StorageLog) -> Any:
    """Return a context manager in which every operator's results are noted in the log.

    An index with a boolean mask has a shape that depends on data, which fake tensors don't have: there the mask counts
    as all true, which is the greatest it can be. A branch on such a value (rotary positions that grow with the longest
    sequence seen) counts as not taken.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    from components.memory.bitsandbytes_scratch import scratch_and_flops

    device_of = torch.ops.prim.device.default
    masked_index = torch.ops.aten.index.Tensor
    scalar_of = torch.ops.aten._local_scalar_dense.default

    class Tracking(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is device_of and isinstance(args[0], FakeTensor):
                return args[0].fake_device
            if func is scalar_of and isinstance(args[0], FakeTensor) and args[0].dtype == torch.bool:
                return False
            if func is masked_index and isinstance(args[0], FakeTensor):
                args = (args[0], all_places(args[1]))
            result = func(*args, **(kwargs or {}))
            log.operations += 1
            if type(result) is tuple or type(result) is list:
                log.add(leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
            elif isinstance(result, torch.Tensor):
                log.add((result,))
            count = flop_registry.get(func._overloadpacket)
            if count is not None:
                log.flops += int(count(*args, **(kwargs or {}), out_val=result))
            elif func.namespace == "bitsandbytes":
                scratch, flops = scratch_and_flops(func._opname, args, log.device)
                log.scratch(scratch)
                log.flops += flops
            return result

    return Tracking()  # type: ignore[no-untyped-call]


def all_places(indices: Any) -> list[Any]:
    """Return the indices of an operator with boolean masks replaced by what they are at most: every place."""
    import torch

    places: list[Any] = []
    for index in indices:
        if index is not None and index.dtype == torch.bool:
            places += [torch.zeros(index.numel(), dtype=torch.int64, device=index.device)] * index.dim()
        else:
            places.append(index)
    return places
