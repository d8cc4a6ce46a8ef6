"""How long `registry resolve` takes, in process and as a whole command: prints p50 and p99 of each.

python benchmarks/registry/resolve.py --versions 100 --calls 5000 --commands 15

With TUNEWRIGHT_REGISTRY_DATABASE set to an empty PostgreSQL database the registry is made there.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from registry.gate import Policy
from registry.lookup import Lookup
from registry.manifest import Manifest, describe_files
from registry.store import Registry


def fill(folder: Path, versions: int) -> str:
    """Register versions of one model, point `champion` at one in the middle, and return that one's digest."""
    folder.parent.mkdir(parents=True)
    source = folder.parent / "config.json"
    source.write_text("{}")
    files = describe_files({"config.json": source})
    fingerprint = hashlib.sha256(b"base").hexdigest()
    with Registry.open(folder) as registry:
        for number in range(versions):
            manifest = Manifest(kind="base", files=files, base_fingerprint=fingerprint, seed=number)
            registry.register("model", manifest, {"config.json": source})
        middle = registry.resolve(f"model:v{1 + versions // 2}")
        registry.promote(middle.digest, "champion", policy=Policy(require_evaluation=False), actor="benchmark")
    return middle.digest


def percentiles(act: Callable[[], object], calls: int) -> tuple[float, float]:
    """Return p50 and p99 of an act, in seconds."""
    times = []
    for _ in range(calls):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    times.sort()
    return times[len(times) // 2], times[min(len(times) - 1, int(len(times) * 0.99))]


def main() -> None:
    """Fill a registry in a temporary folder and time every form of reference."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--versions", type=int, default=100)
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--commands", type=int, default=15)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        home = Path(root) / "home"
        began = time.perf_counter()
        digest = fill(home / "registry", options.versions)
        each = (time.perf_counter() - began) / options.versions
        print(f"{options.versions} versions, registered in {1e3 * each:.1f} ms each")
        lookup = Lookup(home / "registry")
        print(f"database {'SQLite' if lookup.database.endswith('.db') else 'PostgreSQL'}")
        for ref in ("model", "model:v1", "model@champion", digest, digest[:12]):
            p50, p99 = percentiles(lambda ref=ref: lookup.resolve(ref), options.calls)
            print(f"in process  {ref[:16]:16}  p50 {1e3 * p50:7.3f} ms  p99 {1e3 * p99:7.3f} ms  n={options.calls}")
        script = Path(sys.executable).with_name("tunewright")
        arguments = [str(script), "registry", "resolve", "model@champion", "--json", "--home", str(home)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        p50, p99 = percentiles(lambda: subprocess.run(arguments, check=True, capture_output=True), options.commands)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / options.commands
        print(f"command     model@champion    p50 {1e3 * p50:7.1f} ms  p99 {1e3 * p99:7.1f} ms  n={options.commands}")
        print(
            f"command     processor time {1e3 * cpu:.1f} ms each; "
            f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"
        )


if __name__ == "__main__":
    main()
