"""Where webhooks may go: hosts that a file allows, at addresses that were looked at and are then connected to.

<registry>/webhook-hosts.txt, a host a line:

    hooks.example.org            this host, at addresses of the open internet
    ci.internal:8443 private     this host and port, at private and loopback addresses too

Without the file no host is allowed. What a name resolves to is checked at each delivery, and the connection goes to
one of those very addresses, so that a name which changes its mind in between leads nowhere else.
"""

from __future__ import annotations

import ipaddress
import socket
import threading
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from urllib.parse import SplitResult, urlsplit

from registry.errors import WebhookRefused

__all__ = ["HOSTS_FILE", "Destination", "check_url", "destination"]

HOSTS_FILE = "webhook-hosts.txt"
LOOK_UP_SECONDS = 10.0
# all of IPv6 that is given out for the open internet
_GIVEN_OUT = ipaddress.IPv6Network("2000::/3")
# compatible, mapped, translated, and behind NAT64's well-known prefix; 64:ff9b:1::/48 may hold one anywhere
_ENDING_IN_IPV4 = tuple(
    ipaddress.IPv6Network(one) for one in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b::/96")
)


@dataclass(frozen=True)
class Destination:
    """Where a request goes: the addresses that may be connected to, and the host that it is meant for."""

    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]

    @property
    def urls(self) -> tuple[str, ...]:
        """The addresses as URLs, in the order in which the system names them, without what is asked of them."""
        places = (f"[{address}]" if ":" in address else address for address in self.addresses)
        return tuple(f"{self.scheme}://{place}:{self.port}/" for place in places)

    @property
    def host_header(self) -> str:
        """The host as the receiver knows it."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return name if self.port == _default_port(self.scheme) else f"{name}:{self.port}"


def _default_port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def check_url(folder: Path, url: str) -> bool:
    """Refuse a URL that webhooks may not go to, as far as can be said without resolving its name.

    Args:
        folder: The registry's folder, with the file of hosts.
        url: The URL.

    Returns:
        Whether private addresses are allowed for it.

    Raises:
        WebhookRefused: Not a plain http(s) URL, http to another than a private host, or a host that the file lacks.
    """
    parts = _parts(url)
    host, port = str(parts.hostname), parts.port or _default_port(parts.scheme)
    allowed = _allowed(folder)
    found = next((key for key in ((host, port), (host, None)) if key in allowed), None)
    if found is None:
        listed = ", ".join(sorted(name if number is None else f"{name}:{number}" for name, number in allowed))
        raise WebhookRefused(
            f"webhooks may not go to {host}:{port}",
            allowed=listed or f"no host: {folder / HOSTS_FILE} names none",
            next_step=f"add a line '{host}:{port}' to {folder / HOSTS_FILE}, with the word private behind it for an "
            "address that is not on the open internet",
        )
    if parts.scheme == "http" and not allowed[found]:
        raise WebhookRefused(
            f"http to {host}:{port} would go over the open internet in clear",
            allowed="https, or http to a host listed as private",
        )
    return allowed[found]


def destination(folder: Path, url: str, *, seconds: float = LOOK_UP_SECONDS) -> Destination:
    """Resolve a URL's host and hold every address against the rules.

    Args:
        folder: The registry's folder, with the file of hosts.
        url: The URL.
        seconds: How long its name may take to resolve.

    Raises:
        WebhookRefused: As `check_url`; or the name can't be resolved in time, or leads to an address that isn't
            allowed.
    """
    private = check_url(folder, url)
    parts = _parts(url)
    host, port = str(parts.hostname), parts.port or _default_port(parts.scheme)
    addresses = _look_up(host, port, seconds)
    for address in addresses:
        if not private and not _is_open(address):
            raise WebhookRefused(
                f"{host} leads to {address}, which is not on the open internet",
                allowed="public addresses",
                next_step=f"write the word private behind the host in {folder / HOSTS_FILE} if that is meant",
            )
    return Destination(parts.scheme, host, port, addresses)


def _look_up(host: str, port: int, seconds: float) -> tuple[str, ...]:
    """Return a host's addresses. The system's look-up takes no limit: one that hangs is left behind in its thread."""
    answers: SimpleQueue[tuple[str, ...] | Exception] = SimpleQueue()

    def look() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            answers.put(error)
        else:
            answers.put(tuple(dict.fromkeys(str(entry[4][0]) for entry in found)))

    threading.Thread(target=look, name=f"look-up of {host}", daemon=True).start()
    try:
        answer = answers.get(timeout=seconds)
    except Empty:
        raise WebhookRefused(f"{host} could not be resolved in {seconds:g} s") from None
    if isinstance(answer, Exception):
        raise WebhookRefused(f"{host} can't be resolved: {answer}") from answer
    return answer


def _parts(url: str) -> SplitResult:
    allowed = "http(s)://host[:port]/path, without a user, a password or a fragment"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise WebhookRefused(f"webhook URL {url!r}: {error}", allowed=allowed) from error
    plain = url.isascii() and url.isprintable() and " " not in url
    odd = parts.username or parts.password or parts.fragment or port == 0
    if not plain or parts.scheme not in ("http", "https") or not parts.hostname or odd:
        raise WebhookRefused(f"webhook URL {url!r} can't be used", allowed=allowed)
    return parts


def _allowed(folder: Path) -> dict[tuple[str, int | None], bool]:
    """Read the file: (host, port or None) -> whether private addresses are allowed."""
    path = folder / HOSTS_FILE
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise WebhookRefused(f"{path} can't be read: {error}") from error
    allowed: dict[tuple[str, int | None], bool] = {}
    for number, line in enumerate(lines, start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            parts = urlsplit(f"//{words[0]}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if not host or words[1:] not in ([], ["private"]):
            raise WebhookRefused(
                f"{path}, line {number}: {line.strip()!r}", allowed="host or host:port, and the word private or nothing"
            )
        allowed[host, port] = words[1:] == ["private"]
    return allowed


def _is_open(address: str) -> bool:
    """Say whether an address is on the open internet: no loopback, private, link-local, multicast or reserved one."""
    found = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(found, ipaddress.IPv6Address):
        inner = _embedded(found)
        # outside what is given out lie site-local addresses, and prefixes of a network's own translators
        if inner is None and found not in _GIVEN_OUT:
            return False
        judged: ipaddress.IPv4Address | ipaddress.IPv6Address = inner or found
    else:
        judged = found
    return judged.is_global and not judged.is_multicast


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that a gateway, or this machine, goes to in place of an IPv6 address."""
    if address.sixtofour is not None:
        return address.sixtofour
    if any(address in network for network in _ENDING_IN_IPV4):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None
