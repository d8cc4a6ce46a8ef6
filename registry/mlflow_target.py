"""How a version is written in MLflow, through its client: a run with scores, a model version under the same number.

The run's artifacts have `model/`: the model card, the manifest and `tunewright.json`, which says where the bytes are;
with `files` the version's files, too, verified. That folder is the model version's source, so that `models:/name@alias`
can be downloaded in either case. MLflow is imported here alone, inside functions.
"""

from __future__ import annotations

import json
import logging
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from registry.canonical import finite
from registry.card import card_of
from registry.checkout import check_out
from registry.errors import MirrorConflict, MlflowMissing, RegistryError
from registry.mlflow_address import check_address, unusable
from registry.secret_uris import without_secrets
from registry.status import RETIRED

if TYPE_CHECKING:
    from registry.entities import AliasState, Evaluation, Version
    from registry.status import Status
    from registry.store import Registry

__all__ = ["ASIDE", "FOLDER", "MlflowTarget", "metrics_of", "mirrored_name"]

logger = logging.getLogger(__name__)

FOLDER = "model"
# Before the names of the folders beside the registry's own that artifacts are laid out in.
ASIDE = ".mirror-"
EXPERIMENT = "tunewright"
_DIGEST, _STATE, _FILES, _POINTER, _HIGHEST = (
    "tunewright." + key for key in ("digest", "state", "files", "pointer", "highest")
)
# MLflow's own tries would keep a follower from answering for minutes; the mirror tries again by itself.
_SETTINGS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "60",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class MlflowTarget:
    """An MLflow tracking server or database as a mirror.

    Args:
        uri: Its tracking and registry URI: http(s), or a database such as `sqlite:///mlflow.db`.
        experiment: Under which experiment runs are.
        files: Whether the versions' files are uploaded as artifacts; else a document says where they are.
        artifacts: Where artifacts of an experiment that isn't there yet go; MLflow's own choice by default, and for
            SQLite a folder beside it.

    Raises:
        RegistryInputError: As `registry.mlflow_address.check_address`.
    """

    def __init__(
        self, uri: str, *, experiment: str = EXPERIMENT, files: bool = False, artifacts: str | None = None
    ) -> None:
        check_address(uri)
        self.uri = uri
        self.experiment = experiment
        self.files = files
        self._artifacts = artifacts

    @cached_property
    def client(self) -> Any:
        """MLflow's client.

        Raises:
            MlflowMissing: MLflow isn't installed, or not what its database needs.
            RegistryInputError: MLflow takes no such URI.
            Exception: What MLflow, or its driver, raises where the store can't be reached.
        """
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        from sqlalchemy.exc import ArgumentError

        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise MlflowMissing(
                f"a mirror needs MLflow: {error}",
                allowed="mlflow or mlflow-skinny, 3.4 or newer",
                next_step="install it with `pip install --constraint constraints.txt --editable '.[mlflow]'`",
            ) from error
        try:
            return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        except Exception as error:
            # drivers that aren't there, ports that are no numbers, schemes that MLflow doesn't know
            if not isinstance(error, ValueError | ArgumentError) and not type(error).__name__.startswith("Unsupported"):
                raise
            raise unusable(self.uri, error) from None  # the driver's own words repeat the URI

    def check(self) -> None:
        """Refuse what can never be a mirror; one that isn't there at the moment is told of by the rounds.

        Raises:
            MlflowMissing, RegistryInputError: As `client`.
        """
        try:
            _ = self.client
        except RegistryError:
            raise
        except Exception as error:
            logger.debug("mirror %s: %s", without_secrets(self.uri), type(error).__name__)

    def put_version(self, registry: Registry, version: Version, evaluation: Evaluation | None, status: Status) -> None:
        """Write a version with its newest scores and its state; what is there already stays as it is.

        Raises:
            MirrorConflict: The model in MLflow has versions that the registry didn't put there, or lacks some that it
                did. Nothing was written there, unless others wrote the model in the same moment.
        """
        name, number = mirrored_name(version.name), str(version.version)
        held = self._version(name, number)
        if held is None:
            self._check_next(name, version)
        elif held.tags.get(_DIGEST) != version.digest:
            raise _conflict(
                f"version {number} of {name!r} in MLflow isn't {version.label}: others write this model there"
            )
        run = self._run(registry, version, evaluation, status)
        if held is None:
            self._check_next(name, version)  # once more: files may have been uploaded meanwhile
            held = self._make_version(name, version, run)
        elif (self._highest(name) or 0) < version.version:  # a process was killed between the version and its tag
            self.client.set_registered_model_tag(name, _HIGHEST, number)
        if held.tags.get(_STATE) != status.state:
            self.client.set_model_version_tag(name, number, _STATE, status.state)

    def put_alias(self, state: AliasState, reason: str | None) -> None:
        """Let an alias point where the registry's does; who moved it, when and why is a tag of the model."""
        name = mirrored_name(state.name)
        self.client.set_registered_model_alias(name, state.alias, str(state.version))
        told = f"v{state.version}, revision {state.revision}, by {state.actor} at {state.changed_at}"
        self.client.set_registered_model_tag(name, f"tunewright.alias.{state.alias}", f"{told}: {reason or '-'}"[:5000])

    def drop_alias(self, name: str, alias: str) -> None:
        """Take an alias away."""
        self.client.delete_registered_model_alias(mirrored_name(name), alias)
        with suppress(self._not_found):
            self.client.delete_registered_model_tag(mirrored_name(name), f"tunewright.alias.{alias}")

    def _run(self, registry: Registry, version: Version, evaluation: Evaluation | None, status: Status) -> Any:
        """Return the version's run with its scores, tags and artifacts; made if it isn't there."""
        from mlflow.entities import Metric, Param, RunTag

        wanted = f"tags.`{_DIGEST}` = '{version.digest}'"
        made_at = _milliseconds(version.created_at)
        found = self.client.search_runs([self._experiment], wanted, max_results=1, order_by=["attributes.start_time"])
        run = found[0] if found else self.client.create_run(
            self._experiment, start_time=made_at, run_name=version.label, tags=_tags(version)
        )  # fmt: skip
        metrics = [Metric(key, value, made_at, 0) for key, value in _figures(version)]
        tags = [RunTag(_STATE, status.state)]
        if evaluation is not None:
            at = _milliseconds(evaluation.created_at)
            metrics += [Metric(key, value, at, evaluation.id) for key, value in metrics_of(evaluation.report)]
            tags.append(RunTag("tunewright.evaluation", evaluation.digest))
        # a metric is its key, time, step and value: the same one again is no second point
        held = {(key, value) for key, value in run.data.metrics.items()}
        params = [Param(key, value) for key, value in _parameters(version) if key not in run.data.params]
        for start in range(0, max(len(metrics), 1), 900):
            batch = [metric for metric in metrics[start : start + 900] if (metric.key, metric.value) not in held]
            self.client.log_batch(run.info.run_id, batch, params if start == 0 else (), tags if start == 0 else ())
        self._log_files(registry, version, status, run)
        if run.info.status != "FINISHED":
            self.client.set_terminated(run.info.run_id, "FINISHED", end_time=made_at)
        return run

    def _log_files(self, registry: Registry, version: Version, status: Status, run: Any) -> None:
        files = self.files and status.state != RETIRED and run.data.tags.get(_FILES) != "whole"
        card = card_of(registry, version)
        pointer = pointer_of(registry, version)
        if not files and run.data.tags.get(_POINTER) == version.digest and not _changed(run, card):
            return
        with tempfile.TemporaryDirectory(dir=registry.folder, prefix=ASIDE) as place:
            folder = Path(place) / FOLDER
            if files:
                check_out(registry.blobs, version.manifest, folder)
            folder.mkdir(exist_ok=True)
            texts = {"tunewright.json": json.dumps(pointer, indent=2), "manifest.json": version.manifest_json}
            if "README.md" not in version.manifest.files:
                texts["README.md"] = card
            for path, text in texts.items():
                if path not in version.manifest.files:
                    (folder / path).write_text(text, encoding="utf-8")
            self.client.log_artifacts(run.info.run_id, str(folder), FOLDER)
        if files:
            self.client.set_tag(run.info.run_id, _FILES, "whole")  # last: an upload that was cut off is done again
        self.client.set_tag(run.info.run_id, _POINTER, version.digest)
        self.client.set_tag(run.info.run_id, "tunewright.card", _short(card))

    @cached_property
    def _experiment(self) -> str:
        found = self.client.get_experiment_by_name(self.experiment)
        if found is not None:
            return str(found.experiment_id)
        place = self._artifacts
        database = urlsplit(self.uri)
        if place is None and database.scheme == "sqlite" and database.path.strip("/"):
            file = Path(database.path.removeprefix("/")).resolve()
            place = (file.parent / f"{file.stem}-artifacts").as_uri()
        return str(self.client.create_experiment(self.experiment, artifact_location=place))

    def _check_next(self, name: str, version: Version) -> None:
        """Refuse to make a version that would come out under another number, which nothing gives back.

        MLflow counts on from the highest number that a model ever had. Those that were deleted there it doesn't show,
        so that the highest one that was made here is kept as a tag of the model, and goes with it.
        """
        newest = self.client.search_model_versions(f"name='{name}'", max_results=1, order_by=["version_number DESC"])
        shown = max((int(one.version) for one in newest), default=0)
        kept = self._highest(name)
        highest = max(shown, kept or 0)
        # a model that an earlier release mirrored has no tag, and its newest ones may have been deleted there
        if highest >= version.version:
            raise _conflict(
                f"{version.label} isn't in MLflow, where {name!r} has come to version {highest} already: others write "
                "this model there, or deleted it"
            )
        if highest < version.version - 1 and (kept is not None or not shown):
            raise _conflict(
                f"{version.label} can't become version {version.version} of {name!r} in MLflow, which counts on from "
                f"{highest} as far as it shows: the ones before it aren't there"
            )

    def _highest(self, name: str) -> int | None:
        try:
            tags = self.client.get_registered_model(name).tags
        except self._not_found as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return int(tags[_HIGHEST]) if str(tags.get(_HIGHEST)).isdecimal() else None

    def _make_version(self, name: str, version: Version, run: Any) -> Any:
        self._make_model(name, version.name)
        made = self.client.create_model_version(
            name, f"{run.info.artifact_uri}/{FOLDER}", run_id=run.info.run_id, tags=_tags(version),
            description=f"{version.label}, {version.kind}, digest {version.digest}",
        )  # fmt: skip
        self.client.set_registered_model_tag(name, _HIGHEST, str(made.version))
        if int(made.version) != version.version:  # others wrote meanwhile, or made and deleted some
            self.client.delete_model_version(name, made.version)
            raise _conflict(
                f"{version.label} came out as version {made.version} of {name!r} in MLflow: others write this model"
            )
        return self.client.get_model_version(name, made.version)

    def _make_model(self, name: str, registered: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(name, tags={"tunewright.name": registered})
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise

    def _version(self, name: str, number: str) -> Any:
        try:
            return self.client.get_model_version(name, number)
        except self._not_found as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None

    @property
    def _not_found(self) -> Any:
        from mlflow.exceptions import MlflowException

        return MlflowException


def _conflict(problem: str) -> MirrorConflict:
    return MirrorConflict(
        problem,
        allowed="models that the mirror alone writes",
        next_step="mirror to another MLflow, or rename or delete the model there and mirror with --from-start",
    )


def mirrored_name(name: str) -> str:
    """Return a model's name in MLflow, where none has a '/'; no name of ours has a '~'."""
    return name.replace("/", "~")


def pointer_of(registry: Registry, version: Version) -> dict[str, Any]:
    """Return the document that says where a version's bytes are, and how to get them verified."""
    entries = version.manifest.files.items()
    return {
        "version": version.label,
        "digest": version.digest,
        "registry": registry.folder.as_uri(),
        "files": {p: {"size": e.size, "sha256": e.sha256, "uri": registry.blobs.uri(e.sha256)} for p, e in entries},
        "command": f"tunewright registry resolve {version.label} --checkout",
    }


def metrics_of(report: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the figures of an evaluation report under MLflow's kind of names; a report may be anybody's."""
    task, tax = report.get("task"), report.get("tax")
    rows = [("task", str(task.get("metric") or "score"), task)] if isinstance(task, Mapping) else []
    for row in tax if isinstance(tax, list) else []:
        if isinstance(row, Mapping):
            rows.append(("tax", str(row.get("suite") or "suite"), row))
    suites = _plain_names(name for group, name, _ in rows if group == "tax")
    for group, name, row in rows:
        for key in ("base", "tuned", "delta", "low", "high", "n"):
            if (value := finite(row.get(key))) is not None:
                yield f"{group}/{suites[name] if group == 'tax' else _plain(name)}/{key}", value


def _figures(version: Version) -> Iterator[tuple[str, float]]:
    """Yield what was measured of the training: memory in bytes, time in seconds, energy in kWh."""
    for section in ("memory", "time", "energy", "training"):
        held = version.manifest.metadata.get(section)
        figures = held if isinstance(held, Mapping) else {}
        names = _plain_names(figures)
        for key, found in figures.items():
            if (value := finite(found)) is not None:
                yield f"{section}/{names[key]}", value


def _parameters(version: Version) -> Iterator[tuple[str, str]]:
    metadata = version.manifest.metadata
    yield "kind", version.kind
    for key, value in (("method", metadata.get("method")), ("seed", version.manifest.seed)):
        if value is not None:
            yield key, str(value)[:500]
    held = metadata.get("tactics")
    tactics = held if isinstance(held, Mapping) else {}
    names = _plain_names(tactics)
    for key, rule in tactics.items():
        if isinstance(rule, Mapping):
            yield f"tactics/{names[key]}", str(rule.get("value"))[:500]


def _tags(version: Version) -> dict[str, str]:
    manifest = version.manifest
    paths = _plain_names(manifest.data_digests)
    found = {
        _DIGEST: version.digest,
        "tunewright.version": version.label,
        "tunewright.kind": version.kind,
        "tunewright.base_fingerprint": version.base_fingerprint,
        "tunewright.licence": manifest.licence,
        "tunewright.code_revision": manifest.code_revision,
        "tunewright.flow_run": manifest.flow_run_id,
        **{f"tunewright.data.{paths[path]}": digest for path, digest in manifest.data_digests.items()},
    }
    return {key: value[:5000] for key, value in found.items() if value}


def _changed(run: Any, card: str) -> bool:
    return bool(run.data.tags.get("tunewright.card") != _short(card))


def _short(text: str) -> str:
    from registry.canonical import sha256_text

    return sha256_text(text)[:16]


def _plain(name: object) -> str:
    """Return a part of a name as MLflow takes it; it looks at names as paths."""
    return re.sub(r"[^\w. -]", "_", str(name), flags=re.ASCII).strip(". ")[:120] or "_"


def _plain_names(names: Iterable[str]) -> dict[str, str]:
    """Return what stands for each of these names, no two alike.

    Of those that MLflow's rules make one, all but the one that needed no change have a part of their digest behind
    them: it refuses a parameter that comes twice, for good, and shows one of two figures without a word.
    """
    plain = {name: _plain(name) for name in names}
    count = Counter(plain.values())
    return {name: one if count[one] == 1 or one == name else f"{one}.{_short(name)[:8]}" for name, one in plain.items()}


def _milliseconds(at: str) -> int:
    return int(datetime.fromisoformat(at).timestamp() * 1000)
