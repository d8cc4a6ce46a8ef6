"""One of several training processes: `python -m components.finetuning.launched FD`, started by `launch.py`.

It is told what to train over a line, asks and tells its launcher over the same, and ends itself when that is closed.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import traceback
from multiprocessing.connection import Connection
from typing import Any

from components.errors import TunewrightError

__all__ = ["main"]

# Below this lie what a step computes of a few hundred tokens, and above it most weights.
GATHERED_KEPT_BYTES = 2**20
# After this a process that waits for an answer looks whether it is to stop.
ANSWER_SECONDS = 1.0


def main(descriptor: int) -> None:
    """Train what the launcher asks for, and tell it what came of it.

    Args:
        descriptor: The line's file descriptor.
    """
    asked = threading.Event()
    # as the launcher's own question; a signal may go to all processes of a run
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    # what a library may fork must not keep the line open behind this process
    os.set_inheritable(descriptor, False)
    line = Connection(descriptor)
    request = line.recv()
    answers: queue.Queue[bool] = queue.Queue()
    threading.Thread(target=_listen, args=(line, asked, answers), name="launcher", daemon=True).start()
    try:
        result = _train(request, line, asked, answers)
    except TunewrightError as error:
        _end(line, ("failed", error))
    except BaseException as error:
        traceback.print_exc()
        _end(line, ("broken", f"failed: {type(error).__name__}: {error}"))
    line.send(("done", result))


def _train(request: dict[str, Any], line: Connection, asked: threading.Event, answers: queue.Queue[bool]) -> Any:
    from components.runtime import prepare_process

    if request["arguments"].get("parallel") == "fsdp":
        # weights that are gathered and let go block by block leave holes in the heap that the next block can't use
        prepare_process(request["threads"], kept_bytes=GATHERED_KEPT_BYTES)
    else:
        prepare_process(request["threads"])
    import torch

    from components.finetuning.finetune import finetune
    from components.finetuning.processes import current_processes

    def give_up(measured: Any) -> bool:
        line.send(("measured", measured))
        while True:
            try:
                return answers.get(timeout=ANSWER_SECONDS)
            except queue.Empty:
                # a launcher that was interrupted over the question doesn't answer it
                if asked.is_set():
                    return True

    # the first one speaks for all
    first = current_processes().first
    speaking: dict[str, Any] = {
        "progress": lambda log: line.send(("progress", dict(log))),
        "say": lambda text: line.send(("say", text)),
        "give_up": give_up,
    }
    try:
        return finetune(**request["arguments"], stop=asked.is_set, **(speaking if first else {}))
    finally:
        # a process that failed leaves the others as it is: they wait for it, and would keep it here
        if torch.distributed.is_initialized() and sys.exc_info()[0] is None:
            torch.distributed.destroy_process_group()


def _listen(line: Connection, asked: threading.Event, answers: queue.Queue[bool]) -> None:
    """Take the launcher's words; without a launcher there is nobody to train for."""
    while True:
        try:
            message = line.recv()
        except (EOFError, OSError):
            os._exit(1)
        if message == "stop":
            asked.set()
        else:
            answers.put(message)


def _end(line: Connection, message: tuple[str, Any]) -> None:
    """Tell the launcher, and end without waiting for threads or for the other processes."""
    line.send(message)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
