"""Addresses with passwords in them: what may be shown of one, and messages in which drivers repeat it."""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = ["redacted", "without_secrets"]


def without_secrets(uri: str) -> str:
    """Return a URI without user, password and parameters, for messages and files.

    What stands before the last @ is left out, whatever it is: a database's password may have any character in it.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return "(a URI without a scheme)" if "@" in uri else re.split(r"[?#]", uri)[0]
    # a file's path begins with a slash, and has no user before it
    shown = rest if rest.startswith("/") else rest.rpartition("@")[2]
    return f"{scheme}://{re.split(r'[?#]', shown)[0]}"


def redacted(message: str, uri: str) -> str:
    """Return a message without the secrets of a URI, in whatever form a driver repeats them."""
    message = message.replace(uri, without_secrets(uri))
    user, _, behind = uri.partition("://")[2].rpartition("@")
    secrets = [user, *user.split(":", 1), *(pair.partition("=")[2] for pair in behind.partition("?")[2].split("&"))]
    for secret in sorted({one for text in secrets for one in (text, unquote(text)) if len(one) > 2}, key=len)[::-1]:
        message = message.replace(secret, "…")
    return message
