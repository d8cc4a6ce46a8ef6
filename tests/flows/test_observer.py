"""What a person reads of a training step."""

from __future__ import annotations

import math

import pytest

from flows.observer import TerminalObserver, step_detail

LOG = {
    "step": 3, "steps": 12, "loss": 1.23456, "learning_rate": 5e-4, "gradient_norm": 0.98765,
    "tokens_per_second": 512.4, "peak_bytes": 3 * 2**29, "seconds_left": 83.9,
}  # fmt: skip


def test_a_step_tells_loss_rate_norm_speed_memory_and_time_left() -> None:
    assert step_detail(LOG) == "loss 1.235  lr 5.0e-04  grad 0.988  512 tokens/s  1.50 GiB  1:23 left"
    assert step_detail({**LOG, "dev_loss": 2.0}).startswith("loss 1.235  dev 2.000  lr ")
    assert "  grad overflow  " in step_detail({**LOG, "gradient_norm": math.inf})


def test_the_line_of_a_long_run_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    long = {
        **LOG,
        "dev_loss": 10.0,
        "gradient_norm": 1.23e-05,
        "tokens_per_second": 123456.0,
        "seconds_left": 599_999.0,
    }
    TerminalObserver().progress("finetune: step", 99_999, 99_999, step_detail(long))
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) <= 120
