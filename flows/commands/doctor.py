"""`tunewright doctor`: what this machine offers, and whether the state folder can be used."""

from __future__ import annotations

import platform
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from components.files import existing_part, write_problem
from flows.commands.output import emit, json_option
from flows.commands.recipe_options import state_folder


@click.command("doctor")
@click.option("--home", type=click.Path(path_type=Path), help="State folder; $TUNEWRIGHT_HOME or .tunewright.")
@json_option
def command(home: Path | None, as_json: bool) -> None:
    """Check Python, libraries, processor, memory, dtype speed and folders."""
    from components.runtime import prepare_process

    prepare_process()
    import torch

    from components.memory.dtype_speed import measure_dtype
    from components.memory.hardware import detect_budget, machine
    from components.paths import cache_dir
    from flows.step_store import library_versions

    speed = measure_dtype()
    budget = detect_budget()
    folder = state_folder(home)
    document = {
        "python": platform.python_version(),
        "versions": library_versions(),
        **asdict(machine()),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "budget_bytes": budget.budget_bytes,
        "budget_source": budget.source,
        "dtype": speed.dtype,
        "bfloat16_speedup": round(speed.bfloat16_speedup, 3),
        "folders": [_folder("state", folder), _folder("cache", cache_dir())],
    }
    emit(document, as_json, _render)


def _folder(what: str, path: Path) -> dict[str, Any]:
    problem = write_problem(path)
    return {
        "what": what,
        "path": str(path),
        "writable": problem is None,
        "problem": problem,
        "free_bytes": shutil.disk_usage(existing_part(path)).free,
    }


def _render(d: dict[str, Any]) -> str:
    lines = [
        f"python       {d['python']}",
        f"processor    {d['cpu']}, {d['cores']} cores; accelerator: {d['accelerator'] or 'none'}",
        f"memory       {d['budget_bytes'] / 2**30:.1f} GiB ({d['budget_source']})",
        f"dtype        {d['dtype']} (bfloat16 runs at {d['bfloat16_speedup']:.2f} times float32's speed)",
    ]
    for f in d["folders"]:
        state = f"NOT writable: {f['problem']}" if f["problem"] else f"writable, {f['free_bytes'] / 2**30:.0f} GiB free"
        lines.append(f"{f['what']:<12} {f['path']}  ({state})")
    return "\n".join([*lines, *(f"{name:<12} {version}" for name, version in d["versions"].items())])
