"""Which weights stay on the pages of their file: what the plan takes for those, against where a loaded model's lie."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import torch

from components.finetuning.methods import METHODS
from components.memory.settings import StepSettings
from components.memory.simulate import StepModel
from components.models.load import load_model
from components.models.tiny import make_tiny


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base in float32."""
    return make_tiny(tmp_path_factory.mktemp("bases") / "tiny")


def on_pages_of(file: Path, model: torch.nn.Module) -> int:
    """Return the bytes of the parameters that lie in a mapping of a file."""
    found = re.findall(rf"^(\w+)-(\w+) .*{re.escape(str(file.resolve()))}$", Path("/proc/self/maps").read_text(), re.M)
    ranges = [(int(first, 16), int(last, 16)) for first, last in found]
    storages = {p.data_ptr(): p.untyped_storage().nbytes() for p in model.parameters()}
    return sum(size for at, size in storages.items() if any(first <= at < last for first, last in ranges))


@pytest.mark.skipif(sys.platform != "linux", reason="mappings are read from /proc")
@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_what_is_taken_for_mapped_is_mapped(base: Path, method: str, dtype: str) -> None:
    kind = METHODS[method]
    loaded_as = "float32" if method == "full" else dtype
    model = load_model(base, dtype=loaded_as, quantization=kind.quantization)
    model = kind.attach(model, kind.settings())
    expected = StepModel(base, StepSettings(method, dtype=dtype)).mapped_bytes(torch.float32)
    assert on_pages_of(base / "model.safetensors", model) == expected
    assert (expected > 0) == (method == "full" or dtype == "float32")
