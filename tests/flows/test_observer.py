"""What a person reads of a training step."""

from __future__ import annotations

import math

import pytest

from flows.observer import TerminalObserver, step_detail

LOG = {
    "step": 3, "steps": 12, "loss": 1.23456, "learning_rate": 5e-4, "gradient_norm": 0.98765,
    "tokens_per_second": 512.4, "peak_bytes": 3 * 2**29, "seconds_left": 83.9,
}  # fmt: skip


def test_a_step_tells_time_left_losses_rate_norm_speed_and_memory() -> None:
    assert step_detail(LOG) == "1:23 left  loss 1.235  lr 5.0e-04  grad 0.988  512 tokens/s  1.50 GiB"
    assert step_detail({**LOG, "dev_loss": 2.0}).startswith("1:23 left  loss 1.235  dev 2.000  lr ")
    assert step_detail({**LOG, "dev_loss": 2.0, "dev_score": 0.625}).startswith(
        "1:23 left  loss 1.235  dev 2.000 62.5%  lr"
    )
    assert "  grad overflow  " in step_detail({**LOG, "gradient_norm": math.inf})


@pytest.mark.parametrize("columns", [80, 200])
def test_a_line_that_is_redrawn_never_wraps(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, columns: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    TerminalObserver().progress("finetune: step", 3, 12, step_detail({**LOG, "dev_loss": 2.0, "dev_score": 0.625}))
    line = capsys.readouterr().err.removeprefix("\r\033[2K")
    assert len(line) < columns
    assert line.startswith("  finetune: step 3/12  1:23 left  loss 1.235  dev 2.000 62.5%  lr 5.0e-04  ")
    assert line.endswith("1.50 GiB" if columns == 200 else "…")
