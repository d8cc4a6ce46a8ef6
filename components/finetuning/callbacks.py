"""What the trainer tells and asks after each step: the heap, the dev rows, early stopping, a signal to stop.

Imported inside functions only, since the trainer's callbacks are classes of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from transformers import TrainerCallback

from components.finetuning.best import BestWeights, GiveUp, best_of, early_stop, measurements
from components.finetuning.memory_watch import HeapGuard
from components.finetuning.progress import FIRST_STEPS, ProgressWatch, stands_still
from components.finetuning.settings import DevSettings

__all__ = ["WatchCallback"]


class WatchCallback(TrainerCallback):
    """Have the dev rows measured now and then, and end the run where that or a signal says so.

    Args:
        watch: Keeps time.
        dev_steps: Steps after which the dev rows are measured.
        dev: Whether they may end the run.
        best: Which measurement's weights are kept.
        stop: Asked after each step whether to save a checkpoint and stop.
        give_up: Told each dev measurement, says whether to save a checkpoint and stop.
        say: Called with a line for the person.

    Attributes:
        asked: Whether `stop` has said so.
    """

    def __init__(
        self,
        watch: ProgressWatch,
        dev_steps: Collection[int],
        dev: DevSettings,
        best: BestWeights,
        stop: Callable[[], bool],
        give_up: GiveUp,
        say: Callable[[str], None],
    ) -> None:
        self.watch = watch
        self.dev_steps = dev_steps
        self.dev = dev
        self.best = best
        self.stop = stop
        self.give_up = give_up
        self.say = say
        self.heap = HeapGuard()
        self.asked = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.watch.begin(state.global_step, state.log_history)
        self.best.look(state.log_history)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **rest: Any) -> None:
        if logs and "loss" in logs and state.global_step == FIRST_STEPS:
            warning = stands_still([entry["loss"] for entry in state.log_history if "loss" in entry])
            if warning is not None:
                self.say(f"  {warning}")

    def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        self.heap.after_step()
        if state.global_step in self.dev_steps:
            control.should_evaluate = True
        self.asked = self.stop()
        if self.asked and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **rest: Any) -> None:
        measured = measurements(state.log_history)
        self.watch.measured(measured)
        is_best = best_of(measured) == measured[-1]
        self.say(f"  {measured[-1]} after step {state.global_step}" + ", the best so far" * is_best)
        over = early_stop(measured, self.dev, state.max_steps)
        if over is not None:
            self.say(f"  {over}")
            control.should_training_stop = True
        # behind the last step there is nothing to give up
        elif state.global_step < state.max_steps and self.give_up(measured[-1]):
            control.should_save = control.should_training_stop = True
        if over is not None or self.best.step(state.log_history) == state.global_step:
            control.should_save = True
