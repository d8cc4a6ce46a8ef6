"""Options that the verbs of `tunewright registry` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from components.paths import home as default_home
from flows.commands.option_types import WORDS

if TYPE_CHECKING:
    from registry.store import Registry

__all__ = ["actor_option", "home_option", "open_registry", "reason_option", "revision_option"]

home_option = click.option(
    "--home",
    type=click.Path(path_type=Path),
    default=default_home,
    show_default="$TUNEWRIGHT_HOME, else .tunewright",
    help="The state folder that holds the registry.",
)
actor_option = click.option(
    "--actor", type=WORDS, default=None, help="Who does it, for the audit trail.  [default: login name]"
)
reason_option = click.option("--reason", type=WORDS, required=True, help="Why, for the audit trail.")
revision_option = click.option(
    "--expected-revision",
    type=click.IntRange(min=0),
    default=None,
    help="Refuse if the alias moved from this revision (0: not there yet).",
)


def open_registry(home: Path) -> Registry:
    """Open an existing registry for a command that needs more than a look-up."""
    from registry.lookup import Lookup
    from registry.store import Registry

    Lookup(home / "registry").close()  # says what to do where there is none, and makes nothing
    return Registry.open(home / "registry", create=False)
