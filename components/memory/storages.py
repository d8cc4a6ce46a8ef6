"""Follow live tensor storages while code runs: what is alive, what it is for, and when there was most of it.

A dispatch mode sees every operator below autograd; each new storage gets a serial number, and a finalizer notes when it
is freed. Works on fake tensors (no memory is touched) and on real ones alike, which is how the simulation is checked.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["CATEGORIES", "Peak", "StorageLog", "tracking"]

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


class StorageLog:
    """The history of live storages.

    Attributes:
        phase: Set by the caller as the step goes on.
        module: Set by hooks as modules start.
        flops: Floating-point operations of matrix products so far (a multiply-add counts as two).
        live_bytes: What is alive now.
    """

    def __init__(self) -> None:
        self.phase = "setup"
        self.module = ""
        self.flops = 0
        self.live_bytes = 0
        self._serial = 0
        # address of the storage -> its serial number; addresses are used again once a storage is freed
        self._live: dict[int, int] = {}
        self._bytes: dict[int, int] = {}
        self._category: dict[int, str] = {}
        # (serial, change in bytes, phase, module); serial -1 is scratch that comes and goes within one operator
        self._events: list[tuple[int, int, str, str]] = []

    def restart(self) -> None:
        """Forget the history; what is alive now stands at its beginning, with its categories."""
        alive = set(self._bytes)
        self._category = {serial: name for serial, name in self._category.items() if serial in alive}
        self._events = [(serial, size, "setup", "") for serial, size in self._bytes.items()]
        self.phase, self.module, self.flops = "setup", "", 0

    def add(self, tensors: Iterable[Tensor], category: str | None = None) -> None:
        """Note storages, new ones as born now; a category given later wins over an earlier one."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            address = storage._cdata
            serial = self._live.get(address)
            if serial is None:
                serial = self._serial = self._serial + 1
                size = storage.nbytes()
                self._live[address] = serial
                self._bytes[serial] = size
                self.live_bytes += size
                self._events.append((serial, size, self.phase, self.module))
                weakref.finalize(storage, self._freed, address, serial)
            if category is not None:
                self._category[serial] = category

    def scratch(self, size: int) -> None:
        """Note memory that an operator takes and gives back by itself."""
        self._events.append((-1, size, self.phase, self.module))
        self._events.append((-1, -size, self.phase, self.module))

    def peak(self, phases: Iterable[str]) -> Peak:
        """Replay the history and return its greatest moment within the given phases."""
        wanted = set(phases)
        level, best, at = 0, -1, -1
        phase_peaks: dict[str, int] = {}
        for place, (_, change, phase, _) in enumerate(self._events):
            level += change
            if phase not in wanted:
                continue
            phase_peaks[phase] = max(phase_peaks.get(phase, 0), level)
            if level > best:
                best, at = level, place
        breakdown = dict.fromkeys(CATEGORIES, 0)
        for serial, change, _, _ in self._events[: at + 1]:
            breakdown[self._category.get(serial, "activations")] += change
        _, _, phase, module = self._events[at] if at >= 0 else (0, 0, "", "")
        return Peak(max(best, 0), breakdown, phase, module, phase_peaks)

    def serials(self, tensors: Iterable[Tensor]) -> set[int]:
        """Return the serial numbers of storages that are alive."""
        return {self._live[tensor.untyped_storage()._cdata] for tensor in tensors}

    def changes(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Return (serial, bytes) of what was alive at the beginning, and of what came and went after."""
        before = [(serial, size) for serial, size, phase, _ in self._events if phase == "setup"]
        after = [(serial, size) for serial, size, phase, _ in self._events if phase != "setup"]
        return before, after

    def _freed(self, address: int, serial: int) -> None:
        del self._live[address]
        size = self._bytes.pop(serial)
        self.live_bytes -= size
        self._events.append((serial, -size, self.phase, self.module))


def tracking(log: StorageLog) -> Any:
    """Return a context manager in which every operator's results are noted in the log.

    An index with a boolean mask has a shape that depends on data, which fake tensors don't have: there the mask counts
    as all true, which is the greatest it can be.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import flop_registry

    device_of = torch.ops.prim.device.default
    masked_index = torch.ops.aten.index.Tensor

    class Tracking(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is device_of and isinstance(args[0], FakeTensor):
                return args[0].fake_device
            if func is masked_index and isinstance(args[0], FakeTensor):
                args = (args[0], _all_places(args[1]))
            result = func(*args, **(kwargs or {}))
            if type(result) is tuple or type(result) is list:
                log.add(leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
            elif isinstance(result, torch.Tensor):
                log.add((result,))
            count = flop_registry.get(func._overloadpacket)
            if count is not None:
                log.flops += int(count(*args, **(kwargs or {}), out_val=result))
            elif func.namespace == "bitsandbytes":
                self._four_bit(func, args)
            return result

        def _four_bit(self, func: Any, args: Any) -> None:
            # one fused operator outwards; inside, the layer's weights are unpacked to the dtype of the input
            if func._opname == "gemm_4bit":
                states, (rows, columns) = args[0], args[2]
                log.scratch(rows * columns * states.element_size() + rows * columns // args[4] * 4)
                log.flops += 2 * states.numel() * rows

    def _all_places(indices: Any) -> list[Any]:
        places: list[Any] = []
        for index in indices:
            if index is not None and index.dtype == torch.bool:
                places += [torch.zeros(index.numel(), dtype=torch.int64, device=index.device)] * index.dim()
            else:
                places.append(index)
        return places

    return Tracking()  # type: ignore[no-untyped-call]
