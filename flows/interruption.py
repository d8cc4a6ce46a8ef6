"""What ends a command from outside: Ctrl-C and SIGTERM take the same orderly way out, each with its exit status.

Left to itself SIGTERM kills the process on the spot: child processes, Prefect's server among them, would live on, and
`--json` would print nothing.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import click

from components.errors import TunewrightError

__all__ = [
    "Interrupted",
    "Terminated",
    "interruption",
    "raise_on_sigterm",
    "sigterm_asked",
    "stop_behind",
    "take_no_more_signals",
]

# the steps that they finished are kept by content, and training has checkpoints
RESUMING = ("run", "finetune", "compare-methods", "sweep")


class Terminated(BaseException):
    """SIGTERM came. Like KeyboardInterrupt no Exception, so that nothing mistakes it for a failure of its own."""


class Interrupted(TunewrightError):  # noqa: N818 - what happened, named as the field does
    """A command was ended from outside; `exit_status` is 128 and the signal's number, as shells have it."""

    def __init__(self, problem: str, exit_status: int, *, next_step: str) -> None:
        super().__init__(problem, next_step=next_step)
        self.exit_status = exit_status


def raise_on_sigterm() -> None:
    """Let SIGTERM raise `Terminated` in the main thread."""
    signal.signal(signal.SIGTERM, _terminate)


@contextmanager
def sigterm_asked() -> Iterator[Callable[[], bool]]:
    """Let the first SIGTERM be asked for while the block runs, and raise nothing; a second one raises `Terminated`.

    A block that ends without having stopped for it raises `Terminated` behind it.

    Yields:
        Whether SIGTERM came. Outside the main thread, which alone gets signals, always False.
    """
    came = False

    def note(_number: int, _frame: FrameType | None) -> None:
        nonlocal came
        if came:
            raise Terminated
        came = True

    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield lambda: came
    finally:
        signal.signal(signal.SIGTERM, before)
    if came:  # too late for the block to have been asked: what it made is there, and nothing more is begun
        raise Terminated


def stop_behind(error: BaseException) -> BaseException | None:
    """Return what ended the command from outside, where `error` is that or came up while it was handled, else None.

    A library that meets the stop at a bad moment raises an error of its own over it: Prefect's task engine does, where
    a task's run was not made yet.
    """
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        link = waiting.pop()
        if link is None or id(link) in seen:
            continue
        if isinstance(link, KeyboardInterrupt | Terminated | click.Abort):
            return link
        seen.add(id(link))
        waiting += (link.__cause__, link.__context__)
    return None


def take_no_more_signals() -> None:
    """Ignore SIGTERM and Ctrl-C from here on: they would cut off the stopping of child processes."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def interruption(terminated: bool, arguments: Sequence[str]) -> Interrupted:
    """Return the error of a command that was ended from outside.

    Args:
        terminated: By SIGTERM, not by Ctrl-C.
        arguments: The command line, which says whether the command goes on where it stopped.
    """
    goes_on = next((word for word in arguments if not word.startswith("-")), None) in RESUMING
    again = "run the same command again" + ("; it goes on where it stopped" if goes_on else "")
    number = signal.SIGTERM if terminated else signal.SIGINT
    return Interrupted("terminated" if terminated else "interrupted", 128 + number, next_step=again)


def _terminate(_number: int, _frame: FrameType | None) -> NoReturn:
    raise Terminated
