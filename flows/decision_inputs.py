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
from flows.release_steps import held_alias

if TYPE_CHECKING:
    from registry.entities import Version

__all__ = ["CHAMPION", "Champion", "find_champion", "probe_trainer"]

CHAMPION = "champion"


@dataclass(frozen=True)
class Champion:
    """The version that the recipe's alias names, on this recipe's base.

    Attributes:
        label: `name:vN`.
        digest: The version's digest.
        nf4: It was trained on the base in 4 bits, and stays apart from it.
    """

    label: str
    digest: str
    nf4: bool

    def load(self, job: Job) -> Any:
        """Return the model as it is served: merged, or apart from a base in 4 bits."""
        from components.models.load import load_as_served
        from registry.store import Registry

        with Registry.open(job.home / "registry") as registry:
            adapter = registry.checkout(self.digest)
        return load_as_served(job.base.folder, adapter=adapter, quantization="nf4" if self.nf4 else None)[0]


def find_champion(job: Job, observer: Observer) -> Champion | None:
    """Return the adapter that the recipe's alias names, if the recipe's candidates name it and there is one.

    It has to be named: otherwise every promotion would have the next run decide anew. One on another base is told and
    left out: what it scores says nothing about this base.
    """
    if CHAMPION not in job.recipe.decision.candidates or not (job.home / "registry").exists():
        return None
    found = _alias(job)
    if found is None or found.kind != "adapter":
        return None
    if found.manifest.base_fingerprint != job.binding.base:
        observer.say(f"  {found.label} is on another base and is not measured")
        return None
    return Champion(found.label, found.digest, found.manifest.quantization is not None)


def _alias(job: Job) -> Version | None:
    from registry.store import Registry

    with Registry.open(job.home / "registry") as registry:
        held = held_alias(registry, job)
        return registry.resolve(held.digest) if held else None


def probe_trainer(job: Job, settings: FinetuneSettings, key: str, observer: Observer) -> Callable[[Sequence[Row]], Any]:
    """Return a function that finetunes on some rows and gives back the tuned model.

    Args:
        job: The recipe on this machine.
        settings: The recipe's training settings; the method is LoRA, which every base takes.
        key: Key of the step; the probes' folders are named by it.
        observer: Who watches.
    """
    settings = replace(settings, method="lora", dtype="float32")

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
        return load_model(job.base.folder, adapter=found.adapter, merge=True)

    return train
