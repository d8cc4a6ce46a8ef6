"""The sections of a recipe: every key with its kind, default and meaning. `recipe.py` reads them from a file.

`finetune` has a module of its own (`recipe_finetune.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, Field, NonNegativeInt, field_validator, model_validator

from components.errors import InputError
from components.memory.hardware import parse_size
from components.recipe_finetune import FinetuneSection
from components.recipe_section import Fraction, Section

__all__ = ["MemorySection", "Recipe", "SweptValues", "TrafficSection"]

Candidate = Literal[
    "zero-shot",
    "prompt",
    "few-shot",
    "few-shot-retrieved",
    "rag",
    "rag-few-shot",
    "oracle",
    "oracle-few-shot",
    "champion",
]
TASK_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
NEED_CORPUS = ("rag", "rag-few-shot", "oracle", "oracle-few-shot")


def _size_text(value: Any) -> Any:
    """Take a number for bytes; what is no number is for the size's own validator."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


Size = Annotated[
    str,
    BeforeValidator(_size_text),
    Field(json_schema_extra={
        "type": ["string", "number"],
        "x-allowed": "auto, a number of bytes, or a size with its unit, such as 8GiB",
    }),
]  # fmt: skip


def _described(section: type[Section], key: str) -> str:
    return str(section.model_fields[key].description).partition(";")[0]


class TaskData(Section):
    """A task among several."""

    train: str = Field(min_length=1, description="JSONL of training rows")
    dev: str = Field(min_length=1, description="JSONL of dev rows")
    test: str = Field(min_length=1, description="JSONL of held-out rows")
    weight: float = Field(1.0, gt=0, description="its part of the tokens, against the others' weights")
    metric: str | None = Field(None, description="its metric; none: task.metric")
    metric_options: Mapping[str, Any] = Field({}, description="options of its metric")
    max_new_tokens: int | None = Field(None, ge=1, description="its longest answer; none: task.max_new_tokens")


class DataSection(Section):
    """Which rows. Paths are relative to the folder that holds dvc.yaml, or else to the recipe."""

    train: str = Field("", description="JSONL of training rows; with objective text none, here and in dev and test")
    dev: str = Field(
        "", description="JSONL of rows for the decision and the dev loss; no group of it is in train or test"
    )
    test: str = Field("", description="JSONL of held-out rows for the score that the gate reads")
    text: str | None = Field(
        None, description="raw text for objective text: JSONL of {text}, or a folder of .md and .txt files"
    )
    text_held_out: float = Field(
        0.1, gt=0, lt=0.5, description="part of the documents of data.text that dev and test get each, by the seed"
    )
    tasks: Mapping[str, TaskData] = Field(
        {},
        description="several tasks for `tunewright multitask`, in the place of train, dev and test: name to {train, "
        "dev, test, weight, metric, metric_options, max_new_tokens}",
        json_schema_extra={"x-allowed": "a mapping of names, each to {train, dev, test} and maybe {weight, metric, "
                           "metric_options, max_new_tokens}"},
    )  # fmt: skip
    replay: float = Field(
        0.1, ge=0, lt=1, description="part of a later task's tokens for those before it, where they are learned in turn"
    )
    assets: str | None = Field(None, description="file that the metric reads, named again in its options")
    corpus: str | None = Field(
        None, description="passages that hold the facts: JSONL of {id, text}, or a folder of .md and .txt files"
    )
    train_subsets: tuple[str, ...] = Field((), description="train on these values of metadata.subset only; empty: all")
    test_subsets: tuple[str, ...] = Field((), description="score these values of metadata.subset only; empty: all")
    licence: str = Field("unknown", description="licence of the data, for the model card")


class TaskSection(Section):
    """What a right answer is."""

    metric: str = Field("exact_match", description="name of a metric module, such as execution_match for SQL")
    metric_options: Mapping[str, Any] = Field({}, description="options of the metric")
    max_new_tokens: int = Field(64, ge=1, description="longest answer in tokens")


class DecisionSection(Section):
    """How the question "should we finetune?" is measured."""

    dev_rows: int = Field(48, ge=4, description="dev rows that each candidate answers")
    candidates: tuple[Candidate, ...] = Field(
        (), description="what is tried; empty: all that the recipe and the rows have means for"
    )
    prompt: str | None = Field(
        None, min_length=1, description="a prompt written for the task, or the path of a .md or .txt file that holds it"
    )
    few_shot: int = Field(3, ge=0, description="examples in a few-shot prompt")
    passages: int = Field(3, ge=1, description="passages that retrieval puts into a prompt")
    target_score: float = Field(0.9, gt=0, le=1, description="a prompt whose interval lies above this is good enough")
    min_train_rows: int = Field(100, ge=1, description="fewer training rows than this: more data first")
    probe: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (), description="fractions of the training rows that a short finetune is tried on; empty: none"
    )
    override_reason: str | None = Field(None, description="finetune whatever the verdict; kept in lineage")
    bases: tuple[str, ...] = Field((), description="bases to compare on the same dev rows; empty: none")

    @model_validator(mode="after")
    def _candidates_have_what_they_need(self) -> DecisionSection:
        if self.few_shot == 0 and any("few-shot" in name for name in self.candidates):
            raise ValueError("few_shot is 0 but candidates has few-shot prompts: raise few_shot, or drop them")
        if "prompt" in self.candidates and not self.prompt:
            raise ValueError("candidates has 'prompt' but there is no decision.prompt: write one, or drop it")
        asked = [name for name in self.candidates if name != "champion"]
        if asked and all(name in NEED_CORPUS for name in asked):
            simple = ", ".join(name for name in get_args(Candidate) if name not in NEED_CORPUS and name != "champion")
            raise ValueError(f"candidates has no prompt without passages to compare with: add one of {simple}")
        return self


class TrafficSection(Section):
    """How much is asked, and what it costs: behind the decision's money. Prices are in one currency, before taxes."""

    currency: str = Field(
        "USD",
        pattern=r"^[A-Z]{3}$",
        description="what the prices are in, for display",
        json_schema_extra={"x-allowed": "three capital letters, such as USD"},
    )
    requests_per_month: int = Field(100_000, ge=1, description="requests that the task gets in a month")
    price_per_million_input_tokens: float = Field(0.15, ge=0, description="of the prompted model")
    price_per_million_cached_input_tokens: float = Field(
        0.075, ge=0, description="of input tokens whose prefix the provider has cached"
    )
    price_per_million_output_tokens: float = Field(0.60, ge=0, description="of the prompted model")
    cache_minimum_tokens: int = Field(1024, ge=1, description="shortest prefix that the provider caches")
    tuned_price_per_million_input_tokens: float = Field(
        0.0, ge=0, description="of the finetuned model where it is paid by token; 0: hosted by the hour"
    )
    tuned_price_per_million_output_tokens: float = Field(0.0, ge=0, description="the same for output")
    hosting_price_per_hour: float = Field(0.80, ge=0, description="of one machine that serves the finetuned model")
    hosting_hours_per_month: float = Field(
        730.0, ge=0, le=744, description="hours that it is up, 744 at most; 730 is always"
    )
    hosting_requests_per_hour: int | None = Field(
        None, ge=1, description="what one machine answers; beyond that another is paid; none: one is enough"
    )
    training_cost: float = Field(20.0, ge=0, description="of finetuning once: compute, data, people")
    training_months: float = Field(12.0, gt=0, description="months over which that is spread, until it is done again")

    @model_validator(mode="after")
    def _a_machine_answers(self) -> TrafficSection:
        if (
            self.hosting_requests_per_hour is not None
            and self.hosting_requests_per_hour * self.hosting_hours_per_month < 1
        ):
            raise ValueError("a machine that is up for hosting_hours_per_month 0 answers no request")
        return self


class MemorySection(Section):
    """What the run may use."""

    budget: Size = Field(
        "auto", description="'auto' (cgroup limit or free memory), a number of bytes, or a size such as 8GiB"
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="of frozen weights and of computation; 'auto' measures float32 and bfloat16 on this machine"
    )
    threads: int = Field(0, ge=0, description="CPU threads; 0: as many as this process may use")
    price_per_hour: float | None = Field(
        None, ge=0, description="price of the device for an hour, in any currency: the plan says what a run will cost"
    )
    gpu_prices: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict,
        description="prices for an hour by the GPU's name, such as {h100-80: 3.5}: what a larger one would cost",
    )

    @field_validator("budget")
    @classmethod
    def _budget_is_a_size(cls, value: str) -> str:
        if value != "auto":
            try:
                parse_size(value)
            except InputError as error:
                raise ValueError(f"{error.problem}; allowed: auto, or {error.allowed}") from error
        return value


class SweptValues(Section):
    """What a sweep may set a key to: a range, or some values."""

    low: float | None = Field(None, description="smallest value of a range")
    high: float | None = Field(None, description="largest value of a range")
    log: bool = Field(False, description="equal factors are equally likely, as for learning rates")
    step: float | None = Field(None, gt=0, description="distance of a range's values; 1 for whole numbers")
    choices: tuple[Any, ...] | None = Field(None, description="the values, in place of a range")


class SweepSection(Section):
    """What `tunewright sweep` tries: which values, how many trials, and how the next one is chosen."""

    parameters: dict[str, SweptValues] = Field(
        default_factory=dict,
        description="recipe keys, `base` or finetune.*, each with its range or choices",
        json_schema_extra={"x-allowed": "a mapping of recipe keys, each to {low, high}, {low, high, log: true}, "
                           "{low, high, step} or {choices: [one, two]}"},
    )  # fmt: skip
    trials: int = Field(20, ge=1, le=10_000, description="trials in all, those of earlier calls included")
    sampler: Literal["tpe", "random"] = Field("tpe", description="how the next trial's values are chosen")
    pruner: Literal["median", "none"] = Field(
        "median", description="'median' ends a trial whose dev measurement is worse than the median of those before it"
    )
    objective: Literal["dev_loss", "dev_score"] = Field(
        "dev_loss", description="what makes a trial better: a smaller dev loss, or a higher score of dev answers"
    )
    seconds: float | None = Field(None, gt=0, description="begin no further trial after so many seconds of trials")


class EvaluationSection(Section):
    """What is measured after training, on the base and on the tuned model."""

    test_rows: NonNegativeInt | Mapping[str, NonNegativeInt] = Field(
        0, description="test rows, sampled by the seed; a number, or one for each subset; 0: all"
    )
    batch_size: int = Field(24, ge=1, description="answers generated at once")
    suites: tuple[str, ...] = Field((), description="general suites that show the alignment tax")
    suite_rows: int = Field(100, ge=10, description="rows of each suite, sampled by the seed")


class GateSection(Section):
    """What must be proven before promotion. It is checked inside the registry's promotion transaction."""

    min_task_delta: float = Field(0.0, ge=-1, le=1, description="tuned minus the best prompting baseline")
    task_interval_excludes_zero: bool = Field(True, description="the paired interval of that delta lies above zero")
    max_suite_drop: Fraction = Field(0.1, description="no suite's paired interval may reach below minus this")
    min_rows: int = Field(
        30, ge=1, description="test rows behind the task score; no more than evaluation.test_rows draws"
    )
    subset: str | None = Field(None, description="the task score is that of this subset; the others are reported apart")
    required_approvals: int = Field(
        0, ge=0, le=100, description="people who have to approve that the alias takes the version; 0: none"
    )
    required_signature: str | None = Field(
        None,
        pattern=r"^[0-9a-f]{64}$",
        description="id of the key without whose signature the version isn't served, not in the run either",
        json_schema_extra={"x-allowed": "the 64 hex digits of a key's id, or nothing"},
    )


class ReleaseSection(Section):
    """Where a proven version goes."""

    alias: str = Field(
        "champion",
        pattern=r"^[a-z][a-z0-9_-]{0,62}$",
        json_schema_extra={"x-allowed": "a lower-case letter, then letters, digits, '_' and '-', at most 63 in all"},
    )
    bundle: bool = Field(True, description="package the promoted version with BentoML")
    try_question: bool = Field(True, description="serve the bundle, ask one held-out question, stop")


class Recipe(Section):
    """What a project wants; see the sections."""

    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$",
        description="the registered model's name",
        json_schema_extra={"x-allowed": "lower-case letters, digits, '.', '_' and '-', at most 63, none of "
                           "the signs first"},
    )  # fmt: skip
    base: str = Field(
        min_length=1,
        description="catalogue name, local folder, hub id org/name, or version:NAME@alias of the own registry",
        json_schema_extra={
            "x-allowed": "a catalogue name, a local folder, a hub id org/name, or version: and a REF of the registry"
        },
    )
    seed: int = Field(17, ge=0, le=2**31 - 1)
    data: DataSection
    task: TaskSection = TaskSection()
    decision: DecisionSection = DecisionSection()
    traffic: TrafficSection = TrafficSection()
    memory: MemorySection = MemorySection()
    finetune: FinetuneSection = FinetuneSection()
    sweep: SweepSection = SweepSection()
    evaluation: EvaluationSection = EvaluationSection()
    gate: GateSection = GateSection()
    release: ReleaseSection = ReleaseSection()

    @model_validator(mode="after")
    def _sweep_names_what_can_be_swept(self) -> Recipe:
        from components.finetuning.search_space import check_parameters

        check_parameters(self.sweep.parameters)
        return self

    @model_validator(mode="after")
    def _the_objective_has_its_data(self) -> Recipe:
        text = self.finetune.objective == "text"
        if self.data.tasks:
            self._check_tasks()
            return self
        for split in ("train", "dev", "test"):
            if not text and not getattr(self.data, split):
                raise ValueError(f"data.{split} is missing; it is {_described(DataSection, split)}")
            if text and getattr(self.data, split):
                raise ValueError(f"data.{split} is for objective answers; with objective text data.text is split")
        if text != (self.data.text is not None):
            raise ValueError("finetune.objective text and data.text belong together: set both, or neither")
        if not text:
            return self
        without = {
            "decision.candidates": set(self.decision.candidates) - {"zero-shot"},
            "decision.prompt": self.decision.prompt,
            "decision.probe": self.decision.probe,
            "data.corpus": self.data.corpus,
            "data.assets": self.data.assets,
            "data.train_subsets": self.data.train_subsets,
            "data.test_subsets": self.data.test_subsets,
            "gate.subset": self.gate.subset,
            "finetune.dev_metric_rows": self.finetune.dev_metric_rows,
            "finetune.method features": self.finetune.method == "features",
            "task": self.task.model_fields_set,
        }
        for key, value in without.items():
            if value:
                raise ValueError(
                    f"{key} is for tasks with questions and answers; objective text has none: leave it out"
                )
        return self

    def _check_tasks(self) -> None:
        data = self.data
        beside = [
            key for key in ("train", "dev", "test", "text", "train_subsets", "test_subsets") if getattr(data, key)
        ]
        if beside:
            raise ValueError(f"data.{beside[0]} can't stand beside data.tasks, which have rows of their own")
        apart = {
            "gate.subset": self.gate.subset,
            "finetune.objective text": self.finetune.objective == "text",
            "finetune.method features": self.finetune.method == "features",
        }
        for key, value in apart.items():
            if value:
                raise ValueError(f"{key} can't stand beside data.tasks")
        if len(data.tasks) < 2:
            raise ValueError(
                "data.tasks has one task: name two or more, or put its files into data.train, dev and test"
            )
        odd = [name for name in data.tasks if not TASK_NAME.fullmatch(name)]
        if odd:
            raise ValueError(f"data.tasks: the name {odd[0]!r} isn't of lower-case letters, digits, '.', '_' and '-'")

    @model_validator(mode="after")
    def _passages_need_a_corpus(self) -> Recipe:
        needing = [name for name in self.decision.candidates if name in NEED_CORPUS]
        if needing and not self.data.corpus:
            raise ValueError(f"decision.candidates has {needing[0]!r} but there is no data.corpus")
        return self
