"""What bitsandbytes' fused operators take and give back by themselves, which no dispatch mode sees.

Read off bitsandbytes 0.50's own kernels: a 4-bit layer unpacks its weights to the dtype of its input; on a processor an
optimizer's update makes float32 copies of the states, the gradient and the parameter, and the terms of the update.
On CUDA the update is one kernel that needs nothing.
"""

from __future__ import annotations

from typing import Any

__all__ = ["scratch_and_flops"]

FLOAT32_BYTES = 4
# float32 tensors of the parameter's size at once: scaled gradient and the update's terms ...
UPDATE_TENSORS = {"optimizer_update_32bit": 3, "optimizer_update_8bit_blockwise": 5}


def scratch_and_flops(operator: str, arguments: Any, device: str) -> tuple[int, int]:
    """Return the bytes that an operator takes for itself and the floating-point operations that it does.

    Args:
        operator: Its name without the namespace.
        arguments: What it was called with.
        device: cpu or cuda.

    Returns:
        (bytes, operations); zeros for operators that take nothing of note.
    """
    if operator == "gemm_4bit":
        states, (rows, columns), block = arguments[0], arguments[2], arguments[4]
        unpacked = rows * columns * states.element_size() + rows * columns // block * FLOAT32_BYTES
        return unpacked, 2 * states.numel() * rows
    if operator in UPDATE_TENSORS:
        parameter = arguments[2]
        if device != "cpu":
            return 0, 0
        # ... and the parameter itself, where it isn't float32 already
        tensors = UPDATE_TENSORS[operator] + (parameter.element_size() != FLOAT32_BYTES)
        return tensors * FLOAT32_BYTES * parameter.numel(), 0
    return 0, 0
