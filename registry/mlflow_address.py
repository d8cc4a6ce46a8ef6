"""Which addresses can be a mirror: looked at before MLflow is, since it makes what isn't there, parent folders too."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from registry.errors import RegistryInputError
from registry.secret_uris import redacted, without_secrets

__all__ = ["check_address", "unusable"]

ADDRESSES = "a server (http://, https://) or a database (sqlite:///FILE, postgresql://, mysql+pymysql://)"
# MLflow's own: with it, it takes a folder (its file store), which it otherwise gave up
FOLDERS_ALLOWED = "MLFLOW_ALLOW_FILE_STORE"


def check_address(uri: str) -> None:
    """Refuse an address that is a mistake, before anything is made where it leads.

    Args:
        uri: An MLflow's tracking URI.

    Raises:
        RegistryInputError: Empty, no address, a database in memory, a file or folder in a folder that isn't there, or
            a folder where MLflow takes none.
    """
    if not uri.strip():  # MLflow would make a database in this folder
        raise RegistryInputError(
            "no URI of an MLflow is given: it is empty",
            allowed=ADDRESSES,
            next_step="name it with --to, or in $MLFLOW_TRACKING_URI",
        )
    before, colon, _ = uri.partition(":")
    scheme = before.lower() if colon else ""
    if scheme.partition("+")[0] == "sqlite":
        _check_sqlite(uri)
    elif scheme == "file" or (scheme == "" and not uri.startswith("databricks")):
        _check_folder(uri)


def _check_sqlite(uri: str) -> None:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        file = make_url(uri).database
    except ArgumentError as error:
        raise unusable(uri, error) from None
    if not file or file == ":memory:":
        raise RegistryInputError(
            f"{without_secrets(uri)} is a database in memory, which ends with the command",
            allowed="sqlite:///FILE, or sqlite:////FOLDER/FILE for a path from the root on",
        )
    if not file.startswith("file:"):  # SQLite's own URIs
        path = Path(file)
        rooted = "" if path.is_absolute() else f"sqlite:////{path} would be from the root on; "
        _check_parent(uri, path, rooted)


def _check_folder(uri: str) -> None:
    if os.environ.get(FOLDERS_ALLOWED, "").lower() not in ("true", "1"):
        raise RegistryInputError(
            f"{without_secrets(uri)} is a folder, and MLflow keeps what it knows in folders no longer",
            allowed=ADDRESSES,
            next_step=f"name a database, such as sqlite:///mlflow.db; or set {FOLDERS_ALLOWED}=true, for MLflow, too, "
            "if it has to be this folder",
        )
    _check_parent(uri, Path(url2pathname(urlsplit(uri).path) if uri[:5].lower() == "file:" else uri))


def _check_parent(uri: str, path: Path, hint: str = "") -> None:
    folder = path.absolute().parent
    if folder.is_dir():
        return
    raise RegistryInputError(
        f"{without_secrets(uri)} is in {folder}, and there is no such folder",
        allowed="a place in a folder that is there",
        next_step=f"{hint}check the path, or make the folder",
    )


def unusable(uri: str, error: Exception) -> RegistryInputError:
    """Return the error of an address that MLflow, or its driver, can't use."""
    return RegistryInputError(
        f"{without_secrets(uri)} can't be a mirror: {redacted(str(error), uri)}",
        allowed=ADDRESSES,
        next_step="check the URI",
    )
