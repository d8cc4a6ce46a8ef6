"""safetensors without torch: headers held against their file, and weights searched for NaN and infinity as a stream.

The format: 8 bytes of little-endian length, that much JSON, then the tensors' bytes without gap or overlap. NaN and
infinity are told from bit patterns, so that bfloat16 and the 8-bit floats need no library that knows them: IEEE 754,
and OCP's 8-bit formats (Micikevicius et al. 2022, arXiv:2209.05433).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from registry.allowed_files import refuse
from registry.canonical import without_repeats

__all__ = [
    "DTYPE_BITS",
    "MAX_HEADER_BYTES",
    "MAX_TENSORS",
    "Readable",
    "TensorEntry",
    "check_finite",
    "read_header",
    "read_parts",
]

MAX_HEADER_BYTES = 100_000_000  # the limit that safetensors' own reader has
# Every value of a header but the first stands behind a comma: counted before it is parsed into far more memory.
MAX_TENSORS, HEADER_COMMAS = 250_000, 12
# A tensor of more bits than this is in no file; products stop here, so that a shape can't cost time by itself.
MAX_TENSOR_BITS = 2**66
PIECE_BYTES = 1 << 20  # a multiple of every item's size
DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip


class Readable(Protocol):
    """What a content is read from: a file, or one that is hashed on the way."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, none at the end."""


class _Pattern(NamedTuple):
    """Which bit patterns are no finite number: those whose bits under `mask` are `value`."""

    item: str
    mask: int
    value: int


# NumPy's unsigned integer of that size, and the bits. A complex number is two F32. F4 and F6 have neither.
_NOT_FINITE = {
    "F64": _Pattern("<u8", 0x7FF0_0000_0000_0000, 0x7FF0_0000_0000_0000),
    "F32": _Pattern("<u4", 0x7F80_0000, 0x7F80_0000),
    "C64": _Pattern("<u4", 0x7F80_0000, 0x7F80_0000),
    "F16": _Pattern("<u2", 0x7C00, 0x7C00),
    "BF16": _Pattern("<u2", 0x7F80, 0x7F80),
    "F8_E5M2": _Pattern("u1", 0x7C, 0x7C),
    "F8_E4M3": _Pattern("u1", 0x7F, 0x7F),
    "F8_E5M2FNUZ": _Pattern("u1", 0xFF, 0x80),
    "F8_E4M3FNUZ": _Pattern("u1", 0xFF, 0x80),
    "F8_E8M0": _Pattern("u1", 0xFF, 0xFF),
}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """What a header says of one tensor; `begin` and `stop` are bytes behind the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    stop: int


def read_header(path: str, stream: Readable, size: int) -> dict[str, TensorEntry]:
    """Read a safetensors header as `read_parts` does, and return its tensors alone."""
    return read_parts(path, stream, size)[0]


def read_parts(path: str, stream: Readable, size: int) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """Read a safetensors header and hold it against its file.

    Args:
        path: The file's path inside the version, for errors.
        stream: The content, at its start; read to the end of the header.
        size: The file's length in bytes.

    Returns:
        Tensors by name, in the order of their bytes; and what the header says beside them (`__metadata__`).

    Raises:
        FileRefused: A length that doesn't fit, a header that is no JSON object of tensors, a name that stands twice,
            an unknown dtype, offsets that don't fit the shape, overlap, leave a gap or end elsewhere than the file.
    """
    if size < 8:
        refuse(path, f"is {size} bytes long, shorter than a safetensors header")
    (length,) = struct.unpack("<Q", stream.read(8))
    if not 2 <= length <= min(size - 8, MAX_HEADER_BYTES):
        refuse(path, f"says that its safetensors header has {length} bytes, in a file of {size}")
    raw = stream.read(length)
    if raw.count(b",") > MAX_TENSORS * HEADER_COMMAS:
        refuse(path, f"has a safetensors header with more in it than {MAX_TENSORS} tensors need")
    try:
        if raw[:1] != b"{":
            raise ValueError("it doesn't begin with '{'")
        header = json.loads(raw.decode(), object_pairs_hook=without_repeats)
        metadata = _check_metadata(header.pop("__metadata__", {}))
        tensors = {name: _entry(name, entry) for name, entry in header.items()}
    except RecursionError:
        refuse(path, "has a safetensors header that can't be read: it is nested too deeply")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        refuse(path, f"has a safetensors header that can't be read: {error}")
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].stop)))
    end = 0
    for name, tensor in ordered.items():
        if tensor.begin != end:
            what = "leave a gap before" if tensor.begin > end else "overlap at"
            refuse(path, f"has a safetensors header whose offsets {what} tensor {name[:80]!r}")
        end = tensor.stop
    if end != size - 8 - length:
        refuse(path, f"has a safetensors header for {end} bytes of tensors, and {size - 8 - length} bytes of them")
    return ordered, metadata


def check_finite(path: str, stream: Readable, tensors: Mapping[str, TensorEntry]) -> None:
    """Read every tensor's bytes and refuse weights that are NaN or infinite.

    Args:
        path: The file's path inside the version, for errors.
        stream: The content, behind its header; read to its end.
        tensors: What `read_header` returned.

    Raises:
        FileRefused: Names the first tensor with such a number; or the file is shorter than it was.
    """
    import numpy

    for name, tensor in tensors.items():
        pattern = _NOT_FINITE.get(tensor.dtype)
        left = tensor.stop - tensor.begin
        read = 0
        while left:
            piece = stream.read(min(left, PIECE_BYTES))
            if not piece:
                refuse(path, "became shorter while it was read")
            left -= len(piece)
            if pattern is not None:
                # a raw stream may return less than was asked for, and end within an item
                item = numpy.dtype(pattern.item).itemsize
                while len(piece) % item and left:
                    more = stream.read(min(left, item - len(piece) % item))
                    if not more:
                        refuse(path, "became shorter while it was read")
                    piece += more
                    left -= len(more)
                bits = numpy.frombuffer(piece, dtype=pattern.item)
                found = (bits & bits.dtype.type(pattern.mask)) == bits.dtype.type(pattern.value)
                if found.any():
                    place = read // item + int(found.argmax())
                    refuse(path, f"has a number that is NaN or infinite: tensor {name[:80]!r}, element {place}")
            read += len(piece)


def _check_metadata(metadata: Any) -> dict[str, str]:
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its __metadata__ is not a mapping from text to text")
    return metadata


def _entry(name: str, entry: Any) -> TensorEntry:
    if isinstance(entry, dict) and (more := sorted(entry.keys() - {"dtype", "shape", "data_offsets"})):
        raise ValueError(f"tensor {name[:80]!r} has {more[0][:80]!r}, which no tensor has")
    dtype, shape = entry["dtype"], entry["shape"]
    begin, stop = entry["data_offsets"]
    bits = DTYPE_BITS.get(dtype) if isinstance(dtype, str) else None
    if bits is None:
        raise ValueError(f"tensor {name[:80]!r} has the dtype {str(dtype)[:40]!r}")
    if not isinstance(shape, list) or not all(type(extent) is int and extent >= 0 for extent in shape):
        raise ValueError(f"tensor {name[:80]!r} has no shape")
    if type(begin) is not int or type(stop) is not int or not 0 <= begin <= stop:
        raise ValueError(f"tensor {name[:80]!r} has no offsets")
    for extent in [0] if 0 in shape else shape:
        bits *= extent
        if bits > MAX_TENSOR_BITS:
            raise ValueError(f"tensor {name[:80]!r} is larger than any file")
    if (stop - begin) * 8 != bits:
        raise ValueError(f"tensor {name[:80]!r} has offsets that don't fit its shape")
    return TensorEntry(dtype, tuple(shape), begin, stop)
