"""Which dev measurement is the best, whether a run is over before its last step, and whose weights are kept.

All of it is told from the history of measurements and from the checkpoints that are whole; no other state is kept. So a
killed run that goes on comes to the same decisions. Early stopping with patience: Prechelt 1998, "Early Stopping - But
When?".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.finetuning import checkpoint
from components.finetuning.checkpoint import Checkpoint
from components.finetuning.settings import DevSettings

__all__ = [
    "ANSWERING_SECONDS",
    "DEV_LOSS",
    "DEV_SCORE",
    "BestWeights",
    "GiveUp",
    "Kept",
    "Measurement",
    "best_of",
    "early_stop",
    "measurements",
]

# the trainer's own names of them, under which they are shown by TensorBoard and its like
DEV_LOSS = "eval_loss"
DEV_SCORE = "eval_score"
ANSWERING_SECONDS = "eval_answering_seconds"


@dataclass(frozen=True)
class Measurement:
    """What was measured on the dev rows.

    Attributes:
        step: Optimizer steps done.
        loss: In nats for a token of the answers.
        score: The task's metric on answers of the model; None where none were asked for.
    """

    step: int
    loss: float
    score: float | None = None

    @property
    def rank(self) -> tuple[float, float]:
        """Smaller is better: by the score, and by the loss where scores are equal or there are none."""
        loss = self.loss if math.isfinite(self.loss) else math.inf
        return (0.0 if self.score is None else -self.score, loss)

    def __str__(self) -> str:
        return f"dev loss {self.loss:.4f}" + ("" if self.score is None else f", dev score {self.score:.4f}")


# Told a dev measurement, says that a run isn't worth going on with. A run that is resumed tells those of its earlier
# parts again.
GiveUp = Callable[[Measurement], bool]


@dataclass(frozen=True)
class Kept:
    """Whose weights a run leaves.

    Attributes:
        step: Optimizer steps behind them.
        why: In words.
        checkpoint: Where they are; None for those in memory.
    """

    step: int
    why: str
    checkpoint: Checkpoint | None = None


def measurements(history: Sequence[Mapping[str, Any]]) -> list[Measurement]:
    """List the dev measurements of a trainer's history, in their order."""
    return [
        Measurement(int(entry["step"]), float(entry[DEV_LOSS]), entry.get(DEV_SCORE))
        for entry in history
        if DEV_LOSS in entry
    ]


def best_of(measured: Sequence[Measurement], without: Collection[int] = ()) -> Measurement | None:
    """Return the best measurement, the earliest of equal ones; None where there is none.

    Args:
        measured: In the order of steps.
        without: Steps that don't count.
    """
    return min((found for found in measured if found.step not in without), key=lambda found: found.rank, default=None)


def early_stop(measured: Sequence[Measurement], dev: DevSettings, steps: int) -> str | None:
    """Say that a run is over before its last step, or None where it goes on.

    Args:
        measured: In the order of steps.
        dev: With the number of measurements that may bring nothing better.
        steps: Optimizer steps of the whole run; behind the last of them nothing is stopped early.
    """
    best = best_of(measured)
    if not dev.early_stopping or best is None or measured[-1].step >= steps:
        return None
    since = sum(found.step > best.step for found in measured)
    if since < dev.early_stopping:
        return None
    return (
        f"stopped early after step {measured[-1].step} of {steps}: {since} measurement{'s' * (since > 1)} brought "
        f"nothing better than step {best.step} with {best}"
    )


class BestWeights:
    """Keep the weights of the best dev measurement whose checkpoint is there.

    Args:
        run_folder: Holds the run's checkpoints.
        dev: Whether the best weights are kept.
        say: Called with a line for the person.
    """

    def __init__(self, run_folder: Path, dev: DevSettings, say: Callable[[str], None]) -> None:
        self._run_folder = run_folder
        self._dev = dev
        self._say = say
        # better measurements than the one that is kept, whose weights are gone
        self._lost: set[int] = set()

    def look(self, history: Sequence[Mapping[str, Any]], in_memory: int | None = None) -> None:
        """See which of the measurements' weights are there, and say when the best are not.

        Args:
            history: The trainer's.
            in_memory: Step of the weights in memory, which need no checkpoint.
        """
        measured = measurements(history)
        while self._dev.keep_best and (best := best_of(measured, self._lost)) is not None:
            problem = None if best.step == in_memory else checkpoint.damage(self._run_folder, best.step)
            if problem is None:
                return
            if not self._lost:
                self._say(
                    f"  warning: the weights of the best dev measurement so far, of step {best.step}, can't be kept: "
                    f"their checkpoint is damaged ({problem}); the best of the others are taken"
                )
            self._lost.add(best.step)

    def step(self, history: Sequence[Mapping[str, Any]]) -> int | None:
        """Return the step whose checkpoint has to stay, or None."""
        best = best_of(measurements(history), self._lost) if self._dev.keep_best else None
        return None if best is None else best.step

    def choose(self, history: Sequence[Mapping[str, Any]], done: int) -> Kept:
        """Return whose weights the run leaves.

        Args:
            history: The trainer's, of the whole run.
            done: Steps done; their weights are in memory.
        """
        measured = measurements(history)
        if not measured:
            return Kept(done, "the last step's: no dev loss was measured")
        last = measured[-1]
        if not self._dev.keep_best:
            return Kept(done, f"the last step's, since finetune.keep_best is false; {last}")
        self.look(history, done)
        best = best_of(measured, self._lost)
        among = f"the best of {len(measured)}" + (" whose weights are there" if self._lost else "")
        if best is None or best.step == done:
            return Kept(done, f"the last step's and {among}: {last}")
        found = checkpoint.find(self._run_folder, best.step)
        return Kept(best.step, f"{among}: {best}; the last step's: {last}", found)
