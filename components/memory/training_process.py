"""A process that is like a training process but for the data: `python -m components.memory.training_process`.

It imports what training imports and prints its resident bytes; then it reads settings and shapes from standard input,
one a line, and prints how far a training step would make it grow (`untouched_step`).
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


def main() -> None:
    """Print resident bytes after the imports; then answer what standard input asks."""
    import psutil

    from components.runtime import prepare_process

    prepare_process(1)
    import accelerate  # noqa: F401  (imported for what it takes)
    import bitsandbytes  # noqa: F401
    import peft  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer  # noqa: F401
    from transformers.models.llama import modeling_llama  # noqa: F401

    print(psutil.Process().memory_info().rss, flush=True)
    # a search asks again when a candidate turns out not to fit
    for text in sys.stdin:
        _answer_apart(json.loads(text))


def _answer_apart(request: dict[str, Any]) -> None:
    """Answer in a copy of this process: its heap is as the imports left it, whatever was asked before."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            shape = StepShape(**request["shape"])
            print(grown_bytes(Path(request["folder"]), StepSettings(**request["settings"]), shape), flush=True)
            status = 0
        except Exception as error:
            traceback.print_exc()
            # the asking process passes on the last line
            print(f"{type(error).__name__}: {str(error).splitlines()[0]}", file=sys.stderr, flush=True)
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status != 0:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
