"""From how many requests a month a finetuned model is cheaper than the prompt that it replaces, exactly.

Prompting costs n x c. The finetuned model costs training + machines(n) x hosting + n x t, where a machine answers so
many requests a month and another is paid beyond that. The break-even is the least whole n at which the second is no
more than the first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

__all__ = ["BreakEven", "break_even", "machines_for", "tuned_month"]


@dataclass(frozen=True)
class BreakEven:
    """When finetuning pays.

    Attributes:
        kind: `from` a number of requests on, `always` (from the first one) or `never`.
        requests_per_month: The number; 0 for `always`, None for `never`.
        machines: Machines that serve so many; None for `never`.
        reason: Why it never or always pays, or what is set against what.
    """

    kind: str
    requests_per_month: int | None
    machines: int | None
    reason: str


def machines_for(requests: int, machine_requests: int | None) -> int:
    """Return how many machines answer so many requests a month; at least one, which is up though nobody asks it."""
    return 1 if machine_requests is None else max(1, -(-requests // machine_requests))


def tuned_month(
    requests: int,
    tuned_request: Fraction,
    training_month: Fraction,
    machine_month: Fraction,
    machine_requests: int | None,
) -> Fraction:
    """Return what the finetuned model costs in a month with so many requests."""
    return training_month + machines_for(requests, machine_requests) * machine_month + requests * tuned_request


def break_even(
    prompted_request: Fraction,
    tuned_request: Fraction,
    training_month: Fraction,
    machine_month: Fraction,
    machine_requests: int | None = None,
) -> BreakEven:
    """Find the least number of requests a month at which the finetuned model is no dearer than prompting.

    Args:
        prompted_request: Price of a request to the prompted model.
        tuned_request: Price of a request to the finetuned one, beside its hosting.
        training_month: Training, a month's part of it.
        machine_month: A machine's hosting for a month.
        machine_requests: Requests that a machine answers in a month, 1 or more; None: any number.

    Returns:
        The break-even. With a machine's limit it is the first number that pays; the first requests on each further
        machine may cost more again.
    """
    saving = prompted_request - tuned_request
    if saving <= 0:
        same = "costs as much as" if saving == 0 else "costs more than"
        return BreakEven("never", None, None, f"a request to the finetuned model {same} the prompt that it replaces")
    if training_month + machine_month == 0:
        return BreakEven("always", 0, 1, "nothing is paid but requests, and each costs less")
    if machine_requests is None:
        return BreakEven("from", math.ceil((training_month + machine_month) / saving), 1, _set_against(1))
    # what a full machine saves, less what it costs: h machines pay once h times this covers the training
    margin = machine_requests * saving - machine_month
    if margin < 0 or (margin == 0 and training_month > 0):
        return BreakEven("never", None, None, "a machine costs more than all the requests that it can answer save")
    machines = max(1, math.ceil(training_month / margin)) if margin else 1
    needed = math.ceil((training_month + machines * machine_month) / saving)
    # fewer requests than this would leave the last machine unused
    return BreakEven("from", max(needed, (machines - 1) * machine_requests + 1), machines, _set_against(machines))


def _set_against(machines: int) -> str:
    hosted = "one machine" if machines == 1 else f"{machines} machines"
    return f"training and hosting on {hosted}, against what is saved on each request"
