"""Settings of the process, seen in a process of their own."""

from __future__ import annotations

import subprocess
import sys


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
