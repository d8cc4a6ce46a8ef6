"""`tunewright doctor`: what this machine offers, and whether the state folder can be used."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from components.files import existing_part, write_problem
from flows.commands.output import emit, json_option
from flows.commands.recipe_options import state_folder

# What isn't needed, as distributions: what each is for.
OPTIONAL = {
    "optuna": "sweep",
    "torchao": "quantize, finetune.quantization_aware",
    "tensorboard": "finetune.report_to tensorboard",
    "mlflow-skinny": "finetune.report_to mlflow, registry mirror",
    "wandb": "finetune.report_to wandb",
    "psycopg": "a registry on PostgreSQL",
    "s3fs": "a registry's contents in S3",
    "nvidia-ml-py": "a training's energy on NVIDIA GPUs",
    "liger-kernel": "finetune.liger, on CUDA",
    "flash-attn": "finetune.attention flash, on CUDA",
}


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
    from components.models.kernels import this_machine
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
        # a CPU's by a C++ compiler, a GPU's by Triton
        "compiler": (kernels := this_machine()).compiler or kernels.triton,
        "optional": [{"name": name, "version": _version(name), "for": what} for name, what in OPTIONAL.items()],
        "folders": [_folder("state", folder), _folder("cache", cache_dir())],
        "registry": _registry(folder / "registry"),
    }
    emit(document, as_json, _render)


def _version(distribution: str) -> str | None:
    """Return an installed distribution's version; mlflow whole stands for its client alone."""
    for name in (distribution, distribution.removesuffix("-skinny")):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def _folder(what: str, path: Path) -> dict[str, Any]:
    problem = write_problem(path)
    return {
        "what": what,
        "path": str(path),
        "writable": problem is None,
        "problem": problem,
        "free_bytes": shutil.disk_usage(existing_part(path)).free,
    }


def _registry(folder: Path) -> dict[str, Any]:
    """Say which database the registry is in, and what is wrong with that; both are None where there is none yet."""
    from registry.errors import RegistryError, RegistryNotFound
    from registry.lookup import Lookup

    try:
        with Lookup(folder) as lookup:
            return {"database": lookup.database, "problem": None}
    except RegistryNotFound:
        return {"database": None, "problem": None}
    except RegistryError as error:
        return {"database": None, "problem": error.problem}


def _render(d: dict[str, Any]) -> str:
    lines = [
        f"python       {d['python']}",
        f"processor    {d['cpu']}, {d['cores']} cores; accelerator: {d['accelerator'] or 'none'}",
        f"memory       {d['budget_bytes'] / 2**30:.1f} GiB ({d['budget_source']})",
        f"dtype        {d['dtype']} (bfloat16 runs at {d['bfloat16_speedup']:.2f} times float32's speed)",
        f"compiler     {'there' if d['compiler'] else 'none, so that finetune.compile is off'}",
    ]
    for f in d["folders"]:
        state = f"NOT writable: {f['problem']}" if f["problem"] else f"writable, {f['free_bytes'] / 2**30:.0f} GiB free"
        lines.append(f"{f['what']:<12} {f['path']}  ({state})")
    registry = d["registry"]
    problem = registry["problem"] and f"NOT usable: {registry['problem']}"
    lines.append(f"{'registry':<12} {problem or registry['database'] or 'none yet'}")
    lines += [f"{name:<12} {version}" for name, version in d["versions"].items()]
    width = max(map(len, OPTIONAL))
    lines += ["", "optional"]
    lines += [f"{o['name']:<{width}}  {o['version'] or 'not installed':<13}  {o['for']}" for o in d["optional"]]
    return "\n".join(lines)
