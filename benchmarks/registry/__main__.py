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
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.postgres_server import on_server, own_server
from benchmarks.registry.contestants import CONTESTANTS, Contestant, weights_file
from benchmarks.registry.server_share import server_share
from benchmarks.registry.writers import WRITERS, p99, promote_at_once
from registry.manifest import Manifest, describe_files
from registry.store import Registry

OPERATIONS = ("resolve", "create", "promote", "list", "lineage")
# Of the contestants, at each operation, so that what else the machine does is met by both.
TURNS = 5
LEAST = 20
SHARED_CALLS = 300
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
    parser.add_argument("--seconds", type=float, default=2.0, help="For each operation of each contestant.")
    parser.add_argument("--megabytes", type=int, default=256, help="Size of the upload; 0 leaves it out.")
    parser.add_argument("--without-mlflow", action="store_true", help="Ours alone; its package is the extra mlflow.")
    parser.add_argument("--json", type=Path, help="Write the figures here as well.")
    options = parser.parse_args()
    sizes = sorted(options.versions or [100, 10_000])
    names = [name for name in CONTESTANTS if name == "Tunewright" or not options.without_mlflow]
    print(f"{options.database}; {_load()}\n")
    figures: dict[str, Any] = {"database": options.database, "sizes": {}}
    with tempfile.TemporaryDirectory() as scratch, _server(options.database) as address_of:
        for size in sizes:
            figures["sizes"][size] = _measure(size, names, Path(scratch), address_of, options.seconds)
            _print(size, figures["sizes"][size])
        if options.megabytes:
            figures["upload"] = _upload(Path(scratch), options.megabytes << 20)
    if "upload" in figures:
        print(
            f"\nupload of {options.megabytes} MiB: {figures['upload']['seconds']:.2f} s, copy and sha256 of the same "
            f"bytes {figures['upload']['plain_seconds']:.2f} s: {figures['upload']['ratio']:.2f} x"
        )
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))
    raise SystemExit(0 if _aims(figures, sizes) else MISSED)


@contextmanager
def _server(database: str) -> Iterator[Callable[[str], str | None]]:
    """Yield a function that makes a database and returns its address; None for SQLite."""
    if database == "sqlite":
        yield lambda _: None
        return
    import psycopg

    with own_server(durable=True) as address:

        def make(name: str) -> str:
            with psycopg.connect(address, autocommit=True) as connection:
                connection.execute(f'CREATE DATABASE "{name}"')
            return on_server(address, name)

        yield make


def _measure(
    size: int, names: list[str], scratch: Path, address_of: Callable[[str], str | None], seconds: float
) -> dict[str, Any]:
    """Fill all contestants' tables, and let them do each operation in turns."""
    there: dict[str, tuple[Contestant, Path, str | None]] = {}
    found: dict[str, Any] = {name: {} for name in names}
    for name in names:
        folder = scratch / f"{name}-{size}"
        folder.mkdir()
        database = address_of(f"{name.lower()}_{size}")
        began = time.perf_counter()
        one = CONTESTANTS[name](folder, database, size)
        one.fill(_teller(name, size))
        there[name] = one, folder, database
        _say(f"{name}: {size:,} versions written in {time.perf_counter() - began:.0f} s")
    for what in OPERATIONS:
        acts = {name: getattr(one, what) for name, (one, *_) in there.items() if hasattr(one, what)}
        for name, timed in _in_turns(acts, seconds).items():
            found[name][what] = timed
        _say(f"{what} timed")
    shares = {}
    for what in ("create", "promote") if there["Tunewright"][2] is not None else ():
        shares[what] = server_share(getattr(there["Tunewright"][0], what), SHARED_CALLS)
    for name, (one, folder, database) in there.items():
        one.close()
        found[name]["writers"] = promote_at_once(name, folder, database, seconds * 2)
        _say(f"{name}: {WRITERS} writers timed")
        shutil.rmtree(folder)
    return {**found, "server_share": shares, "load": os.getloadavg()[0]}


def _teller(name: str, size: int) -> Callable[[int], object]:
    began = time.perf_counter()
    return lambda done: (
        done % 100_000 or _say(f"{name}: {done:,} of {size:,} versions written, {time.perf_counter() - began:.0f} s")
    )


def _say(progress: str) -> None:
    print(progress, file=sys.stderr, flush=True)


def _load() -> str:
    return f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"


def _in_turns(acts: dict[str, Callable[[], object]], seconds: float) -> dict[str, dict[str, float]]:
    """Let each do its act for a share of its time, one after another, again and again."""
    times: dict[str, list[float]] = {name: [] for name in acts}
    for act in acts.values():
        for _ in range(3):
            act()
    for turn in range(TURNS):
        for name, act in list(acts.items())[:: 1 if turn % 2 else -1]:
            until = time.perf_counter() + seconds / TURNS
            least = LEAST * (turn + 1) / TURNS
            while time.perf_counter() < until or len(times[name]) < least:
                began = time.perf_counter()
                act()
                times[name].append(time.perf_counter() - began)
    return {
        name: {"n": len(one), "rate": len(one) / sum(one), "median": statistics.median(one), "p99": p99(one)}
        for name, one in times.items()
    }


def _upload(scratch: Path, size: int) -> dict[str, float]:
    """Register a large file, in turns with copying and hashing it; the medians of four. Both keep what they wrote."""

    def copy_and_hash(source: Path) -> None:
        copy = source.with_suffix(".copy")
        shutil.copyfile(source, copy)
        with copy.open("rb") as stream:
            os.fsync(stream.fileno())
            hashlib.file_digest(stream, "sha256")

    def timed(act: Callable[..., object], *arguments: Any) -> float:
        began = time.perf_counter()
        act(*arguments)
        return time.perf_counter() - began

    ours, plain = [], []
    with Registry.open(scratch / "uploads") as registry:
        for turn in range(4):
            source = weights_file(scratch / f"large-{turn}.safetensors", os.urandom(1 << 20) * (size >> 20))
            with source.open("rb") as stream:
                os.fsync(stream.fileno())  # whoever is second would wait for the disk to take it
            files = {"model.safetensors": source}
            manifest = Manifest(
                kind="base", files=describe_files(files), base_fingerprint=hashlib.sha256(bytes([turn])).hexdigest()
            )
            for which in (0, 1) if turn % 2 else (1, 0):
                if which:
                    ours.append(timed(registry.register, "large", manifest, files))
                else:
                    plain.append(timed(copy_and_hash, source))
            source.unlink()
    seconds, alone = statistics.median(ours), statistics.median(plain)
    return {"seconds": seconds, "plain_seconds": alone, "ratio": seconds / alone}


def _print(size: int, figures: dict[str, Any]) -> None:
    ours, others = figures["Tunewright"], figures.get("MLflow", {})
    print(f"{size:,} versions; load average {figures['load']:.1f}")
    for what in (*OPERATIONS, "writers"):
        mine, theirs = ours[what], others.get(what)
        beside = "MLflow has none" if others else ""
        if theirs:
            beside = f"MLflow {_figures(theirs)}  {mine['rate'] / theirs['rate']:6.1f} x"
        print(f"  {what:8} {_figures(mine)}  {beside}")
    writers = ours["writers"]
    print(f"  of {WRITERS} writers others passed one {writers['passed']} times at most", flush=True)
    for what, share in figures["server_share"].items():
        bound = f", a third of MLflow's {1e3 * others[what]['median'] / RATE:.2f}" if others else ""
        print(
            f"  {what:8} {1e3 * share['server_seconds']:.2f} of {1e3 * share['seconds']:.2f} ms are the server and its "
            f"driver{bound}"
        )


def _figures(one: dict[str, Any]) -> str:
    failed = f" {one['failed']} failed" if one.get("failed") else ""
    return (
        f"{one['rate']:8,.0f}/s  median {1e3 * one['median']:8.3f} ms  p99 {1e3 * one['p99']:9.3f} ms  n={one['n']}"
        f"{failed}"
    )


def _aims(figures: dict[str, Any], sizes: list[int]) -> bool:
    by_size = figures["sizes"]
    smallest, largest = by_size[sizes[0]], by_size[sizes[-1]]
    resolve = max(by_size[size]["Tunewright"]["resolve"]["p99"] for size in sizes)
    growth = largest["Tunewright"]["resolve"]["median"] / smallest["Tunewright"]["resolve"]["median"]
    promote = max(by_size[size]["Tunewright"]["writers"]["p99"] for size in sizes)
    aims = [
        (f"resolve p99 {1e3 * resolve:.3f} ms, at most {1e3 * RESOLVE_P99_SECONDS:g}", resolve <= RESOLVE_P99_SECONDS),
        (f"promote p99 with {WRITERS} writers {1e3 * promote:.1f} ms, at most {1e3 * PROMOTE_P99_SECONDS:g}",
         promote <= PROMOTE_P99_SECONDS),
    ]  # fmt: skip
    if "upload" in figures:
        ratio = figures["upload"]["ratio"]
        aims.append((f"upload {ratio:.2f} x, at most {UPLOAD}", ratio <= UPLOAD))
    if len(sizes) > 1:
        aims.append((f"resolve at {sizes[-1]:,} against {sizes[0]:,} versions {growth:.2f} x, at most {FLAT}",
                     growth <= FLAT))  # fmt: skip
    for what in (*OPERATIONS, "writers"):
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
