"""What the decide step needs besides rows: the written prompt, the corpus, the champion that is there, a probe."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.rows import Row
from components.files import digest_of
from components.finetuning.finetune import FinetuneSettings
from flows.job import Job
from flows.observer import Observer, step_detail
from flows.promotion_step import held_alias

if TYPE_CHECKING:
    from registry.entities import Version

__all__ = ["CHAMPION", "Champion", "find_champion", "probe_trainer"]

CHAMPION = "champion"


@dataclass(frozen=True)
class Champion:
    """The version that the recipe's alias names, made from this recipe's base.

    Attributes:
        label: `name:vN`.
        digest: The version's digest.
    """

    label: str
    digest: str

    def load(self, job: Job) -> Any:
        """Return the model as it is served."""
        from components.models.load import load_as_served
        from deploy.from_registry import version_files
        from registry.store import Registry

        with Registry.open(job.home / "registry") as registry:
            files = version_files(registry, self.digest)
        return load_as_served(files.base_folder, adapter=files.adapter_folder, quantization=files.quantization)[0]


def find_champion(job: Job, observer: Observer) -> Champion | None:
    """Return the version that the recipe's alias names, if the recipe's candidates name it and there is one.

    It has to be named: otherwise every promotion would have the next run decide anew. One on another base is told and
    left out: what it scores says nothing about this base.
    """
    if CHAMPION not in job.recipe.decision.candidates or not (job.home / "registry").exists():
        return None
    found = _alias(job)
    if found is None:
        return None
    version, base = found
    if base != job.binding.base:
        observer.say(f"  {version.label} is on another base and is not measured")
        return None
    return Champion(version.label, version.digest)


def _alias(job: Job) -> tuple[Version, str | None] | None:
    """Return what the alias names, and the fingerprint of the base that it was made from."""
    from registry.store import Registry

    with Registry.open(job.home / "registry") as registry:
        held = held_alias(registry, job)
        if held is None:
            return None
        version = registry.resolve(held.digest)
        parents = [parent.digest for parent in version.manifest.parents if parent.role == "base"]
        made_from = registry.resolve(parents[0]) if parents else version
        return version, made_from.manifest.base_fingerprint


def probe_trainer(job: Job, settings: FinetuneSettings, key: str, observer: Observer) -> Callable[[Sequence[Row]], Any]:
    """Return a function that finetunes on some rows and gives back the tuned model.

    Args:
        job: The recipe on this machine.
        settings: As `run_settings.probe_settings` gives them: LoRA, which every base takes.
        key: Key of the step; the probes' folders are named by it.
        observer: Who watches.
    """
    settings = replace(settings, dtype="float32")

    def train(rows: Sequence[Row]) -> Any:
        from components.finetuning.finetune import finetune
        from components.models.load import load_model

        def tell(log: Any) -> None:
            observer.progress(
                f"decide: probe on {len(rows)} rows", int(log["step"]), int(log["steps"]), step_detail(log)
            )

        identity = {"base": job.binding.base, "rows": digest_of([row.to_dict() for row in rows])}
        folder: Path = job.home / "runs" / f"probe-{key[:16]}-{len(rows)}"
        found = finetune(
            job.base.folder, rows, [], settings, run_folder=folder, identity=identity, checkpoint_steps=10**6,
            progress=tell, say=observer.say,
        )  # fmt: skip
        return load_model(job.base.folder, adapter=found.weights, merge=True)

    return train
