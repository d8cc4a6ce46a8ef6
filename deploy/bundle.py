"""A version as a bento: our code, the staged model, pinned requirements. Between the registry and `serving`.

<out_home>/models/<digest>-<staging>/           the staged model, see model.py
<out_home>/bentoml/bentos/<name>/<version>/     the bento; BENTOML_HOME is <out_home>/bentoml
    src/deploy, src/components, src/registry    code        src/model    hard links to the staged model
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from components.errors import TunewrightError
from components.files import digest_of, sha256_file, write_atomic
from deploy.model import DESCRIPTION_FILE, ServedModel
from deploy.requirements import pinned_requirements, serving_packages
from deploy.signature import signatures_digest
from deploy.staging import link_tree

__all__ = ["Bundle", "bento_environment", "build_bundle"]

CODE_FOLDERS = ("components", "deploy")
# what checks a signature, and no more of the registry
REGISTRY_FILES = ("__init__.py", "canonical.py", "envelope.py", "errors.py")
BUILD_TIMEOUT_SECONDS = 300


@dataclass(frozen=True)
class Bundle:
    """A bento on this machine.

    Attributes:
        tag: `name:version` for the bentoml command line.
        path: Its folder.
        bytes: Size of its files, hard links included.
        digest: Digest of the version that it serves.
        seconds: Time that the building took.
        reused: It was there already.
    """

    tag: str
    path: Path
    bytes: int
    digest: str
    seconds: float
    reused: bool


def build_bundle(model: ServedModel, *, out_home: Path) -> Bundle:
    """Bundle a staged version, or return the bundle that is there for it, this code and the packages installed here.

    Args:
        model: What `stage_model` laid out.
        out_home: Folder for everything that is served or bundled; the model is staged in it.

    Returns:
        The bundle.

    Raises:
        InputError: The folder can't be written.
        TunewrightError: BentoML's build failed; carries its last lines.
    """
    from filelock import FileLock

    started = time.monotonic()
    out_home = out_home.absolute()
    code = _code_files()
    signed = signatures_digest(model.folder)
    requirements = pinned_requirements(serving_packages(model.quantization, signed=signed is not None))
    revision = digest_of(
        {
            "code": {str(path): sha256_file(source) for path, source in code.items()},
            "requirements": requirements,
            "model": {name: value for name, value in model.to_dict().items() if name != "created"},
            "signatures": signed,
        }
    )
    bento_name = re.sub(r"[^a-z0-9_.-]+", "-", model.name.lower()).strip("-._") or "model"
    bento_version = f"v{model.version}-{model.digest[:12]}-{revision[:8]}"
    home = out_home / "bentoml"
    target = home / "bentos" / bento_name / bento_version
    with FileLock(str(out_home / ".bundle.lock")):
        reused = target.is_dir()
        if not reused:
            with tempfile.TemporaryDirectory(dir=out_home, prefix=".bundle-") as temporary:
                bento = _build(Path(temporary), code, requirements, model, (bento_name, bento_version))
                target.parent.mkdir(parents=True, exist_ok=True)
                os.replace(bento, target)
            write_atomic(target.parent / "latest", bento_version)
    size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file())
    return Bundle(f"{bento_name}:{bento_version}", target, size, model.digest, time.monotonic() - started, reused)


def bento_environment(home: Path) -> dict[str, str]:
    """Return the environment of a BentoML process: its own home, no analytics, our code from the bento alone.

    It has no use for the registry's password, nor for that of a private key.

    Args:
        home: BENTOML_HOME.
    """
    from registry.address import VARIABLE
    from registry.envelope import PASSWORD_VARIABLE

    dropped = {"PYTHONPATH", "BENTOML_CONFIG", "BENTOML_CONFIG_OPTIONS", "PROMETHEUS_MULTIPROC_DIR"}
    dropped |= {VARIABLE, PASSWORD_VARIABLE, "PGPASSWORD"}
    kept = {key: value for key, value in os.environ.items() if key not in dropped}
    return {**kept, "BENTOML_HOME": str(home), "BENTOML_DO_NOT_TRACK": "True", "PYTHONDONTWRITEBYTECODE": "1"}


def _code_files() -> dict[Path, Path]:
    root = Path(__file__).resolve().parents[1]
    files = [path for folder in CODE_FOLDERS for path in sorted((root / folder).rglob("*")) if path.is_file()]
    files += [root / "registry" / name for name in REGISTRY_FILES]
    return {path.relative_to(root): path for path in files if "__pycache__" not in path.parts}


def _build(
    workspace: Path, code: Mapping[Path, Path], pins: Sequence[str], model: ServedModel, tag: tuple[str, str]
) -> Path:
    """Build in a workspace and return the finished bento, model included."""
    context, home = workspace / "context", workspace / "bentoml"
    for relative, source in code.items():
        destination = context / relative
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, destination)
    (context / "model").mkdir()
    # the description alone: BentoML would copy the weights, and the service needs no more to be imported
    shutil.copyfile(model.folder / DESCRIPTION_FILE, context / "model" / DESCRIPTION_FILE)
    (context / "README.md").write_text(_readme(model), encoding="utf-8")
    requirements = workspace / "requirements.txt"
    requirements.write_text("\n".join(pins) + "\n", encoding="utf-8")
    home.mkdir()
    command = [sys.executable, "-m", "deploy.bento_build", *tag, str(requirements)]
    try:
        done = subprocess.run(
            command,
            cwd=context,
            env=bento_environment(home),
            capture_output=True,
            text=True,
            timeout=BUILD_TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TunewrightError(f"BentoML's build took more than {BUILD_TIMEOUT_SECONDS} s") from error
    if done.returncode != 0:
        end = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise TunewrightError(f"BentoML's build failed with status {done.returncode}:\n{end}")
    bento = Path(done.stdout.strip().splitlines()[-1])
    (bento / "src" / "model" / DESCRIPTION_FILE).unlink()
    link_tree(model.folder, bento / "src" / "model")
    return bento


def _readme(model: ServedModel) -> str:
    return (
        f"# {model.label}\n\n"
        f"An OpenAI-compatible endpoint of version {model.digest}.\n"
        "Serve it with `bentoml serve <this folder>`; set TUNEWRIGHT_TOKEN and --host to let other machines ask.\n"
    )
