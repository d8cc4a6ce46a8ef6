"""Small real files, manifests and registries. What asks for `backend`, or for `registry`, runs on both databases."""

from __future__ import annotations

import builtins
import gc
import hashlib
import io
import json
import os
import signal
import sqlite3
import struct
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from benchmarks.postgres_server import on_server
from registry.entities import Version
from registry.gate import Policy
from registry.layout import BINDING, DATABASE
from registry.manifest import Manifest, Parent, describe_files
from registry.store import Registry
from registry.writer import Writer

pytest.register_assert_rewrite("tests.registry.machine")

FINGERPRINT = hashlib.sha256(b"base weights").hexdigest()
OTHER_FINGERPRINT = hashlib.sha256(b"other weights").hexdigest()


def safetensors(values: bytes) -> bytes:
    """A whole safetensors file with one tensor of bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(values)], "data_offsets": [0, len(values)]}}).encode()
    return struct.pack("<Q", len(header)) + header + values


def report(delta: float = 0.2, *, low: float = 0.1, rows: int = 128, suite_low: float = -0.01) -> dict[str, Any]:
    """An evaluation report as the evaluation step writes it."""
    return {
        "task": {
            "metric": "execution_match",
            "n": rows,
            "base": 0.1,
            "tuned": 0.1 + delta,
            "delta": delta,
            "low": low,
            "high": delta + 0.1,
            "baseline": "few-shot",
        },
        "tax": [{"suite": "grammar", "digest": "0" * 64, "n": 50, "delta": 0.0, "low": suite_low, "high": 0.02}],
    }


@pytest.fixture
def make_report() -> Callable[..., dict[str, Any]]:
    return report


@pytest.fixture
def policy() -> Policy:
    """A policy that `make_report()` satisfies."""
    return Policy(min_task_delta=0.1, max_suite_drop=0.05, min_rows=100)


@pytest.fixture
def fingerprints() -> tuple[str, str]:
    """Two bases' fingerprints: the one that `add_base` registers, and another."""
    return FINGERPRINT, OTHER_FINGERPRINT


@pytest.fixture
def passing(registry: Registry, add_adapter: Callable[..., Version]) -> Callable[[str], Version]:
    """Register an adapter whose evaluation satisfies `policy`."""

    def add(key: str) -> Version:
        version = add_adapter(key)
        registry.record_evaluation(version.digest, report())
        return version

    return add


class Client:
    """Somebody else's connection to a registry's database, which knows nothing of the store."""

    def __init__(self, connection: Any, name: str) -> None:
        self._connection = connection
        self.postgres = name == "postgresql"

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> Any:
        return self._connection.execute(statement.replace("?", "%s") if self.postgres else statement, parameters)

    @property
    def error(self) -> type[Exception]:
        """What the driver raises where the database refuses."""
        import psycopg

        return psycopg.Error if self.postgres else sqlite3.DatabaseError

    def lift(self, table: str) -> None:
        """Take away a table's rule that it is insert-only, as its owner may."""
        rules = ["insert_only"] if self.postgres else ["no_update", "no_delete", "no_replace"]
        for rule in rules:
            self.execute(f"DROP TRIGGER {table}_{rule}" + (f" ON {table}" if self.postgres else ""))

    def close(self) -> None:
        self._connection.close()


class Backend:
    """A kind of database: makes folders for registries, and connections beside the store's."""

    def __init__(self, name: str, bind: Callable[[Path], None]) -> None:
        self.name = name
        self._bind = bind
        self._clients: list[Client] = []

    def prepare(self, folder: Path) -> Path:
        """Make a folder for a registry of its own, on a database that has its tables but no versions."""
        folder.mkdir(parents=True)
        self._bind(folder)
        return folder

    def connect(self, folder: Path) -> Client:
        if self.name == "postgresql":
            import psycopg

            connection: Any = psycopg.connect(json.loads((folder / BINDING).read_text())["database"], autocommit=True)
        else:
            connection = sqlite3.connect(folder / DATABASE, isolation_level=None)
        self._clients.append(Client(connection, self.name))
        return self._clients[-1]

    def close(self) -> None:
        for client in self._clients:
            client.close()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A database with a registry's tables, to be copied for each test; and what its folder remembers."""
    import psycopg

    name = f"tunewright_template_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres_server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        folder = tmp_path_factory.mktemp("template")
        Registry.open(folder, database=on_server(postgres_server, name)).close()
        yield {**json.loads((folder / BINDING).read_text()), "template": name}
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def postgres_backend(postgres_template: dict[str, Any], make_database: Callable[..., str]) -> Iterator[Backend]:
    def bind(folder: Path) -> None:
        content = {**postgres_template, "database": make_database(postgres_template["template"])}
        (folder / BINDING).write_text(json.dumps(content))

    one = Backend("postgresql", bind)
    yield one
    one.close()


@pytest.fixture
def server(postgres_server: str) -> Iterator[Any]:
    """The server as its administrator sees it."""
    import psycopg

    with psycopg.connect(postgres_server, autocommit=True) as connection:
        yield connection


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Each kind of database in turn."""
    if request.param == "postgresql":
        yield request.getfixturevalue("postgres_backend")
        return
    one = Backend("sqlite", lambda folder: None)
    yield one
    one.close()


@pytest.fixture
def open_registry(backend: Backend, tmp_path: Path) -> Iterator[Callable[[], Registry]]:
    """Open the same registry again and again, as separate processes would."""
    opened: list[Registry] = []
    folder = backend.prepare(tmp_path / backend.name / "registry")

    def open_one() -> Registry:
        opened.append(Registry.open(folder))
        return opened[-1]

    yield open_one
    for one in opened:
        one.close()


@pytest.fixture
def registry(open_registry: Callable[[], Registry]) -> Registry:
    return open_registry()


@pytest.fixture
def write_files(tmp_path: Path) -> Callable[..., dict[str, Path]]:
    """Write a model folder; `content` makes its weights differ."""

    def write(content: str = "weights", **more: bytes) -> dict[str, Path]:
        folder = tmp_path / "sources" / hashlib.sha256(repr((content, more)).encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        payload = {"model.safetensors": safetensors(content.encode()), "config.json": b'{"hidden_size": 64}', **more}
        for name, data in payload.items():
            (folder / name).write_bytes(data)
        return {name: folder / name for name in payload}

    return write


@pytest.fixture
def add_base(registry: Registry, write_files: Callable[..., dict[str, Path]]) -> Callable[..., Version]:
    def add(name: str = "tiny-base", fingerprint: str = FINGERPRINT, content: str = "base", **digests: str) -> Version:
        files = write_files(content)
        described = describe_files(files)
        manifest = Manifest(kind="base", files=described, base_fingerprint=fingerprint, licence="Apache-2.0", **digests)
        return registry.register(name, manifest, files)

    return add


@pytest.fixture
def add_adapter(
    registry: Registry, write_files: Callable[..., dict[str, Path]], add_base: Callable[..., Version]
) -> Callable[..., Version]:
    def add(key: str = "one", name: str = "text2sql", **changes: Any) -> Version:
        base = add_base()
        files = write_files(f"adapter {key}")
        values: dict[str, Any] = {
            "kind": "adapter",
            "files": describe_files(files),
            "base_fingerprint": FINGERPRINT,
            "parents": (Parent(base.digest, "base"),),
            "data_digests": {"train.jsonl": hashlib.sha256(b"rows").hexdigest()},
            "content_key": key,
            "seed": 7,
        }
        return registry.register(name, Manifest(**{**values, **changes}), files)

    return add


class _Written:
    """An open file that says so before it writes."""

    def __init__(self, file: Any, step: Callable[[str], object]) -> None:
        self._file, self._step = file, step

    def write(self, data: Any) -> Any:
        self._step("write")
        return self._file.write(data)

    def flush(self) -> None:
        self._step("flush")
        self._file.flush()

    def __enter__(self) -> _Written:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@pytest.fixture
def watch_writes() -> Callable[..., Any]:
    """Call a function with the name of each thing that is done to files under a folder, before it is done."""
    return _watch_writes


@contextmanager
def _watch_writes(folder: Path, step: Callable[[str], object]) -> Iterator[None]:
    """Open for writing, write, flush, fsync, rename, link, mkdir: what a disk that is full or fails may refuse."""
    inside = os.path.realpath(folder)

    def is_inside(file: Any) -> bool:
        path = Path(f"/proc/self/fd/{file}").readlink() if isinstance(file, int) else Path(file).absolute()
        return str(path).startswith(inside)

    def opening(real: Callable[..., Any]) -> Callable[..., Any]:
        def open_file(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
            if not set(mode) & set("wax+") or not is_inside(file):
                return real(file, mode, *rest, **more)
            if not isinstance(file, int):
                step("open")
            return _Written(real(file, mode, *rest, **more), step)

        return open_file

    def doing(name: str, place: int) -> Callable[..., Any]:
        real = getattr(os, name)

        def act(*arguments: Any, **more: Any) -> Any:
            if is_inside(arguments[place]):
                step(name)
            return real(*arguments, **more)

        return act

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", opening(builtins.open))
        patch.setattr(io, "open", opening(io.open))
        for name, place in (("fsync", 0), ("replace", 1), ("rename", 1), ("link", 1), ("mkdir", 0), ("sendfile", 0)):
            patch.setattr(os, name, doing(name, place))
        yield


FILE_ACTS = {"open", "os.rename", "os.chmod", "os.mkdir", "os.link", "os.remove", "os.rmdir", "shutil.rmtree"}


@pytest.fixture
def run_and_die() -> Callable[..., bool]:
    """Kill a process at the n-th thing that it does to files and database."""
    return _run_and_die


def _between(step: Callable[[], None], act: Callable[..., Any]) -> Callable[..., Any]:
    def acting(*arguments: Any, **options: Any) -> Any:
        step()
        found = act(*arguments, **options)
        step()
        return found

    return acting


def _run_and_die(
    act: Callable[[], object], folder: Path, deadly: int, *, statements: bool = True, writes: bool = False
) -> bool:
    """Fork, do the act, and die at the deadly-th step. Returns whether the child died before its end.

    The child counts what it does through Python's audit hooks, SQLAlchemy's events and the writer; without
    `statements` it counts what it does to files, and commits. With `writes` each piece written to a file and each flush
    is a step, too.
    """
    child = os.fork()
    if child == 0:
        gc.disable()  # it would look at, and so copy, every page of the parent's
        steps = 0

        def step() -> None:
            nonlocal steps
            steps += 1
            if steps == deadly:
                os.kill(os.getpid(), signal.SIGKILL)

        def on_audit(name: str, arguments: tuple[Any, ...]) -> None:
            # what is removed with a folder is named inside that folder, which is given as a descriptor
            inside = name in ("os.remove", "os.rmdir") and arguments[-1] not in (-1, None)
            if inside or (name in FILE_ACTS and str(folder) in str(arguments[0])):
                step()

        from sqlalchemy import event
        from sqlalchemy.engine import Engine

        if statements:
            # migrations' statements go through SQLAlchemy, an act's past it
            event.listen(Engine, "before_cursor_execute", lambda *_: step())
            event.listen(Engine, "after_cursor_execute", lambda *_: step())
            for name in ("query", "_insert", "end"):
                setattr(Writer, name, _between(step, getattr(Writer, name)))
            if "psycopg" in sys.modules:  # rows and their commit go out one behind the other
                cursor = sys.modules["psycopg"].Cursor
                cursor.execute = _between(step, cursor.execute)
        event.listen(Engine, "commit", lambda *_: step())
        sys.addaudithook(on_audit)
        # the others are heard of by the hook
        watched = _watch_writes(
            folder, lambda name: step() if name in ("write", "sendfile", "flush", "fsync") else None
        )
        try:
            with watched if writes else nullcontext():
                act()
            os._exit(0)
        except BaseException:
            import traceback

            traceback.print_exc()
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return os.WIFSIGNALED(status)
