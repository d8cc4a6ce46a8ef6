"""Settings of the process, seen in a process of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def test_threads_and_wait_policy_are_set_before_torch_is_loaded() -> None:
    program = (
        "import os, sys\n"
        "from components.runtime import available_cores, prepare_process\n"
        "assert 'torch' not in sys.modules\n"
        "assert prepare_process() == available_cores()\n"
        "assert prepare_process(1) == 1\n"
        "import torch\n"
        "print(torch.get_num_threads(), os.environ['OMP_WAIT_POLICY'])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["1", "PASSIVE"]


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_memory_that_tensors_held_is_given_back_when_asked() -> None:
    program = (
        "from components.runtime import prepare_process, release_memory\n"
        "prepare_process(1)\n"
        "import psutil, torch\n"
        "held = lambda: psutil.Process().memory_info().rss\n"
        "before = held()\n"
        "blocks = [torch.ones(1_000_000) for _ in range(100)]\n"
        "last = torch.ones(1_000)\n"
        "del blocks\n"
        "kept = held() - before\n"
        "release_memory()\n"
        "print(kept, held() - before)"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    kept, left = (int(number) for number in found.stdout.split())
    assert kept > 300_000_000
    assert left < 50_000_000


@pytest.mark.skipif(sys.platform != "linux", reason="resident memory is read from /proc")
def test_products_of_many_shapes_leave_nothing_behind() -> None:
    program = (
        "from components.runtime import prepare_process\n"
        "prepare_process(1)\n"
        "import psutil, torch\n"
        "right = torch.ones(512, 512, dtype=torch.bfloat16)\n"
        "def products(first, end):\n"
        "    for rows in range(first, end):\n"
        "        torch.ones(rows, 512, dtype=torch.bfloat16) @ right\n"
        "    return psutil.Process().memory_info().rss\n"
        "print(-products(1, 100) + products(100, 400))"
    )

    def grown(**settings: str) -> int:
        environment = {**os.environ, **settings}
        found = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment
        )
        return int(found.stdout)

    # what is kept for a shape depends on the processor: 0.3 MB, or 0.8 MB with AMX; so it is held against torch's and
    # oneDNN's own capacity, each cache by itself
    ours = grown()
    for cache in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        theirs = grown(**{cache: "1024"})
        assert theirs > 60_000_000
        assert ours < theirs / 3


def test_importing_the_frameworks_says_nothing() -> None:
    code = "from components.runtime import quiet_libraries; quiet_libraries(); import torchao, bitsandbytes, peft"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (found.stdout, found.stderr) == ("", "")
