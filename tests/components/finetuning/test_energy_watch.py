"""Energy is what the machine's counters say, through their overflow, or unknown with a reason."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.finetuning.energy_watch import EnergyWatch

LARGEST = 262_143_328_850


def zone(tree: Path, zone: str, name: str, microjoules: int) -> Path:
    folder = tree / zone
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    (folder / "max_energy_range_uj").write_text(f"{LARGEST}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def test_packages_and_their_memory_are_counted_once(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 0)
    memory = zone(tmp_path, "intel-rapl:0:1", "dram", LARGEST - 500_000)
    whole = zone(tmp_path, "intel-rapl:1", "psys", 0)
    with EnergyWatch(powercap=tmp_path) as energy:
        package.write_text("37000000\n")
        core.write_text("30000000\n")
        whole.write_text("99000000\n")
        memory.write_text("1500000\n")  # it began anew meanwhile
    found = energy.to_dict()
    assert found["kwh"] == pytest.approx((36.0 + 2.0) / 3.6e6)
    assert found["counters"] == ["intel-rapl:0 package-0", "intel-rapl:0:1 dram"]
    assert found["seconds"] > 0
    assert found["unknown"] is None


def test_a_counter_that_begins_anew_twice_is_looked_at_in_between(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", LARGEST - 1_000_000)
    with EnergyWatch(powercap=tmp_path, interval_seconds=0.01) as energy:
        for microjoules in (LARGEST // 2, LARGEST - 1_000_000, 0):
            aside = package.with_name("aside")
            aside.write_text(f"{microjoules}\n")
            aside.replace(package)
            counter = energy._counters["intel-rapl:0 package-0"]
            before = time.monotonic()
            while counter._last != microjoules / 1e6 and time.monotonic() < before + 30:
                time.sleep(0.005)
    assert energy.to_dict()["kwh"] == pytest.approx((LARGEST / 1e6 + 1.0) / 3.6e6, rel=1e-6)


def test_what_is_not_known_is_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EnergyWatch(powercap=tmp_path) as nothing:
        pass
    assert nothing.to_dict() | {"seconds": 0} == {
        "kwh": None, "seconds": 0, "counters": [], "unknown": "this machine shows no counter of energy",
    }  # fmt: skip

    zone(tmp_path, "intel-rapl:0", "package-0", 0)
    read = Path.read_text

    def refused(self: Path, *arguments: Any, **named: Any) -> str:
        if self.name == "energy_uj":
            raise PermissionError(13, "Permission denied", str(self))
        return read(self, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", refused)
        with EnergyWatch(powercap=tmp_path) as closed:
            pass
    found = closed.to_dict()
    assert found["kwh"] is None
    assert found["unknown"] == f"{tmp_path}/intel-rapl:0/energy_uj can't be read: Permission denied"

    with EnergyWatch(powercap=tmp_path) as failing:
        (tmp_path / "intel-rapl:0" / "energy_uj").write_text("not a number")
    assert failing.to_dict()["kwh"] is None
    assert "a counter failed while it was read" in failing.to_dict()["unknown"]


def test_gpus_are_asked_by_what_torch_calls_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    millijoules = iter([5_000.0, 9_000.0])
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: asked.append(uuid) or uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: next(millijoules),
        __spec__=object(),
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    properties = SimpleNamespace(uuid="1f-2e", name="H100")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: properties)
    with EnergyWatch(1, powercap=tmp_path) as energy:
        pass
    assert asked == ["GPU-1f-2e"]
    assert energy.to_dict()["counters"] == ["GPU 0 H100"]
    assert energy.to_dict()["kwh"] == pytest.approx(4.0 / 3.6e6)


def test_a_driver_that_refuses_ends_no_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> None:
        raise RuntimeError("Driver/library version mismatch")

    monkeypatch.setitem(sys.modules, "pynvml", SimpleNamespace(nvmlInit=refuse, __spec__=object()))
    with EnergyWatch(1, powercap=tmp_path) as energy:
        pass
    found = energy.to_dict()
    assert (found["kwh"], found["counters"]) == (None, [])
    assert found["unknown"] == "a counter failed while it was read: Driver/library version mismatch"
