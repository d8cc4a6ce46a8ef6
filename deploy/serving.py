"""Start a server process, wait until its model is ready, and stop exactly what was started."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from components.errors import ConflictError, InputError, TunewrightError, VerdictError
from deploy.application import REF_VARIABLE, TOKEN_VARIABLE
from deploy.bundle import bento_environment
from deploy.lifeline import FOLLOW_VARIABLE
from deploy.signature import KEY_VARIABLE

__all__ = ["RunningServer", "bento_command", "check_address", "refusal", "serve_bundle"]

STOP_SECONDS = 15
LOG_LINES = 20
# a proxy of the environment has no business between this process and the server that it started
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))
BY_STATUS: dict[int, type[TunewrightError]] = {2: InputError, 3: VerdictError, 4: ConflictError}


@dataclass(frozen=True)
class RunningServer:
    """A server whose model is ready.

    Attributes:
        url: `http://host:port`.
        base_url: What OpenAI's clients want as `base_url`.
        port: The port that it listens on.
        pid: Its process, the leader of its own process group.
        ready: What /readyz said: model, digest, canary.
        start_seconds: Time from the start to readiness.
        log: Its output so far, on disk while it runs.
        process: The child.
    """

    url: str
    base_url: str
    port: int
    pid: int
    ready: Mapping[str, Any]
    start_seconds: float
    log: Path
    process: subprocess.Popen[bytes]

    def wait(self) -> None:
        """Wait while the server runs.

        Raises:
            TunewrightError: It ended by itself; carries the end of its log.
        """
        status = self.process.wait()
        raise TunewrightError(f"the server ended with status {status}:\n{_end(self.log)}")


def check_address(host: str, port: int, token: str | None) -> tuple[str, int]:
    """Settle where to listen.

    Args:
        host: A numeric address, or "localhost".
        port: A port; 0 picks a free one.
        token: What clients must send, if anything.

    Returns:
        The numeric host and the port.

    Raises:
        InputError: A host that is no address of this machine, one that others can reach without a token, a port out
            of range, in use or not permitted.
    """
    numeric = "127.0.0.1" if host == "localhost" else host
    try:
        address = ipaddress.ip_address(numeric)
    except ValueError as error:
        raise InputError(
            f"host {host!r} is not an address", allowed="localhost or a numeric address such as 127.0.0.1"
        ) from error
    if not address.is_loopback and not token:
        raise InputError(
            f"host {host} can be reached by other machines, and no token is set",
            allowed="a loopback address, or any address with a token",
            next_step=f"set {TOKEN_VARIABLE} in the environment, or leave --host at 127.0.0.1",
        )
    if not 0 <= port <= 65535:
        raise InputError(f"port {port} is out of range", allowed="1 to 65535, or 0 for a free one")
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        # as the servers do: a port whose last connections are still fading may be taken again
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((numeric, port))
        except OSError as error:
            raise InputError(
                f"port {port} on {host} can't be used: {error.strerror}",
                allowed="a free port of this machine, or 0 to pick one",
                next_step="stop the process that listens there, or choose another port with --port",
            ) from error
        return numeric, int(probe.getsockname()[1])


def bento_command(path: Path, host: str, port: int) -> tuple[list[str], dict[str, str]]:
    """Return command line and environment that serve a bundle, without the token and the key.

    Args:
        path: The bundle's folder.
        host: Numeric address.
        port: Port.
    """
    command = [sys.executable, "-m", "bentoml", "serve", str(path), "--host", host, "--port", str(port)]
    environment = bento_environment(path.parents[2])
    for variable in (TOKEN_VARIABLE, REF_VARIABLE, KEY_VARIABLE):
        environment.pop(variable, None)
    return command, environment


@contextlib.contextmanager
def serve_bundle(
    path: Path,
    port: int = 0,
    token: str | None = None,
    *,
    host: str = "127.0.0.1",
    served_by: str | None = None,
    public_key: Path | None = None,
    timeout_seconds: float = 180.0,
) -> Iterator[RunningServer]:
    """Serve a bundle with BentoML while the block runs.

    Args:
        path: A bundle's folder.
        port: Port; 0 picks a free one.
        token: Bearer token of clients; handed over in the child's environment alone.
        host: Numeric address.
        served_by: The REF that clients may name the model by, too.
        public_key: The key that must have signed it.
        timeout_seconds: Most time until the model is ready.

    Yields:
        The server, ready.

    Raises:
        InputError: A host, port or bundle that can't be used.
        ConflictError: A changed file or another base: the server refused to start.
        VerdictError: The key has not signed it, or the canary failed.
        TunewrightError: It ended, or was not ready in time; carries the end of its log.
    """
    if not (path / "bento.yaml").is_file():
        raise InputError(f"no bundle at {path}", next_step="make one with `tunewright bundle REF`")
    host, port = check_address(host, port, token)
    command, environment = bento_command(path, host, port)
    environment[FOLLOW_VARIABLE] = "1"
    if served_by:
        environment[REF_VARIABLE] = served_by
    if public_key is not None:
        environment[KEY_VARIABLE] = str(public_key.absolute())
    if token:
        environment[TOKEN_VARIABLE] = token
    with tempfile.TemporaryDirectory(prefix="tunewright-serve-") as folder:
        log = Path(folder) / "server.log"
        with log.open("wb") as output:
            process = _start(command, environment, output)
        try:
            url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
            started = time.monotonic()
            ready = _wait_until_ready(process, url, log, timeout_seconds)
            yield RunningServer(url, f"{url}/v1", port, process.pid, ready, time.monotonic() - started, log, process)
        finally:
            _stop(process)


def _start(command: list[str], environment: dict[str, str], output: IO[bytes]) -> subprocess.Popen[bytes]:
    # a group of its own, so that the workers can be ended with it, and a terminal's ctrl-C reaches us alone
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path, timeout_seconds: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        status = process.poll()
        if status is not None:
            kind = BY_STATUS.get(status, TunewrightError)
            raise kind(f"the server ended with status {status} before it was ready:\n{_end(log)}")
        answer = _ask(f"{url}/readyz")
        if answer is not None:
            if answer["status"] == "ready":
                return answer
            if answer["status"] == "failed":
                raise refusal(answer.get("reason"), answer.get("exit_status"), bool(answer.get("canary")))
        time.sleep(0.1)
    raise TunewrightError(
        f"the server was not ready after {timeout_seconds:.0f} s:\n{_end(log)}",
        next_step="give it more time, or look at the log for what it waits for",
    )


def refusal(reason: object, status: object, canary: bool = False) -> TunewrightError:
    """Return the error of a server that refused its model.

    Args:
        reason: Why.
        status: The exit status of the error that it failed with; a bundle of an earlier release doesn't say.
        canary: Whether it had come to the canary, which is all that such a bundle says.
    """
    if not isinstance(status, int):
        status = 3 if canary else 4
    return BY_STATUS.get(status, TunewrightError)(f"the server refused its model: {reason}")


def _ask(url: str) -> dict[str, Any] | None:
    """Return a probe's document, whatever its status; None when nobody answers yet, or somebody else does."""
    try:
        with DIRECT.open(url, timeout=5) as answer:
            body = answer.read()
    except urllib.error.HTTPError as error:
        body = error.read()
    except OSError:
        return None
    try:
        document = json.loads(body)
    except ValueError:
        return None
    return document if isinstance(document, dict) and "status" in document else None


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the server by its pid, and what is left of its own group after that."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        # the group carries our child's id, and holds nothing but its descendants
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return "\n".join(lines[-LOG_LINES:]) or "(no output)"
