"""Which names and addresses are this machine's own: what a server without tokens answers to.

`deploy.openai_api.envelope` has the same rules for endpoints; bundles carry no registry and the registry imports no
deploy, so a test holds both against the same cases.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

__all__ = ["is_loopback", "names_loopback"]


def names_loopback(url: str) -> bool:
    """Say whether a URL, or `//` and a Host header, names localhost or an address of loopback."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        return False
    return host == "localhost" or (host is not None and _is_address_of_loopback(host))


def is_loopback(host: str) -> bool:
    """Say whether a client's address is of this machine; a unix socket has none."""
    return host in ("", "localhost") or _is_address_of_loopback(host)


def _is_address_of_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)
