"""Which database a registry's folder belongs to: SQLite inside it, or the PostgreSQL database that it remembers.

Rows in a database and bytes in a folder are one registry, so both hold its id. The folder's half, `database.json`, is
written first, as a claim, and made final once the database has the id: whenever the making is cut off, the next one
finishes it, and a database that holds another folder's registry is never taken.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from registry.address import EXAMPLE, VARIABLE, Address, parse_address
from registry.errors import DatabaseAddressInvalid, RegistryPathError, WrongDatabase
from registry.layout import BINDING, DATABASE
from registry.whole_file import write_whole

__all__ = ["Binding", "find_binding", "put_back_binding", "remembered_binding", "write_binding"]


@dataclass(frozen=True)
class Binding:
    """A folder's tie to a PostgreSQL database.

    Attributes:
        address: The database.
        registry: The registry's id, which the database must have, too.
        made: Whether the database has it; False for a claim.
    """

    address: Address
    registry: str
    made: bool


def find_binding(folder: Path, database: str | None = None) -> Binding | None:
    """Say which PostgreSQL database a folder belongs to, or is to belong to.

    Args:
        folder: The registry's folder.
        database: An address that the caller names; by default $TUNEWRIGHT_REGISTRY_DATABASE, or what the folder
            remembers. A folder that remembers one may be given another address of the same database.

    Returns:
        The tie, a fresh claim where the folder is new; None for SQLite.

    Raises:
        DatabaseAddressInvalid: The address can't be used, or has a password where it may be noted down.
        WrongDatabase: The folder has its own SQLite database.
        RegistryPathError: What the folder remembers can't be read.
        DriverMissing: psycopg isn't there.
    """
    remembered = remembered_binding(folder)
    given = database or os.environ.get(VARIABLE) or None
    if (folder / DATABASE).is_file() and (given or remembered):
        other = "an address was given" if remembered is None else f"{BINDING} names another database"
        raise WrongDatabase(
            f"the registry at {folder} is in its own {DATABASE}, and {other}",
            allowed="one database for one folder",
            next_step=f"leave the address out (unset {VARIABLE}), or use a folder without {DATABASE}"
            if remembered is None
            else f"move the one away that doesn't belong there: {DATABASE} or {BINDING}",
        )
    if given is None:
        return remembered
    address = parse_address(given)
    if database is not None and address.has_password:
        raise DatabaseAddressInvalid(
            f"the database address {address.url} was given with a password",
            allowed=f"an address without one: {EXAMPLE}",
            next_step=f"put the password into PGPASSWORD or ~/.pgpass, or the whole address into {VARIABLE}",
        )
    if remembered is None:
        return Binding(address, os.urandom(16).hex(), made=False)
    return replace(remembered, address=address)


def remembered_binding(folder: Path) -> Binding | None:
    """Return the tie or the claim that is noted in the folder; None where there is none.

    Raises:
        RegistryPathError: It can't be read, or holds a password.
        DatabaseAddressInvalid, DriverMissing: Its address can't be used.
    """
    path = folder / BINDING
    try:
        content = json.loads(path.read_text())
        url, registry, made = content["database"], content["registry"], content["made"]
        if not (isinstance(url, str) and isinstance(registry, str) and registry and isinstance(made, bool)):
            raise ValueError("a value has the wrong type")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
        raise RegistryPathError(
            f"{path} can't be read: {why}",
            allowed='{"database": URL, "registry": ID, "made": true}',
            next_step="restore the file from a copy of the registry's folder",
        ) from error
    address = parse_address(url)
    if address.has_password:
        raise RegistryPathError(
            f"{path} holds a password",
            allowed=f"an address without one: {EXAMPLE}",
            next_step=f"take it out; it may be in PGPASSWORD, in ~/.pgpass, or with the address in {VARIABLE}",
        )
    return Binding(address, registry, made)


def write_binding(folder: Path, binding: Binding) -> None:
    """Note in the folder which database it belongs to; the file is there whole or not at all, without a password.

    Raises:
        RegistryPathError: It can't be written.
    """
    content = {"database": binding.address.url, "registry": binding.registry, "made": binding.made}
    try:
        write_whole(folder / BINDING, (json.dumps(content, indent=2) + "\n").encode())
    except OSError as error:
        raise RegistryPathError(
            f"{folder / BINDING} can't be written: {error.strerror or error}",
            allowed="a folder with room that this user may write",
            next_step="free space, or choose another folder for the registry",
        ) from error


def put_back_binding(folder: Path, before: Binding | None) -> None:
    """Take back a claim that came to nothing, in favour of what was noted before it.

    Raises:
        OSError, RegistryPathError: It can't be written.
    """
    if before is None:
        (folder / BINDING).unlink(missing_ok=True)
    else:
        write_binding(folder, before)
