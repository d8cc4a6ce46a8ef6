"""Chat templates rendered before they are let in: in a process of their own, with limits on time, memory and output.

A chat template is a program that comes with the weights and runs at every request. jinja2's sandbox keeps it from
Python's objects, and nothing keeps it from looping, from building a text of gigabytes, or from never ending.
`registry` and `components.models` each have this module and the child's, `render_templates.py`, since neither may
import the other; a test holds both to one text.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

__all__ = ["CARRIERS", "SandboxFailed", "hostile_template", "templates_in"]

CPU_SECONDS = 3
# The processor's time is what is limited: a template can't wait, and what takes this long is a machine that is busy.
WALL_SECONDS = 60
MEMORY_BYTES = 512 * 2**20
OUTPUT_CHARACTERS = 200_000
# The longest that are known have some 20 kB; what is read, and the answer, are bounded with them.
MAX_TEMPLATE_BYTES, MAX_TEMPLATES, MAX_BYTES_TOGETHER = 1 << 20, 100, 4 << 20
# What Python itself may need to start; nothing else of the environment, with its passwords, goes to the child.
PYTHON_NEEDS = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")
CHILD = Path(__file__).with_name("render_templates.py")
CHILD_NEEDS = ("jinja2", "markupsafe")
# JSON files that loaders read a template from.
CARRIERS = ("tokenizer_config.json", "chat_template.json", "processor_config.json")
# What `templates_in` calls the template that answers are asked for with. Those beside it have a use of their own, with
# variables that only their caller knows: they may render nothing here.
DEFAULT = re.compile(r"chat_template\.jinja|tokenizer_config\.json(, template 'default'( \(\d+\))?)?", re.IGNORECASE)


def templates_in(path: str, content: str) -> dict[str, str]:
    """Return the chat templates that a file of a model holds.

    Args:
        path: The file's path inside the version.
        content: Its text; of a JSON file it has been read as JSON before.

    Returns:
        Template by a label for errors: the file, with the template's name where it has one.
    """
    name = path.rpartition("/")[2].lower()  # where case is ignored, a loader finds the file by any
    if name.endswith(".jinja"):
        return {path: content}
    if name not in CARRIERS:
        return {}
    document = json.loads(content)
    found = document.get("chat_template") if isinstance(document, dict) else None
    if isinstance(found, str):
        return {path: found}
    named: dict[object, object] = {}
    if isinstance(found, dict):
        named = dict(found)
    elif isinstance(found, list):  # an older form: several named templates
        named = {entry.get("name"): entry.get("template") for entry in found if isinstance(entry, dict)}
    texts = [(str(key)[:80], text) for key, text in named.items() if isinstance(text, str)]
    numbered = len({key for key, _ in texts}) < len(texts)  # what is cut may be the same
    return {
        f"{path}, template {key!r}" + (f" ({number})" if numbered else ""): text
        for number, (key, text) in enumerate(texts, start=1)
    }


class SandboxFailed(Exception):  # noqa: N818  (nothing is known of the templates then)
    """The process that renders could not be started, failed by itself, was ended, or got no time of the processor."""


def hostile_template(templates: Mapping[str, str]) -> tuple[str, str] | None:
    """Render each template for a few short conversations and find the hostile.

    Args:
        templates: As `templates_in` gave them.

    Returns:
        The first hostile one's label, and what is wrong with it as the end of a sentence that begins with the file: not
        Jinja, an attempt to leave the sandbox, too much time, memory or output, or a default template that renders none
        of the conversations. None where all are sound.

    Raises:
        SandboxFailed: The child process could not be started, or ended in another way than by a template.
    """
    if not templates:
        return None
    if large := _too_large(templates):
        return large
    limits = [str(limit) for limit in (CPU_SECONDS, MEMORY_BYTES, OUTPUT_CHARACTERS)]
    some = next(iter(templates)) if len(templates) == 1 else f"{next(iter(templates))} and {len(templates) - 1} more"
    status, answer, complaint = _rendered(templates, limits)
    if status == -signal.SIGXCPU:
        return some, f"takes more than {CPU_SECONDS} s of processor time to render a few short messages"
    if status > 0 and "MemoryError" in complaint:
        return some, f"takes more than {MEMORY_BYTES >> 20} MiB of memory to render a few short messages"
    if status < 0:  # the system is short of memory, or somebody ended it
        raise SandboxFailed(f"the process that renders chat templates was ended by signal {-status}")
    if status > 0:
        raise SandboxFailed(f"the process that renders chat templates ended with status {status}: {complaint[-300:]}")
    for label, verdict in json.loads(answer).items():
        if "refused" in verdict:
            return label, f"holds a chat template that {verdict['refused']}"
        if not verdict["rendered"] and DEFAULT.fullmatch(label):
            return label, f"holds a chat template that renders no conversation: {verdict['errors'][0]}"
    return None


def _rendered(templates: Mapping[str, str], limits: list[str]) -> tuple[int, bytes, str]:
    """Run the child; return its status, its answer and the beginning of what it complained of.

    Raises:
        SandboxFailed: It could not be started, or got no time of the processor.
    """
    try:
        # files, not pipes: their size is limited in the child, so that it can't fill this process's memory
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as complaints:
            done = subprocess.run(
                # isolated: neither the environment nor the folder that the template came from is searched for modules
                [sys.executable, "-I", str(CHILD), *limits, *_module_folders()],
                env={name: os.environ[name] for name in PYTHON_NEEDS if name in os.environ},
                input=json.dumps(dict(templates)).encode(),
                stdout=output,
                stderr=complaints,
                timeout=WALL_SECONDS,
                check=False,
            )
            output.seek(0)
            complaints.seek(0)
            return done.returncode, output.read(), complaints.read(10_000).decode(errors="replace").strip()
    except subprocess.TimeoutExpired as error:
        raise SandboxFailed(
            f"the process that renders chat templates wasn't done after {WALL_SECONDS} s, of which it got less than "
            f"{CPU_SECONDS} s of processor time"
        ) from error
    except OSError as error:
        raise SandboxFailed(f"the process that renders chat templates can't be started: {error}") from error


def _module_folders() -> list[str]:
    """Return where the modules that the child needs lie for this process, whose search path the child hasn't."""
    found = [find_spec(name) for name in CHILD_NEEDS]
    return list(dict.fromkeys(str(Path(spec.origin).parents[1]) for spec in found if spec and spec.origin))


def _too_large(templates: Mapping[str, str]) -> tuple[str, str] | None:
    together = 0
    for number, (label, text) in enumerate(templates.items(), start=1):
        size = len(text.encode())
        together += size
        if number > MAX_TEMPLATES:
            return label, f"holds one chat template more than {MAX_TEMPLATES}, the most that a folder may have"
        if size > MAX_TEMPLATE_BYTES:
            return label, f"holds a chat template of {size} bytes; the limit is {MAX_TEMPLATE_BYTES}"
        if together > MAX_BYTES_TOGETHER:
            return label, f"brings all chat templates together to {together} bytes; the limit is {MAX_BYTES_TOGETHER}"
    return None
