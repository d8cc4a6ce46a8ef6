"""A model as it is named on the command line: a base, or the REF of a registered version."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flows.commands.recipe_options import state_folder

__all__ = ["Given", "check_writes", "given_model", "given_version"]


@dataclass(frozen=True)
class Given:
    """What a name stands for: the folder of base or whole model, and what was trained beside it.

    A version has its digest; a base has none before its files are read.
    """

    name: str
    folder: Path
    adapter: Path | None = None
    adapter_name: str = "adapter"
    quantization: str | None = None
    digest: str | None = None

    @property
    def is_version(self) -> bool:
        """Tell whether it is registered."""
        return self.digest is not None


def given_model(model: str, home: Path | None) -> Given:
    """Find a model.

    Args:
        model: A base (catalogue name, folder, hub id), or `NAME:vN`, `NAME@alias` or a digest prefix of a version.
        home: State folder, or None for the default.

    Raises:
        InputError: No such base, or one that can't be used.
    """
    if not _names_a_version(model):
        from components.models.sources import check_base_name, locate_base

        check_base_name(model)
        return Given(Path(model).resolve().name, locate_base(model).folder)
    return given_version(model, home)


def given_version(ref: str, home: Path | None) -> Given:
    """Find a registered version.

    Args:
        ref: Any REF.
        home: State folder, or None for the default.

    Raises:
        RegistryError: No such version, or its files are damaged.
    """
    from deploy.from_registry import version_files
    from flows.commands.registry_options import open_to_read

    with open_to_read(state_folder(home)) as registry:
        files = version_files(registry, ref)
    alone = files.adapter_folder is None
    return Given(
        files.label if alone else "base",
        files.base_folder,
        files.adapter_folder,
        files.label,
        files.quantization,
        digest=files.digest,
    )


def check_writes(folder: Path, name: str, wanted: str) -> None:
    """Refuse a head, which answers labels or numbers.

    Args:
        folder: What was trained.
        name: How it was named.
        wanted: What a text is wanted for, for the message.
    """
    from components.errors import InputError
    from components.models.head import is_head

    if is_head(folder):
        raise InputError(
            f"{name} is a head, which answers labels or numbers, and {wanted}",
            allowed="what writes",
            next_step="name its base, or a version that writes",
        )


def _names_a_version(model: str) -> bool:
    """Tell a version's REF from a base; a bare name is a base's, though it might be a model's newest version."""
    from registry.errors import ReferenceInvalid
    from registry.names import parse_reference

    try:
        found = parse_reference(model)
    except ReferenceInvalid:
        return False
    return found.name is None or found.number is not None or found.alias is not None
