"""Where a page of a list begins, as an opaque text: made by server and client alike."""

from __future__ import annotations

import base64
import json

__all__ = ["cursor_of"]


def cursor_of(*position: str | int) -> str:
    """Return the cursor for the page behind a position."""
    return base64.urlsafe_b64encode(json.dumps(position).encode()).decode().rstrip("=")
