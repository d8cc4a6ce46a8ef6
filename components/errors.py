"""The error tree of components, deploy and flows.

TunewrightError (exit 1)
├── InputError (exit 2)      what was given can't be used: a recipe, data, a model folder, an option
├── VerdictError (exit 3)    a verdict said no: the gate, the memory plan, the decision
├── NotFoundError (exit 4)   what was named doesn't exist
└── ConflictError (exit 4)   somebody else holds or changed what was named
"""

from __future__ import annotations

from typing import Any

__all__ = ["ConflictError", "InputError", "NotFoundError", "TunewrightError", "VerdictError"]


class TunewrightError(Exception):
    """Carry what was given, what is allowed and what to do next.

    Args:
        problem: What is wrong, naming what was given.
        allowed: What would have been accepted.
        next_step: The command or change that helps.
    """

    exit_status = 1

    def __init__(self, problem: str, *, allowed: str | None = None, next_step: str | None = None) -> None:
        self.problem = problem
        self.allowed = allowed
        self.next_step = next_step
        lines = [problem]
        if allowed:
            lines.append(f"  allowed: {allowed}")
        if next_step:
            lines.append(f"  next: {next_step}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> Any:
        # as it stands: an error may come from another process, and its class may take other arguments than this one
        return _error_again, (type(self), self.args, self.__dict__)


def _error_again(kind: type[TunewrightError], arguments: tuple[Any, ...], fields: dict[str, Any]) -> TunewrightError:
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(fields)
    return error


class InputError(TunewrightError):
    """What was given can't be used."""

    exit_status = 2


class VerdictError(TunewrightError):
    """A verdict said no: the gate failed, memory does not fit, the decision is not to finetune."""

    exit_status = 3


class NotFoundError(TunewrightError):
    """What was named does not exist."""

    exit_status = 4


class ConflictError(TunewrightError):
    """What was named is held, or was changed, by somebody else."""

    exit_status = 4
