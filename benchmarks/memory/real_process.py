"""A process that trains for real and prints what it took: `python -m benchmarks.memory.real_process FOLDER CASE`.

CASE is JSON: settings, shape and steps. Resident memory is the peak from loading on; tracked tensors are those
of one step after that, so that following them adds nothing to the former.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path


def main() -> None:
    """Train, measure, print one JSON document."""
    folder, case = Path(sys.argv[1]), json.loads(sys.argv[2])

    from components.runtime import prepare_process

    prepare_process(1)
    import torch
    from transformers import Trainer  # noqa: F401  (a training process has it)

    from benchmarks.memory.measured_step import RealStep
    from components.memory.settings import StepSettings, StepShape

    # weights that are converted are there twice while they are loaded
    _forget_resident_peak()
    step = RealStep(folder, StepSettings(**case["settings"]), StepShape(**case["shape"]))
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    step.run(case["steps"])
    resident = _resident_peak()
    device = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None
    peak = step.measure()
    print(json.dumps({"tracked": vars(peak), "resident_bytes": resident, "device_bytes": device}))


def _forget_resident_peak() -> None:
    # 5: the peak is the present size from here on (proc(5))
    Path("/proc/self/clear_refs").write_text("5")


def _resident_peak() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


if __name__ == "__main__":
    main()
