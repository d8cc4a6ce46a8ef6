"""What the verbs of `tunewright registry` share: options, and how they open one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from components.paths import home as default_home
from flows.commands.option_types import WORDS
from flows.commands.output import note

if TYPE_CHECKING:
    from registry.gate import Policy
    from registry.store import Registry

__all__ = [
    "actor_option",
    "dry_run_option",
    "home_option",
    "make_registry",
    "open_registry",
    "open_to_read",
    "policy_option",
    "read_policy",
    "reason_option",
    "revision_option",
]

MOST_POLICY_BYTES = 100_000

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
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would happen; write nothing. Exit status 3 if refused."
)
policy_option = click.option(
    "--policy",
    "policy_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A YAML file with the gate's policy.  [default: the one in the newest evaluation, else the defaults]",
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


def make_registry(home: Path) -> None:
    """Make an empty registry in a home that has none, and say so: what a server begins with, before anybody registers.

    Raises:
        RegistryPathError, SchemaUnsupported: As `Registry.open`.
    """
    from registry.errors import RegistryNotFound
    from registry.lookup import Lookup
    from registry.store import Registry

    try:
        Lookup(home / "registry").close()
    except RegistryNotFound:
        Registry.open(home / "registry").close()
        note(f"a new, empty registry was made at {home / 'registry'}")


def open_to_read(home: Path) -> Registry:
    """Open the registry of a home for a command that looks up, verifies or exports; its folder needn't be writable.

    Raises:
        RegistryNotFound: There is none; says what to do, and makes nothing.
    """
    from registry.store import Registry

    return Registry.open_to_read(home / "registry")


def read_policy(file: Path | None) -> Policy | None:
    """Return the policy in a file, or None where no file was given.

    Raises:
        InputError: The file is no YAML, no text, or far too long for a policy.
        PolicyInvalid: It holds no policy.
    """
    if file is None:
        return None
    import yaml

    from components.errors import InputError
    from components.strict_yaml import read_yaml
    from registry.gate import Policy

    with file.open("rb") as stream:  # a device has no size, and no end
        content = stream.read(MOST_POLICY_BYTES + 1)
    if len(content) > MOST_POLICY_BYTES:
        raise InputError(f"policy {file} is longer than {MOST_POLICY_BYTES} bytes", allowed="a mapping of policy keys")
    try:
        return Policy.from_dict(read_yaml(content.decode()))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"policy {file} is not YAML: {error}", allowed="a mapping of policy keys") from error
