"""`tunewright plan RECIPE` and `plan --base BASE`: from the command's options to a plan of training."""

from __future__ import annotations

import json
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import InputError

if TYPE_CHECKING:
    from components.memory.process import TrainingProcess

__all__ = ["Planned", "of_base", "of_recipe"]


@dataclass(frozen=True)
class Planned:
    """A plan and what it is about.

    Attributes:
        document: The plan's document.
        folder: The base's folder.
        rank: LoRA rank.
        targets: LoRA targets.
        dropout: LoRA's dropout.
    """

    document: dict[str, Any]
    folder: Path
    rank: int
    targets: str
    dropout: float = 0.0


def of_base(base: str, options: dict[str, Any]) -> Planned:
    """Plan for a base by itself.

    Args:
        base: A catalogue name, a folder or an id.
        options: The command's.

    Raises:
        InputError: Values out of range or unknown.
    """
    from components.memory.hardware import parse_size
    from components.memory.plan import make_plan
    from components.memory.workload import uniform_workload
    from components.models.sources import config_folder
    from components.runtime import prepare_process

    size = parse_size(options["budget"]) if options["budget"] else None
    target, price = _target(options), _price(options)
    sequences = options["sequences"]
    if sequences is not None and sequences < 1:
        raise InputError(f"--sequences {sequences}", allowed="1 or more")
    with _training_process(options) as process:
        folder = config_folder(base)
        prepare_process()
        plan = make_plan(
            folder,
            method=options["method"],
            rank=options["rank"],
            targets=options["targets"],
            sequence_tokens=options["sequence_tokens"],
            effective_rows=options["effective_rows"],
            rows_per_sequence=options["rows_per_sequence"],
            budget_bytes=size,
            dtype=options["dtype"],
            optimizer="adamw" if options["optimizer"] == "adam" else options["optimizer"],
            workload=uniform_workload(sequences, options["sequence_tokens"]) if sequences else None,
            **target,
            price_per_hour=price,
            gpu_prices=_gpu_prices(options),
            process=process,
        )
    return Planned(plan.to_dict(), folder, options["rank"], options["targets"])


def of_recipe(recipe: Path, options: dict[str, Any]) -> Planned:
    """Plan for a recipe, as a run would or for other hardware.

    Args:
        recipe: The recipe's file.
        options: The command's.

    Raises:
        InputError: A recipe or values that can't be used.
    """
    from flows.commands.recipe_options import open_recipe

    overrides = options["overrides"]
    if options["budget"]:
        from components.memory.hardware import parse_size

        overrides = (*overrides, f"memory.budget='{parse_size(options['budget'])}'")
    if options["gpu"]:
        from components.memory.gpus import find_gpu

        # the whole card is planned for, whatever the recipe's budget here
        overrides = (*overrides, f"memory.budget='{find_gpu(options['gpu']).memory_bytes}'")
    if (price := _price(options)) is not None:
        overrides = (*overrides, f"memory.price_per_hour={price}")
    if prices := _gpu_prices(options):
        overrides = (*overrides, f"memory.gpu_prices={json.dumps(prices)}")
    with _training_process(options) as process:
        job = open_recipe(recipe, options["profile"], overrides, options["home"])
        from flows import decision_steps, steps
        from flows.observer import TerminalObserver
        from flows.run_settings import processes

        own = job.recipe.finetune.processes
        devices = options["devices"] or (own if own != "auto" else 1)
        # without one of these the plan is the one that a run would train by, and is kept for it
        here = options["gpu"] is None and options["methods"] is None
        alike = here and (options["devices"] is None or devices == processes(job))
        asked = None if alike else _target({**options, "devices": devices})

        observer = TerminalObserver()
        data = steps.data(job, observer)
        decision_steps.say_tactics(job, observer)
        document = steps.plan(job, data, observer, asked, process).document
    return Planned(document, job.base.folder, job.tactics.rank, job.tactics.targets, job.recipe.finetune.dropout)


def _training_process(options: dict[str, Any]) -> AbstractContextManager[TrainingProcess | None]:
    """Start the process that a plan for this machine asks before anything else: it imports while this one does."""
    from components.memory.process import TrainingProcess

    return TrainingProcess() if options["gpu"] is None else nullcontext()


def _target(options: dict[str, Any]) -> dict[str, Any]:
    if options["gpu"] is not None:
        from components.memory.gpus import find_gpu

        find_gpu(options["gpu"])
    target = {"gpu": options["gpu"], "devices": 1 if options["devices"] is None else options["devices"]}
    if options["methods"] is None:
        return target
    methods = tuple(name.strip() for name in options["methods"].split(",") if name.strip())
    if not methods:
        raise InputError("--methods names none", allowed="such as full,lora,qlora")
    return {**target, "methods": methods}


def _price(options: dict[str, Any]) -> float | None:
    price: float | None = options["price_per_hour"]
    if price is not None and not 0 <= price < float("inf"):
        raise InputError(f"--price-per-hour {price}", allowed="0 or more")
    return price


def _gpu_prices(options: dict[str, Any]) -> dict[str, float]:
    from components.memory.gpus import find_gpu

    prices: dict[str, float] = {}
    for text in options["gpu_price"]:
        name, _, price = text.partition("=")
        try:
            prices[find_gpu(name).name] = float(price)
        except ValueError as error:
            raise InputError(f"--gpu-price {text}", allowed="a GPU's name and a price, such as h100-80=3.5") from error
        if not 0 <= prices[name] < float("inf"):
            raise InputError(f"--gpu-price {text}", allowed="a price of 0 or more")
    return prices
