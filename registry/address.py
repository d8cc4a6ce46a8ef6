"""Addresses of PostgreSQL databases: what was given, and the same without its password, for files and messages.

A password goes to the driver and nowhere else. libpq finds one by itself, too: PGPASSWORD, PGPASSFILE, ~/.pgpass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from registry.errors import DatabaseAddressInvalid, DriverMissing

__all__ = ["EXAMPLE", "VARIABLE", "Address", "import_driver", "parse_address"]

VARIABLE = "TUNEWRIGHT_REGISTRY_DATABASE"
EXAMPLE = "postgresql://user@host:5432/database"
_SCHEMES = ("postgresql", "postgres", "postgresql+psycopg")
# Besides what libpq marks as secret: who has the keys of SCRAM needs no password, and libpq doesn't mark them.
_SECRETS = frozenset({"password", "sslpassword", "scram_client_key", "scram_server_key", "oauth_client_secret"})


@dataclass(frozen=True)
class Address:
    """A PostgreSQL database.

    Attributes:
        url: The address without a password, and without whatever else is secret in it.
        secret: The address as it was given, for the driver alone; kept out of `repr`.
        has_password: Whether a password, or something else that is secret, was given.
    """

    url: str
    secret: str = field(repr=False, compare=False)
    has_password: bool = field(compare=False)


def import_driver() -> Any:
    """Return psycopg.

    Raises:
        DriverMissing: It isn't installed, or lacks its libpq.
    """
    try:
        import psycopg
    except ImportError as error:
        raise DriverMissing(
            f"a registry on PostgreSQL needs psycopg: {str(error).splitlines()[0]}",
            allowed="psycopg 3 with its own libpq, or the system's",
            next_step="install it with `pip install --constraint constraints.txt --editable '.[postgres]'`",
        ) from error
    return psycopg


def parse_address(text: str) -> Address:
    """Read a database URL, as libpq does.

    Raises:
        DatabaseAddressInvalid: It is none. Nothing of it is repeated, since it may hold a password.
        DriverMissing: psycopg isn't there.
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator or scheme not in _SCHEMES:
        known = f"its scheme is {scheme!r}" if separator and scheme.replace("+", "").isalnum() else "it is no URL"
        raise _invalid(known)
    driver = import_driver()
    secret = f"postgresql://{rest}"
    marked = {option.keyword.decode() for option in driver.pq.Conninfo.get_defaults() if option.dispchar == b"*"}
    secrets = _SECRETS | marked
    url = f"postgresql://{_without_secrets(rest, secrets)}"
    try:
        given = driver.conninfo.conninfo_to_dict(secret)
        shown = driver.conninfo.conninfo_to_dict(url)
    except driver.Error:
        # the driver's message quotes pieces of the address; neither it nor the address may be shown
        raise _invalid("libpq can't read it (special characters are written as %xx)") from None
    same = shown == {key: value for key, value in given.items() if key not in secrets}
    ports = str(given.get("port", "0")).split(",")
    # a password with a bare '@' or '/' in it spills into what looks like host, port or database
    if (
        not same
        or url.count("@") > 1
        or "@" in rest.partition("/")[2]
        or not all(p.isdecimal() or not p for p in ports)
    ):
        raise _invalid("where its password begins and ends can't be told (write special characters as %xx)")
    return Address(url, secret, any(given.get(key) for key in secrets))


def _invalid(what: str) -> DatabaseAddressInvalid:
    return DatabaseAddressInvalid(
        f"the registry's database address can't be used: {what}",
        allowed=f"{EXAMPLE}, or none for SQLite in the registry's folder",
        next_step=f"mend the address that is given, or {VARIABLE}",
    )


def _without_secrets(rest: str, secrets: frozenset[str]) -> str:
    """Return what follows `://` without passwords: in front of the host, and among the parameters."""
    end = next((i for i, character in enumerate(rest) if character in "@/"), len(rest))
    if rest[end : end + 1] == "@":
        rest = rest[:end].partition(":")[0] + rest[end:]
    before, mark, parameters = rest.partition("?")
    kept = [p for p in parameters.split("&") if p.partition("=")[0] not in secrets]
    return before + mark + "&".join(kept) if any(kept) else before
