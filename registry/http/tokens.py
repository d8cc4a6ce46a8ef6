"""Bearer tokens of the registry's server: a name and a role each, of the secret only its sha256.

The secret is 256 random bits, so one round of sha256 is enough: there is nothing to guess at.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from registry.audit import now
from registry.errors import NameTaken, ReferenceInvalid, TokenNotFound
from registry.private_file import changing, read_private, write_private

__all__ = ["ROLES", "TOKENS_FILE", "Token", "Tokens", "check_token", "includes"]

TOKENS_FILE = "tokens.json"
# A ladder: each role includes those before it.
ROLES = ("read", "write", "promote")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


@dataclass(frozen=True)
class Token:
    """A token as it is kept: who acts by it, what it may, and the sha256 of its secret."""

    name: str
    role: str
    sha256: str
    created_at: str

    def to_dict(self) -> dict[str, Any]:
        """Return what `token ls` prints: nothing of the secret."""
        return {"name": self.name, "role": self.role, "created_at": self.created_at}


def includes(role: str, wanted: str) -> bool:
    """Say whether a role may do what another one may."""
    return ROLES.index(role) >= ROLES.index(wanted)


def check_token(name: str, role: str) -> None:
    """Refuse what no token can be.

    Raises:
        ReferenceInvalid: No usable name, or no such role.
    """
    if not _NAME.fullmatch(name):
        raise ReferenceInvalid(
            f"token name {name!r} can't be used", allowed="letters, digits and '._@-', at most 64 characters"
        )
    if role not in ROLES:
        raise ReferenceInvalid(f"role {role!r}", allowed=", ".join(ROLES))


class Tokens:
    """The tokens of a registry's folder; a change of the file counts from the next request on.

    Args:
        folder: The registry's folder.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / TOKENS_FILE
        self._read: tuple[tuple[int, int, int], tuple[Token, ...]] | None = None

    def all(self) -> tuple[Token, ...]:
        """Return the tokens, oldest first.

        Raises:
            RegistryPathError: The file can't be read, or others may read it.
        """
        try:
            status = self._path.stat()
        except FileNotFoundError:
            return ()
        # the file is replaced at each change, so that its number changes even within one tick of the clock
        stamp = (status.st_ino, status.st_mtime_ns, status.st_mode)
        if self._read is None or self._read[0] != stamp:
            rows = (read_private(self._path) or {}).get("tokens", [])
            self._read = (stamp, tuple(Token(**row) for row in rows))
        return self._read[1]

    def find(self, secret: str) -> Token | None:
        """Return the token with this secret, or None; takes the same time for every secret."""
        given = hashlib.sha256(secret.encode()).hexdigest()
        found = None
        for token in self.all():
            if hmac.compare_digest(token.sha256, given):
                found = token
        return found

    def add(self, name: str, role: str) -> str:
        """Make a token and return its secret, which is kept nowhere.

        Raises:
            ReferenceInvalid: No usable name, or no such role.
            NameTaken: There is a token of this name.
        """
        check_token(name, role)
        secret = f"tw_{secrets.token_urlsafe(32)}"
        with changing(self._path):
            held = self.all()
            if any(token.name == name for token in held):
                raise NameTaken(
                    f"there is a token named {name!r} already",
                    allowed="a name of its own for each token: the audit trail has nothing else",
                    next_step=f"tunewright registry token revoke {name}, or choose another name",
                )
            self._write((*held, Token(name, role, hashlib.sha256(secret.encode()).hexdigest(), now())))
        return secret

    def revoke(self, name: str) -> Token:
        """Remove a token; it counts for nothing from the next request on.

        Raises:
            TokenNotFound: There is none of this name.
        """
        with changing(self._path):
            held = self.all()
            gone = next((token for token in held if token.name == name), None)
            if gone is None:
                raise TokenNotFound(
                    f"there is no token named {name!r}", allowed=", ".join(t.name for t in held) or "none yet"
                )
            self._write(tuple(token for token in held if token.name != name))
        return gone

    def _write(self, tokens: tuple[Token, ...]) -> None:
        write_private(self._path, {"tokens": [asdict(token) for token in tokens]})
        self._read = None
