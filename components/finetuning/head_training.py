"""Train a head: features from the cache or the base, the fit, and the saved head proven. Called by the flow in the
place of `finetune`, whose settings and result it shares; read from top to bottom.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.answers import Targets, check_answers, read_targets
from components.data.chat import prompt_ids
from components.errors import ConflictError, InputError, TunewrightError
from components.finetuning.feature_cache import FeatureCache
from components.finetuning.features import FeatureSettings, attach
from components.finetuning.head_fit import Fit, FitSettings, fit
from components.finetuning.methods import find_method
from components.finetuning.result import FinetuneResult, StoppedError
from components.finetuning.settings import FinetuneSettings
from components.memory.workload import Workload

if TYPE_CHECKING:
    from torch import Tensor

    from components.data.rows import Row
    from components.models.head import Head

__all__ = ["feature_workload", "train_head"]

TRAIN, DEV = Path("the training rows"), Path("the dev rows")
# the same tensors through the same few operations
OUTPUT_TOLERANCE = 1e-5
LEAST_CHANGE = 1e-6
# A feature that varies less than this is constant, and standardised to nothing.
LEAST_SCALE = 1e-6


def feature_workload(base_folder: Path, rows: Sequence[Row], dev_rows: Sequence[Row], max_tokens: int) -> Workload:
    """Return the prompts that go through the base, longest batches last as they are computed, for plan and time.

    Args:
        base_folder: A checked base; only its tokenizer and config are read.
        rows: Training rows.
        dev_rows: Rows behind the dev loss.
        max_tokens: Longest prompt that the recipe allows.

    Raises:
        InputError: A prompt that is longer, or that the base has no positions for.
    """
    from components.models.load import load_tokenizer

    prompts = _prompts(load_tokenizer(base_folder), base_folder, [*rows, *dev_rows], max_tokens)
    lengths = sorted(map(len, prompts))
    return Workload(tuple(lengths), (1,) * len(lengths))


def train_head(
    base_folder: Path,
    rows: Sequence[Row],
    dev_rows: Sequence[Row],
    settings: FinetuneSettings,
    *,
    run_folder: Path,
    identity: Mapping[str, str],
    cache_folder: Path,
    progress: Callable[[Mapping[str, float]], None] | None = None,
    features_progress: Callable[[int, int], None] | None = None,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> FinetuneResult:
    """Compute features of the rows, or take those that are kept, and fit a head to them.

    Args:
        base_folder: A checked base.
        rows: Training rows, whose answers are labels or numbers.
        dev_rows: Rows whose loss ends training and chooses the epoch; none: all epochs are made, and the last is kept.
        settings: Everything that decides the head; `attachment` is `FeatureSettings`.
        run_folder: The head goes into its folder `head`; one process at a time.
        identity: Digests of `base`, `tokenizer` and `template`, which name the features.
        cache_folder: Where features are kept.
        progress: Called after each epoch with step, steps, loss and seconds_left.
        features_progress: Called with (finished, all) while features are computed.
        say: Called with a line for the person.
        stop: Asked after each file of features whether to stop; fitting takes seconds and isn't interrupted.

    Returns:
        The folder of the head and what the run measured: steps and losses are those of the fit, tokens those of the
        prompts, seconds both parts whenever they were spent.

    Raises:
        InputError: Answers that no head can learn, a layer that the base hasn't, or a prompt that is too long.
        ConflictError: The run folder is in use by another process.
        StoppedError: `stop` said so; the features computed so far are kept.
        TunewrightError: A loss that isn't finite, or a saved head that answers otherwise.
    """
    from filelock import FileLock, Timeout

    run_folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(run_folder / "run.lock", timeout=0).acquire()
    except Timeout as error:
        raise ConflictError(
            f"another process is training in {run_folder}", next_step="wait for it, or stop it"
        ) from error
    with lock:
        return _train(
            base_folder, rows, dev_rows, settings, run_folder, identity, cache_folder, progress, features_progress,
            say, stop,
        )  # fmt: skip


def _train(
    base_folder: Path,
    rows: Sequence[Row],
    dev_rows: Sequence[Row],
    settings: FinetuneSettings,
    run_folder: Path,
    identity: Mapping[str, str],
    cache_folder: Path,
    progress: Callable[[Mapping[str, float]], None] | None,
    features_progress: Callable[[int, int], None] | None,
    say: Callable[[str], None],
    stop: Callable[[], bool],
) -> FinetuneResult:
    import torch

    from components.finetuning.energy_watch import EnergyWatch
    from components.finetuning.memory_watch import MemoryWatch
    from components.models.base_config import read_config
    from components.models.features import check_layer
    from components.models.load import load_tokenizer

    find_method(settings.method, settings.attachment)
    chosen = settings.attachment
    assert isinstance(chosen, FeatureSettings)
    targets = read_targets(rows, chosen.task, TRAIN)
    check_answers(targets, dev_rows, DEV)
    check_layer(read_config(base_folder), chosen.layer)
    tokenizer = load_tokenizer(base_folder)
    prompts = _prompts(tokenizer, base_folder, [*rows, *dev_rows], settings.max_tokens)
    energy = EnergyWatch(1 if torch.cuda.is_available() else 0)
    with MemoryWatch() as memory, energy:
        base = _Base(base_folder, chosen, settings)
        names = {name: identity[name] for name in ("base", "tokenizer", "template")}
        cache = FeatureCache(
            cache_folder,
            {**names, "pooling": chosen.pooling, "layer": chosen.layer, "dtype": settings.dtype},
            base.features,
            say,
        )

        def may_stop(done: int, count: int) -> None:
            if done < count and stop():
                raise StoppedError(done, count)

        found = cache.features(prompts, features_progress, may_stop)
        base.release()
        say(f"  features of {len(prompts)} rows: {found.computed} computed, {len(prompts) - found.computed} kept")
        train_features, dev_features = found.features[: len(rows)], found.features[len(rows) :]
        head = _new_head(targets, chosen, train_features, targets.values(rows))
        with torch.no_grad():
            untrained = head.outputs(train_features)
        fitted = _fit(head, targets, settings, chosen, (train_features, rows), (dev_features, dev_rows), progress)
        weights = _save(head, base_folder, run_folder / "head")
        change = _check_saved(head, base_folder, weights, train_features, untrained)
    tokens = sum(map(len, prompts))
    trained = sum(parameter.numel() for parameter in head.network.parameters())
    return FinetuneResult(
        weights=weights,
        kind="head",
        steps=fitted.steps,
        planned_steps=fitted.planned_steps,
        ended=fitted.ended,
        kept_step=fitted.kept_step,
        kept_reason="the smallest dev loss" if fitted.dev else "the last",
        rows=fitted.epochs * len(rows),
        tokens=tokens,
        seconds=found.seconds + fitted.seconds,
        tokens_per_second=tokens / max(found.seconds, 1e-9),
        peak_bytes=memory.peak_bytes,
        losses=fitted.losses,
        skipped_steps=0,
        dev=fitted.dev,
        answering_seconds=0.0,
        resumed_from=None,
        trainable_parameters=trained,
        total_parameters=_parameters(base_folder) + trained,
        largest_logit_change=change,
        deltas=None,
        splits=[],
        head={
            **asdict(head.config),
            "labels": list(head.config.labels),
            "epochs": fitted.epochs,
            "best_epoch": fitted.best_epoch,
            "fit_seconds": fitted.seconds,
            "seconds_per_epoch": fitted.seconds / fitted.epochs,
            "features_seconds": found.seconds,
            "features_computed": found.computed,
            "features_rows": len(prompts),
        },
        energy=energy.to_dict(),
    )


class _Base:
    """The base, loaded when the first features are missing."""

    def __init__(self, folder: Path, chosen: FeatureSettings, settings: FinetuneSettings) -> None:
        self._folder, self._chosen, self._settings = folder, chosen, settings
        self._model: Any = None

    def features(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Compute the features of prompts."""
        from components.finetuning.out_of_memory import told_clearly
        from components.models.features import prompt_features
        from components.models.load import load_model

        if self._model is None:
            with told_clearly("while the base was loaded"):
                self._model = attach(load_model(self._folder, dtype=self._settings.dtype), self._chosen)
        with told_clearly("while features were computed"):
            return prompt_features(
                self._model,
                prompts,
                pooling=self._chosen.pooling,
                layer=self._chosen.layer,
                batch_size=self._settings.micro_batch_size,
            )

    def release(self) -> None:
        """Give the base's memory back."""
        from components.runtime import release_memory

        self._model = None
        release_memory()


def _prompts(tokenizer: Any, base_folder: Path, rows: Sequence[Row], most: int) -> list[list[int]]:
    """Render the prompts, and refuse one that is longer than allowed or than the base's positions."""
    from components.models.base_config import read_config
    from components.models.rope import cached_positions

    # those within which a row's states don't depend on the rows beside it, whatever the base's own scaling
    positions = cached_positions(read_config(base_folder))
    prompts = [prompt_ids(tokenizer, row.prompt) for row in rows]
    for ids, row in zip(prompts, rows, strict=True):
        if len(ids) > most:
            raise InputError(
                f"line {row.line}: the prompt has {len(ids)} tokens, and finetune.max_tokens is {most}",
                allowed=f"prompts of at most {most} tokens",
                next_step="raise finetune.max_tokens, or shorten the prompt",
            )
        if positions is not None and len(ids) > positions:
            raise InputError(
                f"line {row.line}: the prompt has {len(ids)} tokens, and the base has {positions} positions",
                allowed=f"prompts of at most {positions} tokens",
                next_step="shorten the prompt, or choose a base with a longer context",
            )
    return prompts


def _new_head(targets: Targets, chosen: FeatureSettings, features: Tensor, values: Sequence[float]) -> Head:
    """Build a head at its start, with the standardisation of the training rows."""
    import torch

    from components.models.head import Head, HeadConfig, build_network

    numbers = torch.tensor(values, dtype=torch.float64)
    regression = targets.task == "regression"
    scale = features.std(dim=0, correction=0)
    config = HeadConfig(
        task=targets.task,
        labels=targets.labels,
        decimals=targets.decimals,
        target_mean=float(numbers.mean()) if regression else 0.0,
        target_scale=float(numbers.std(correction=0)) if regression else 1.0,
        pooling=chosen.pooling,
        layer=chosen.layer,
        width=chosen.width,
        features=features.shape[1],
    )
    network = build_network(config, torch.Generator().manual_seed(chosen.seed))
    return Head(config, network, features.mean(dim=0), torch.where(scale < LEAST_SCALE, 1.0, scale))


def _fit(
    head: Head,
    targets: Targets,
    settings: FinetuneSettings,
    chosen: FeatureSettings,
    train: tuple[Tensor, Sequence[Row]],
    dev: tuple[Tensor, Sequence[Row]],
    progress: Callable[[Mapping[str, float]], None] | None,
) -> Fit:
    import torch

    config = head.config

    def prepared(part: tuple[Tensor, Sequence[Row]]) -> tuple[Tensor, Tensor]:
        features, rows = part
        values = torch.tensor(targets.values(rows), dtype=torch.float32)
        return (features - head.mean) / head.scale, (values - config.target_mean) / config.target_scale

    return fit(
        head.network,
        prepared(train),
        prepared(dev) if dev[1] else None,
        FitSettings(
            classes=len(config.labels),
            learning_rate=settings.learning_rate,
            schedule=settings.schedule,
            warmup_fraction=settings.warmup_fraction,
            weight_decay=settings.weight_decay,
            max_grad_norm=settings.max_grad_norm,
            epochs=settings.epochs,
            batch_rows=chosen.batch_rows,
            patience=chosen.patience,
            class_weights=chosen.class_weights,
            seed=settings.seed,
        ),
        progress,
    )


def _save(head: Head, base_folder: Path, folder: Path) -> Path:
    """Write the head with the digests of its base, aside and renamed."""
    from components.files import place_folder
    from components.models.fingerprint import fingerprint, write_binding
    from components.models.head import save_head

    aside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    save_head(head, aside)
    write_binding(aside, fingerprint(base_folder))
    place_folder(aside, folder)
    return folder


def _check_saved(head: Head, base_folder: Path, folder: Path, features: Tensor, untrained: Tensor) -> float:
    """Load what was saved and compare its outputs on the training rows; return what training changed at most."""
    import torch

    from components.models.base_config import read_config
    from components.models.fingerprint import check_binding
    from components.models.head import load_head

    check_binding(folder, base_folder)
    loaded = load_head(folder, read_config(base_folder))
    with torch.no_grad():
        in_memory, saved = head.outputs(features), loaded.outputs(features)
    difference = float((saved - in_memory).abs().max())
    allowed = OUTPUT_TOLERANCE * max(1.0, float(in_memory.abs().max()))
    if loaded.config != head.config or not difference <= allowed:
        raise TunewrightError(
            f"the saved head gives other outputs than the trained one: largest difference {difference:.3g}",
            allowed=f"at most {allowed:.3g}",
            next_step="run again; if it stays, report it with the recipe",
        )
    change = float((in_memory - untrained).abs().max())
    if change < LEAST_CHANGE:
        raise TunewrightError(
            "training changed no output: it had no effect",
            next_step="check finetune.learning_rate, and that the features differ from row to row",
        )
    return change


def _parameters(base_folder: Path) -> int:
    """Count the base's parameters by its files' headers: the base itself may not have been needed."""
    from math import prod

    from safetensors import safe_open

    count = 0
    for path in sorted(base_folder.glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            count += sum(prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return count
