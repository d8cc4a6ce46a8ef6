from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from deploy.engines.threads import one_thread, settle_threads


@pytest.fixture(autouse=True)
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import torch

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("seconds_with_two", "expected"), [(0.01, 2), (0.1, 1)])
def test_faster_number_of_threads_is_kept(seconds_with_two: float, expected: int) -> None:
    import torch

    assert settle_threads(lambda: time.sleep(0.05 if torch.get_num_threads() == 1 else seconds_with_two)) == expected
    assert torch.get_num_threads() == expected


def test_number_that_the_user_set_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    calls: list[int] = []
    assert settle_threads(lambda: calls.append(1)) == 2
    assert calls == [1]


def test_one_thread_is_given_back_after_a_failure() -> None:
    import torch

    def fail() -> None:
        with one_thread():
            assert torch.get_num_threads() == 1
            raise ValueError("x")

    with pytest.raises(ValueError, match="x"):
        fail()
    assert torch.get_num_threads() == 2


def test_idle_threads_sleep_because_the_policy_is_set_before_torch_is_imported() -> None:
    # torch's OpenMP reads the variable once, when it is loaded
    script = (
        "import os, sys, deploy.application, deploy.staging, deploy.engines.threads as threads\n"
        "from deploy.engines.torch_engine import TorchEngine\n"
        "assert 'torch' not in sys.modules\n"
        "threads_seen = []\n"
        "class Spy:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'torch': threads_seen.append(os.environ.get('OMP_WAIT_POLICY'))\n"
        "sys.meta_path.insert(0, Spy())\n"
        "engine = TorchEngine(lambda: 1 / 0)\n"
        "engine.start()\n"
        "engine.wait_until_loaded()\n"
        "assert threads_seen == ['PASSIVE'], threads_seen\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "OMP_WAIT_POLICY"}
    subprocess.run([sys.executable, "-W", "ignore", "-c", script], check=True, env=environment, timeout=120)
