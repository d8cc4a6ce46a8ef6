"""Several training processes on this machine: started, listened to, stopped and ended together. Between flows and
`finetune`, which each of them runs (`launched.py`).

torch's own launcher ends its processes half a minute after a signal, whatever they are doing; here they are asked to
stop, and save what they have first. What they meet at is the launcher's own store, as with torchrun, so that no port
can be taken in between. A process whose launcher is gone ends itself: its line to it is closed by the kernel.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.errors import InputError, TunewrightError
from components.finetuning.best import GiveUp
from components.finetuning.progress import Progress
from components.finetuning.result import StoppedError
from components.runtime import available_cores

if TYPE_CHECKING:
    from components.finetuning.result import FinetuneResult

__all__ = ["process_count", "train"]

LOOK_SECONDS = 0.2
# After one process has failed the others' own words are waited for so long: a cause may be told after its effect.
LAST_WORDS_SECONDS = 1.0
# Processes that have told their result have nothing left to do but to end.
ENDING_SECONDS = 30.0


def process_count(wanted: int | Literal["auto"]) -> int:
    """Return how many processes train.

    Args:
        wanted: A number, or "auto": one for each GPU, and one on CPUs, whose cores a single process can use.

    Raises:
        InputError: More than there are GPUs, on a machine that has some.
    """
    if wanted == 1:
        return 1
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted == "auto":
        return max(1, gpus)
    if gpus and wanted > gpus:
        raise InputError(
            f"finetune.processes {wanted} on a machine with {gpus} GPU{'s' * (gpus > 1)}",
            allowed=f"1 to {gpus}, or auto: a process has a GPU of its own",
            next_step=f"set finetune.processes to {gpus} at most",
        )
    return wanted


def train(
    processes: int,
    *,
    run_folder: Path,
    threads: int = 0,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    give_up: GiveUp = lambda _: False,
    **arguments: Any,
) -> FinetuneResult:
    """Finetune in this process, or in several that are started for it.

    Args:
        processes: How many.
        run_folder: As `finetune` takes it; what several processes write to standard error goes to files in it.
        threads: CPU threads of all processes together; 0: as many as this process may use.
        progress: As `finetune` takes it.
        say: As `finetune` takes it.
        stop: As `finetune` takes it. Ctrl-C stops several processes as this does, and is raised once they have ended; a
            second one ends them at once.
        give_up: As `finetune` takes it.
        arguments: Whatever else `finetune` takes.

    Returns:
        What `finetune` returns; of several processes the peak memory is that of the largest.

    Raises:
        TunewrightError: What `finetune` raises, or a process ended without a word.
    """
    from components.finetuning.finetune import finetune

    told = {"progress": progress, "say": say, "stop": stop, "give_up": give_up}
    if processes == 1:
        return finetune(run_folder=run_folder, **arguments, **told)  # type: ignore[arg-type]
    run_folder.mkdir(parents=True, exist_ok=True)
    share = max(1, (threads or available_cores()) // processes)
    request = {"threads": share, "arguments": {"run_folder": run_folder, **arguments}}
    with _started(processes, run_folder) as children:
        for child in children:
            child.send(request)
        found = _Listening(children, progress, say, stop, give_up).results()
    return replace(found[0], peak_bytes=max(one.peak_bytes for one in found))


@dataclass
class _Child:
    """A training process as its launcher sees it.

    Attributes:
        rank: Its number.
        process: The process.
        line: Messages to and from it.
        log: What it writes to standard output and error.
        ended: What it came to: ("done", result), ("failed", error), ("broken", text), ("gone", text); None so far.
    """

    rank: int
    process: subprocess.Popen[bytes]
    line: Connection
    log: Path
    ended: tuple[str, Any] | None = None

    def send(self, message: Any) -> None:
        """Send a message; to a process that is gone it is lost, and the line says so when it is read."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.line.send(message)

    def last_line(self) -> str:
        """Return the last thing that it wrote."""
        lines = self.log.read_text(errors="replace").split("\n") if self.log.exists() else []
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


@contextmanager
def _started(count: int, run_folder: Path) -> Iterator[list[_Child]]:
    """Start processes that can find each other; none of them outlives the block."""
    import torch

    # the launcher's, on a port that the kernel chooses; left to itself it would listen on every interface
    listening = socket.create_server(("127.0.0.1", 0))
    store = torch.distributed.TCPStore(  # type: ignore[attr-defined]  # torch names it in its documents
        "127.0.0.1", listening.getsockname()[1], is_master=True, wait_for_workers=False,
        master_listen_fd=listening.detach(), use_libuv=True,
    )  # fmt: skip
    root = Path(__file__).resolve().parents[2]
    shared = {
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": store.port,
        "TORCHELASTIC_USE_AGENT_STORE": True,
        "PYTHONPATH": os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }
    if sys.platform == "linux":
        # gloo asks for the address of this host's name, which may be one that nothing comes through to
        shared["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    children: list[_Child] = []
    try:
        for rank in range(count):
            children.append(_start(rank, run_folder, {**shared, "RANK": rank, "LOCAL_RANK": rank}))
        yield children
    finally:
        for child in children:
            if child.ended is None or child.ended[0] != "done":
                child.process.kill()
        deadline = time.monotonic() + ENDING_SECONDS
        for child in children:
            try:
                child.process.wait(timeout=max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            child.line.close()
        del store


def _start(rank: int, run_folder: Path, places: Mapping[str, Any]) -> _Child:
    mine, its = Pipe()
    log = run_folder / f"process-{rank}.log"
    # it is told to stop by its line, and by SIGTERM once it can take that: until then the signal waits
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        # behind what is there: a run that is under way would lose it to a second launcher, which is refused later
        with log.open("ab") as written:
            process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", "components.finetuning.launched", str(its.fileno())],
                env={**os.environ, **{name: str(value) for name, value in places.items()}},
                pass_fds=(its.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=written,
                # Ctrl-C at the terminal is for the launcher, which passes it on as a question
                start_new_session=True,
            )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        its.close()
    return _Child(rank, process, mine, log)


class _Listening:
    """Pass on what processes say and are asked, until all have ended or one has failed."""

    def __init__(
        self,
        children: Sequence[_Child],
        progress: Progress | None,
        say: Callable[[str], None],
        stop: Callable[[], bool],
        give_up: GiveUp,
    ) -> None:
        self._children = children
        self._progress = progress
        self._say = say
        self._stop = stop
        self._give_up = give_up
        self._stopping = self._pressed = self._interrupted = False

    def results(self) -> list[FinetuneResult]:
        """Listen until all have told their result.

        Raises:
            TunewrightError: One of them failed.
            KeyboardInterrupt: Ctrl-C came, and all have ended.
        """
        with _first_press(self._press):
            while any(child.ended is None for child in self._children):
                self._look(LOOK_SECONDS)
                if self._pressed and not self._interrupted:
                    self._interrupted = True
                    self._say("  stopping behind the present step, with a checkpoint; Ctrl-C once more ends it at once")
                    self._ask_to_stop()
                elif not self._stopping and self._stop():
                    self._ask_to_stop()
                if any(child.ended is not None and child.ended[0] != "done" for child in self._children):
                    self._fail()
        if self._interrupted:
            raise KeyboardInterrupt
        return [child.ended[1] for child in self._children if child.ended is not None]

    def _press(self) -> None:
        self._pressed = True

    def _ask_to_stop(self) -> None:
        self._stopping = True
        for child in self._children:
            child.send("stop")

    def _look(self, seconds: float) -> None:
        lines = {child.line: child for child in self._children if child.ended is None}
        for line in wait(list(lines), timeout=seconds):
            assert isinstance(line, Connection)
            self._take(lines[line])

    def _take(self, child: _Child) -> None:
        try:
            kind, value = child.line.recv()
        except (EOFError, ConnectionResetError):
            child.ended = ("gone", _how_it_ended(child))
            return
        if kind == "say":
            self._say(value)
        elif kind == "progress":
            if self._progress is not None:
                self._progress(value)
        elif kind == "measured":
            child.send(self._give_up(value))
        else:
            child.ended = (kind, value)

    def _fail(self) -> None:
        """Raise what a run failed by: its own error before a process that is gone, both before their effects."""
        deadline = time.monotonic() + LAST_WORDS_SECONDS
        while (left := deadline - time.monotonic()) > 0 and any(child.ended is None for child in self._children):
            self._look(left)
        ended = {child.rank: child.ended for child in self._children if child.ended is not None}
        for kind in ("failed", "gone", "broken"):
            for rank, (found, value) in ended.items():
                if found != kind:
                    continue
                if kind != "failed":
                    raise self._unexpected(rank, value)
                if self._interrupted and isinstance(value, StoppedError):
                    raise KeyboardInterrupt from value
                raise value

    def _unexpected(self, rank: int, what: str) -> TunewrightError:
        child = self._children[rank]
        return TunewrightError(
            f"process {rank + 1} of the {len(self._children)} that train {what}",
            next_step=f"see {child.log}; run the same command again, and it goes on from the last checkpoint",
        )


@contextmanager
def _first_press(first: Callable[[], None]) -> Iterator[None]:
    """Note the first Ctrl-C while the block runs, instead of raising amid a half-read message; the second one raises.

    Outside the main thread, and where the signal is ignored, nothing is changed.
    """
    here = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not here or before == signal.SIG_IGN:
        yield
        return
    presses = 0

    def press(*_: object) -> None:
        nonlocal presses
        presses += 1
        if presses > 1:
            raise KeyboardInterrupt
        first()

    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _how_it_ended(child: _Child) -> str:
    try:
        status = child.process.wait(timeout=ENDING_SECONDS)
    except subprocess.TimeoutExpired:
        return "closed its line and hangs"
    if status < 0:
        name = signal.Signals(-status).name
        memory = ": the kernel does this to a process where memory runs out" if name == "SIGKILL" else ""
        return f"was ended by {name}{memory}"
    said = child.last_line()
    return f"ended with status {status}" + (f": {said}" if said else "")
