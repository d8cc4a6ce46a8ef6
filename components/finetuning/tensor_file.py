"""A safetensors file written tensor by tensor: of those that lie in parts in several processes, one is whole at a time.

The format: eight bytes with the length of a JSON header, the header with each tensor's dtype, shape and place, then the
tensors (https://huggingface.co/docs/safetensors). `safetensors.torch.save_file` takes all of them at once.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["in_order", "write_tensors"]

# torch's dtypes by name, and the format's
DTYPES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint64": "U64", "uint32": "U32", "uint16": "U16", "uint8": "U8", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "complex64": "C64",
}  # fmt: skip


def in_order(named: Mapping[str, Tensor]) -> list[tuple[str, Tensor]]:
    """Return tensors in the order of the file: by width of a value, so that each begins at a multiple of its own."""
    return sorted(named.items(), key=lambda item: (-item[1].element_size(), item[0]))


def write_tensors(path: Path, named: Mapping[str, Tensor], whole: Callable[[Tensor], Tensor]) -> None:
    """Write named tensors.

    Args:
        path: The file.
        named: The tensors; shapes and dtypes are those of the whole ones.
        whole: Called with one after the other, in the order of `in_order`; returns it with all its values.
    """
    import torch

    header: dict[str, Any] = {}
    place = 0
    for name, tensor in in_order(named):
        end = place + tensor.numel() * tensor.element_size()
        dtype = DTYPES[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [place, end]}
        place = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, tensor in in_order(named):
            values = whole(tensor).detach().cpu().contiguous().reshape(-1)
            file.write(values.view(torch.uint8).numpy().data)
