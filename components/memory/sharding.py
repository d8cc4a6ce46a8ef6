"""What FSDP adds to a simulated step: blocks gathered for their own computation, their gradients whole until reduced.

Every device holds 1/N of parameters, gradients and optimizer states (their shares in the log). Beside them stand, in
full, the block at work and the next one, whose gathering runs ahead (FSDP2's prefetching; Zhao et al. 2023,
arXiv:2304.11277), the block's own gradients in the backward pass, and what lies outside the blocks during the whole
step.
"""

from __future__ import annotations

from typing import Any

from components.memory.storages import StorageLog
from components.models.blocks import decoder_blocks

__all__ = ["BlockGathering"]


class BlockGathering:
    """Note gathered blocks in the log as the model runs.

    Args:
        model: The model, materialised.
        log: Where they are noted.
    """

    def __init__(self, model: Any, log: StorageLog) -> None:
        self._log = log
        self._blocks = decoder_blocks(model)
        inside = {id(parameter) for block in self._blocks for parameter in block.parameters()}
        outside = [parameter for parameter in model.parameters() if id(parameter) not in inside]
        self._sizes = [_bytes(block.parameters()) for block in self._blocks]
        self._gradients = [_bytes(p for p in block.parameters() if p.requires_grad) for block in self._blocks]
        self._outside = _bytes(outside)
        self._outside_gradients = _bytes(p for p in outside if p.requires_grad)
        self._held: dict[tuple[str, int], int] = {}
        for number, block in enumerate(self._blocks):
            block.register_forward_pre_hook(self._entering(number))
            block.register_forward_hook(self._leaving(number))

    def begin(self) -> None:
        """Gather what lies outside the blocks."""
        self._take("parameters", -1, self._outside, "weights")

    def end(self) -> None:
        """Give everything back: the backward pass is over, or there was none."""
        for serial in self._held.values():
            self._log.give_back(serial)
        self._held.clear()

    def _entering(self, number: int) -> Any:
        def hook(*_: Any) -> None:
            if self._log.phase != "backward":  # there a checkpointed block runs forward again, gathered already
                self._gather(number, number + 1)

        return hook

    def _leaving(self, number: int) -> Any:
        def hook(_module: Any, _arguments: Any, output: Any) -> None:
            if self._log.phase == "backward":
                return
            self._release("parameters", number)
            states = output[0] if isinstance(output, tuple) else output
            if states.requires_grad:
                states.register_hook(lambda _: self._backward(number))

        return hook

    def _backward(self, number: int) -> None:
        for kind in ("parameters", "gradients"):
            self._release(kind, number + 1)
        self._gather(number, number - 1)
        self._take("gradients", number, self._gradients[number], "gradients")
        if number == len(self._blocks) - 1:
            self._take("gradients", -1, self._outside_gradients, "gradients")

    def _gather(self, *numbers: int) -> None:
        for number in numbers:
            if 0 <= number < len(self._blocks):
                self._take("parameters", number, self._sizes[number], "weights")

    def _take(self, kind: str, number: int, size: int, category: str) -> None:
        if (kind, number) not in self._held:
            self._held[kind, number] = self._log.take(size, category)

    def _release(self, kind: str, number: int) -> None:
        serial = self._held.pop((kind, number), None)
        if serial is not None:
            self._log.give_back(serial)


def _bytes(parameters: Any) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)
