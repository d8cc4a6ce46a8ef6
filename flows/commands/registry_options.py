"""What the verbs of `tunewright registry` share: options, and how they open one."""

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
    """Open the registry of a home for a command that needs more than a look-up.

    Raises:
        RegistryNotFound: There is none; says what to do, and makes nothing.
    """
    from registry.lookup import Lookup
    from registry.store import Registry

    Lookup(home / "registry").close()
    return Registry.open(home / "registry", create=False)
