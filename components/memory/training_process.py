"""A process that is like a training process but for the data: `python -m components.memory.training_process`.

It imports what training imports and prints its resident bytes; then it reads settings and shapes from standard input,
one a line, and prints how far a training step would make it grow (`untouched_step`). Nothing else reaches its standard
output.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from components.memory.settings import StepSettings, StepShape
from components.memory.untouched_step import grown_bytes

__all__ = ["main"]

# Now and then a heap has far fewer holes than others of the same step: 486 MiB where most grew by 700 to 740. Of some
# that begin with different small objects the largest is taken, since a run may get that one.
HEAPS = 3
OBJECTS, OBJECT_BYTES = 1000, 100


def main() -> None:
    """Print resident bytes after the imports; then answer what standard input asks."""
    import psutil

    from components.runtime import prepare_process

    # a library that prints would be taken for an answer: transformers does at its import, with WANDB_MODE=offline
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    prepare_process(1)
    import accelerate  # noqa: F401  (imported for what it takes)
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401

    print(psutil.Process().memory_info().rss, file=answers, flush=True)
    # a search asks again when a candidate turns out not to fit
    for text in sys.stdin:
        request = json.loads(text)
        print(max(_grown_apart(request, heap) for heap in range(HEAPS)), file=answers, flush=True)


def _grown_apart(request: dict[str, Any], heap: int) -> int:
    """Answer in a copy of this process: its heap is as the imports left it, whatever was asked before.

    Args:
        request: Folder, settings and shape.
        heap: Which of several heaps that differ by a few small objects.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            kept = [bytearray(OBJECT_BYTES) for _ in range(OBJECTS * heap)]
            shape = StepShape(**request["shape"])
            grown = grown_bytes(Path(request["folder"]), StepSettings(**request["settings"]), shape)
            del kept
            os.write(writing, str(grown).encode())
            status = 0
        except Exception as error:
            traceback.print_exc()
            # the asking process passes on the last line
            print(f"{type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    if not text:
        raise SystemExit(1)
    return int(text)


if __name__ == "__main__":
    main()
