"""Options that the verbs of `tunewright registry` share."""

from __future__ import annotations

from pathlib import Path

import click

from components.paths import home as default_home
from flows.commands.option_types import WORDS

__all__ = ["actor_option", "home_option"]

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
