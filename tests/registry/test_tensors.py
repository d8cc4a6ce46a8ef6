"""Headers that lie and weights that are no numbers, found without torch; here torch and safetensors are asked, too."""

from __future__ import annotations

import io
import json
import struct
from typing import Any

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from registry.errors import FileRefused
from registry.tensors import DTYPE_BITS, check_finite, read_header


def written(header: object, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def read(content: bytes) -> None:
    """Read header and weights as an import does."""
    stream = io.BytesIO(content)
    check_finite("a.safetensors", stream, read_header("a.safetensors", stream, len(content)))


def is_read_by_safetensors(content: bytes) -> bool:
    from safetensors import SafetensorError, deserialize

    try:
        deserialize(content)
    except SafetensorError:
        return False
    return True


SIZES = st.lists(st.tuples(st.sampled_from(sorted(DTYPE_BITS)), st.integers(0, 5), st.integers(1, 3)), max_size=5)


def sound(parts: list[tuple[str, int, int]]) -> tuple[dict[str, Any], bytes]:
    """Return a true header and as many zero bytes as it says."""
    header: dict[str, Any] = {}
    end = 0
    for number, (dtype, rows, columns) in enumerate(parts):
        bits = DTYPE_BITS[dtype] * 8 * rows * columns  # eight rows more: whole bytes for every dtype
        header[f"t{number}"] = {"dtype": dtype, "shape": [8 * rows, columns], "data_offsets": [end, end + bits // 8]}
        end += bits // 8
    return header, bytes(end)


@given(SIZES)
def test_a_header_that_is_true_is_read(parts: list[tuple[str, int, int]]) -> None:
    header, data = sound(parts)
    stream = io.BytesIO(written(header, data))
    found = read_header("a.safetensors", stream, len(stream.getvalue()))
    assert {name: [t.begin, t.stop] for name, t in found.items()} == {n: e["data_offsets"] for n, e in header.items()}
    check_finite("a.safetensors", stream, found)
    assert stream.read() == b""


@settings(max_examples=200)
@given(SIZES.filter(lambda parts: any(rows for _, rows, _ in parts)), st.data())
def test_a_header_that_lies_about_one_tensor_is_refused(parts: list[tuple[str, int, int]], data: st.DataObject) -> None:
    header, content = sound(parts)
    name = data.draw(st.sampled_from([n for n, e in header.items() if e["shape"][0]]))
    entry = header[name]
    begin, stop = entry["data_offsets"]
    lie = data.draw(st.sampled_from(["begin", "stop", "shape", "both", "dtype", "negative"]))
    shift = data.draw(st.integers(1, 40))
    if lie == "begin":
        entry["data_offsets"] = [begin + shift, stop]
    elif lie == "stop":
        entry["data_offsets"] = [begin, stop + shift]
    elif lie == "both":
        entry["data_offsets"] = [begin + shift, stop + shift]
    elif lie == "shape":
        entry["shape"] = [*entry["shape"], 1 + shift]
    elif lie == "dtype":
        bits = DTYPE_BITS[entry["dtype"]]
        entry["dtype"] = data.draw(st.sampled_from(sorted(d for d, b in DTYPE_BITS.items() if b != bits)))
    else:
        entry["data_offsets"] = [begin - shift - stop, stop]
    with pytest.raises(FileRefused):
        read(written(header, content))


@given(SIZES, st.binary(min_size=1, max_size=9), st.booleans())
def test_bytes_beside_the_tensors_are_refused(parts: list[tuple[str, int, int]], more: bytes, front: bool) -> None:
    header, content = sound(parts)
    with pytest.raises(FileRefused, match=r"bytes of (them|tensors)|can't be read"):
        read(written(header, more + content if front else content + more))


@settings(max_examples=300)
@given(st.data())
def test_nothing_is_let_in_that_the_library_itself_refuses(data: st.DataObject) -> None:
    header, content = sound(data.draw(SIZES))
    whole = bytearray(written(header, content))
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(bytes(whole))
    except FileRefused:
        return
    assert is_read_by_safetensors(bytes(whole))


NOT_NUMBERS = {
    "F64": [numpy.float64("nan").tobytes(), numpy.float64("-inf").tobytes()],
    "F32": [numpy.float32("nan").tobytes(), numpy.float32("inf").tobytes()],
    "F16": [numpy.float16("nan").tobytes(), numpy.float16("-inf").tobytes()],
    "C64": [numpy.complex64(complex(1, float("nan"))).tobytes()],
}


@pytest.mark.parametrize(("dtype", "bits"), [(d, b) for d, found in NOT_NUMBERS.items() for b in found])
@pytest.mark.parametrize("place", [0, 3, 7])
def test_nan_and_infinity_are_found_wherever_they_stand(dtype: str, bits: bytes, place: int) -> None:
    data = bytes(place * len(bits)) + bits + bytes((7 - place) * len(bits))
    header = {
        "sound": {"dtype": "U8", "shape": [3], "data_offsets": [0, 3]},
        "w": {"dtype": dtype, "shape": [8], "data_offsets": [3, 3 + len(data)]},
    }
    element = 2 * place + 1 if dtype == "C64" else place
    with pytest.raises(FileRefused, match=rf"tensor 'w', element {element}$|tensor 'w', element {element}\n"):
        read(written(header, b"\xff\xff\xff" + data))


NARROW = {"F16": "float16", "BF16": "bfloat16", "F8_E5M2": "float8_e5m2", "F8_E4M3": "float8_e4m3fn",
          "F8_E5M2FNUZ": "float8_e5m2fnuz", "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E8M0": "float8_e8m0fnu"}  # fmt: skip


@pytest.mark.parametrize("dtype", NARROW)
def test_every_bit_pattern_of_a_narrow_float_is_judged_as_torch_judges_it(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    kind = getattr(torch, NARROW[dtype])
    wide = torch.arange(2 ** DTYPE_BITS[dtype], dtype=torch.int32).to(
        torch.int16 if DTYPE_BITS[dtype] == 16 else torch.uint8
    )
    finite = torch.isfinite(wide.view(kind).float()).tolist()
    size = DTYPE_BITS[dtype] // 8
    header = {"w": {"dtype": dtype, "shape": [1], "data_offsets": [0, size]}}
    odd = [pattern for pattern, ok in enumerate(finite) if not ok]
    chosen = range(len(finite)) if size == 1 else [*odd[:40], *odd[-40:], *range(0, 65536, 97), 0x7F7F, 0x7BFF, 0xFF7F]
    for pattern in chosen:
        content = written(header, pattern.to_bytes(size, "little"))
        if finite[pattern]:
            read(content)
        else:
            with pytest.raises(FileRefused, match="NaN or infinite"):
                read(content)


def test_weights_are_read_in_pieces_whatever_the_stream_gives() -> None:
    class Trickle(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 7) if size and size > 16 else size)

    values = numpy.arange(1000, dtype="<f4")
    header = {"w": {"dtype": "F32", "shape": [1000], "data_offsets": [0, 4000]}}
    for last in (1.0, float("nan")):
        values[-1] = last
        stream = Trickle(written(header, values.tobytes()))
        size = len(stream.getvalue())
        tensors = read_header("w", io.BytesIO(stream.getvalue()), size)
        stream.seek(size - 4000)
        if last == 1.0:
            check_finite("w", stream, tensors)
        else:
            with pytest.raises(FileRefused, match="element 999"):
                check_finite("w", stream, tensors)


def test_a_file_that_is_cut_while_it_is_read_is_refused() -> None:
    header = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
    content = written(header, bytes(8))
    stream = io.BytesIO(content[:-3])
    with pytest.raises(FileRefused, match="became shorter"):
        check_finite("w", stream, read_header("w", stream, len(content)))
