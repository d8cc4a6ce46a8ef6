"""A sweep's trials, kept by Optuna in a SQLite file: which values come next, and which trials are given up.

The next trial's values: TPE (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization"), or random search
(Bergstra & Bengio 2012). Giving trials up: a median rule as in Golovin et al. 2017, "Google Vizier"; Optuna's looks at
the best measurement so far. Importance of parameters: PED-ANOVA (Watanabe et al. 2023, arXiv:2304.10255).

Every draw has a seed of its own, from the sweep's, the trial's number and the key: a sweep that was killed goes on
with the values that it would have had. Optuna is imported inside functions, since it is an extra.
"""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import InputError
from components.files import digest_of
from components.finetuning.search_space import METHOD, Swept, applicable

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

__all__ = ["COMPLETE", "FAILED", "PRUNED", "Study", "StudyTrial", "TrialRecord", "check_optuna"]

COMPLETE, PRUNED, FAILED = "complete", "pruned", "failed"
# Trials that run to their end before the median is asked, and measurements of each trial that it doesn't look at.
STARTUP_TRIALS = 4
WARMUP_MEASUREMENTS = 1
# The importance of parameters is a matter of chance with fewer complete trials.
LEAST_FOR_IMPORTANCE = 8


def check_optuna() -> None:
    """Refuse to sweep without Optuna.

    Raises:
        InputError: It isn't installed.
    """
    if importlib.util.find_spec("optuna") is None:
        raise InputError(
            "a sweep needs Optuna, which is not installed",
            next_step="install it with `pip install --constraint constraints.txt --editable '.[sweep]'`",
        )


@dataclass(frozen=True)
class TrialRecord:
    """A trial that has ended.

    Attributes:
        number: From 1 on.
        state: complete, pruned or failed.
        value: What the objective came to; None for one that is not complete.
        document: What was written down about it.
    """

    number: int
    state: str
    value: float | None
    document: dict[str, Any]


class StudyTrial:
    """A trial that is under way.

    Args:
        trial: Optuna's.

    Attributes:
        values: What the recipe is set to.
    """

    def __init__(self, trial: Any, values: dict[str, Any]) -> None:
        self._trial = trial
        self._reported: set[int] = set()
        self.values = values

    @property
    def number(self) -> int:
        """Its place among the trials, from 1 on."""
        return int(self._trial.number) + 1

    def report(self, measurement: int, value: float) -> bool:
        """Note a dev measurement, and say whether the trial isn't worth going on with.

        Args:
            measurement: 1 for the trial's first one, and so on: trials of other lengths are compared at like parts.
            value: The objective then.
        """
        if measurement in self._reported:
            return False
        self._reported.add(measurement)
        if measurement not in self._trial.study.get_trials(deepcopy=False)[self._trial.number].intermediate_values:
            self._trial.report(value, measurement)
        return bool(self._trial.should_prune())


class Study:
    """The trials of one sweep.

    Args:
        file: SQLite file; made when it isn't there.
        space: What a trial may set.
        sampler: "tpe" or "random".
        pruner: "median" or "none".
        maximize: Whether a larger value is better.
        seed: Of every draw.
    """

    def __init__(
        self, file: Path, space: Sequence[Swept], *, sampler: str, pruner: str, maximize: bool, seed: int
    ) -> None:
        import optuna
        from sqlalchemy import URL

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        self._sampler, self._seed = sampler, seed
        # Optuna fills in braces
        url = URL.create("sqlite", database=str(file)).render_as_string().replace("{", "{{").replace("}", "}}")
        with _quiet():
            self._study = optuna.create_study(
                study_name="sweep",
                storage=optuna.storages.RDBStorage(url),
                load_if_exists=True,
                direction="maximize" if maximize else "minimize",
                pruner=optuna.pruners.MedianPruner(
                    n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARMUP_MEASUREMENTS + 1
                )
                if pruner == "median"
                else optuna.pruners.NopPruner(),
            )

    def ended(self) -> list[TrialRecord]:
        """Return the trials that have ended, in their order."""
        return [_record(trial) for trial in self._study.get_trials(deepcopy=False) if trial.state.is_finished()]

    def next(self, default_method: str) -> StudyTrial:
        """Return the trial that a killed process was at, or begin one.

        Args:
            default_method: The method of a trial, where it isn't one of the keys.
        """
        from optuna.trial import Trial, TrialState

        under_way = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        with _quiet():
            trial = Trial(self._study, under_way[0]._trial_id) if under_way else self._study.ask()
            values: dict[str, Any] = {}
            for swept in self._space:
                if applicable(swept.key, values.get(METHOD, default_method)):
                    self._study.sampler = self._sampler_of(trial.number, swept.key)
                    values[swept.key] = swept.value(_draw(trial, swept))
        return StudyTrial(trial, values)

    def end(self, trial: StudyTrial, state: str, value: float | None, document: Mapping[str, Any]) -> None:
        """Note that a trial has ended.

        Args:
            trial: The trial.
            state: complete, pruned or failed.
            value: What the objective came to, for a complete one.
            document: What to write down about it, plain JSON.
        """
        from optuna.trial import TrialState

        trial._trial.set_user_attr("document", dict(document))
        states = {COMPLETE: TrialState.COMPLETE, PRUNED: TrialState.PRUNED, FAILED: TrialState.FAIL}
        self._study.tell(trial._trial.number, value if state == COMPLETE else None, state=states[state])

    def importance(self) -> dict[str, float] | None:
        """Return what part of the differences between trials each key makes, or None where trials are too few."""
        from optuna.importance import get_param_importances

        complete = [trial for trial in self.ended() if trial.state == COMPLETE]
        if len(complete) < LEAST_FOR_IMPORTANCE:
            return None
        with _quiet():
            found = get_param_importances(self._study)
        return {str(key): float(part) for key, part in found.items()}

    def _sampler_of(self, number: int, key: str) -> Any:
        import optuna

        seed = int(digest_of([self._seed, number, key])[:8], 16)
        kinds = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
        return kinds[self._sampler](seed=seed)


def _draw(trial: Any, swept: Swept) -> Any:
    if swept.choices:
        return trial.suggest_categorical(swept.key, list(swept.choices))
    if swept.whole:
        return trial.suggest_int(swept.key, int(swept.low), int(swept.high), log=swept.log, step=int(swept.step or 1))
    return trial.suggest_float(swept.key, swept.low, swept.high, log=swept.log, step=swept.step)


def _record(trial: FrozenTrial) -> TrialRecord:
    from optuna.trial import TrialState

    state = {TrialState.COMPLETE: COMPLETE, TrialState.PRUNED: PRUNED}.get(trial.state, FAILED)
    value = trial.value if state == COMPLETE else None
    return TrialRecord(trial.number + 1, state, value, trial.user_attrs.get("document", {}))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Optuna's words on what is experimental in it to itself."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield
