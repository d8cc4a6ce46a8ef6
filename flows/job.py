"""A job: one recipe on this machine, with the folders, rows and base that its steps share. Made once, at the door."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.rows import Row, read_rows
from components.data.selection import sample, sample_subsets, select_subsets
from components.data.texts import SPLITS, read_texts, split_texts, text_files
from components.errors import InputError
from components.evaluation.perplexity import TEXT_METRIC
from components.files import digest_of
from components.finetuning.distill import check_teacher
from components.models.fingerprint import Fingerprint, fingerprint
from components.models.sources import BaseSource, locate_base
from components.recipe import ResolvedRecipe
from components.recipe_sections import Recipe
from flows.data_version import can_be_brought
from flows.head_checks import check_head
from flows.state_folder import make_state_folder
from flows.step_store import StepStore
from flows.version_base import VersionBase, locate_version, version_name

if TYPE_CHECKING:
    from components.decision.context import ContextSource
    from components.decision.situation import Situation
    from components.decision.tactics import Tactics

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """What every step of a run reads.

    Attributes:
        resolved: The recipe with the origin of its values.
        repo: Folder that the data paths are relative to: the nearest one above the recipe with dvc.yaml, else its own.
        home: State folder.
    """

    resolved: ResolvedRecipe
    repo: Path
    home: Path

    @property
    def recipe(self) -> Recipe:
        """The recipe's values."""
        return self.resolved.recipe

    @property
    def base_name(self) -> str:
        """The name that the base is registered under: the last part of a path or hub id, or a version's own name."""
        return version_name(self.recipe.base) or _last_part(self.recipe.base)

    @cached_property
    def version_base(self) -> VersionBase | None:
        """The version that is the base, where the recipe names one."""
        return locate_version(self.home, self.recipe.base) if version_name(self.recipe.base) else None

    @cached_property
    def base(self) -> BaseSource:
        """The base model's folder, licence and origin; fetched where it isn't there yet."""
        return self.version_base.source if self.version_base else locate_base(self.recipe.base)

    @cached_property
    def teacher_version(self) -> VersionBase | None:
        """The version that is the teacher, where the recipe names one."""
        named = self.recipe.finetune.teacher
        return locate_version(self.home, named) if named and version_name(named) else None

    @cached_property
    def teacher(self) -> BaseSource | None:
        """The model that is learned from besides the labels; None where there is none."""
        named = self.recipe.finetune.teacher
        if named is None:
            return None
        return self.teacher_version.source if self.teacher_version else locate_base(named)

    @cached_property
    def teacher_fingerprint(self) -> str | None:
        """The teacher's fingerprint, once its tokenizer was found to be the base's."""
        return check_teacher(self.teacher.folder, self.base.folder) if self.teacher else None

    @property
    def on_text(self) -> bool:
        """Whether raw text is learned, which has no questions and answers."""
        return self.recipe.finetune.objective == "text"

    @property
    def metric(self) -> str:
        """The metric of the task score."""
        return TEXT_METRIC if self.on_text else self.recipe.task.metric

    @cached_property
    def texts(self) -> dict[str, list[Row]]:
        """The documents of raw text by split."""
        data, path = self.recipe.data, self.split_path("train")
        return split_texts(read_texts(path), data.text_held_out, self.recipe.seed, path)

    def split_path(self, split: str) -> Path:
        """Return where a split's rows are read from: a file of their own, or all of the raw text."""
        return self.repo / (self.recipe.data.text or getattr(self.recipe.data, split))

    @cached_property
    def binding(self) -> Fingerprint:
        """The base's fingerprint, tokenizer and template digests."""
        return fingerprint(self.base.folder)

    @cached_property
    def store(self) -> StepStore:
        """Results of earlier steps; the state folder is made with it."""
        make_state_folder(self.home)
        return StepStore(self.home / "steps")

    @cached_property
    def train_rows(self) -> list[Row]:
        """The training rows of the recipe's subsets."""
        return self._rows("train", self.recipe.data.train_subsets, "data.train_subsets")

    @cached_property
    def dev_rows(self) -> list[Row]:
        """The dev rows of the subset that the gate reads, or of those that are scored."""
        gated = self.recipe.gate.subset
        if gated:
            return self._rows("dev", (gated,), "gate.subset")
        return self._rows("dev", self.recipe.data.test_subsets, "data.test_subsets")

    @cached_property
    def decision_rows(self) -> list[Row]:
        """The sample of dev rows that each prompting candidate answers."""
        return sample(self.dev_rows, self.recipe.decision.dev_rows, self.recipe.seed)

    @cached_property
    def dev_loss_rows(self) -> list[Row]:
        """The sample of dev rows behind the dev loss."""
        count = self.recipe.finetune.dev_loss_rows
        return sample(self.dev_rows, count, self.recipe.seed) if count else []

    @cached_property
    def dev_metric_rows(self) -> list[Row]:
        """The sample of dev rows that are answered and scored in training."""
        count = self.recipe.finetune.dev_metric_rows
        return sample(self.dev_rows, count, self.recipe.seed) if count else []

    @cached_property
    def held_out_rows(self) -> list[Row]:
        """All held-out rows of the recipe's subsets, scored or not."""
        return self._rows("test", self.recipe.data.test_subsets, "data.test_subsets")

    @cached_property
    def test_rows(self) -> list[Row]:
        """The held-out rows that are scored."""
        path = self.split_path("test")
        chosen = sample_subsets(self.held_out_rows, self.recipe.evaluation.test_rows, self.recipe.seed, path)
        self._check_gate(chosen, path)
        return chosen

    @cached_property
    def written_prompt(self) -> str | None:
        """The prompt written for the task: the recipe's text, or the file that it names."""
        named = self.recipe.decision.prompt
        if named is None:
            return None
        if "\n" in named or not named.strip().endswith((".md", ".txt")):
            return _not_empty(named, "decision.prompt")
        path = self.repo / named.strip()
        try:
            return _not_empty(path.read_text(encoding="utf-8").strip(), f"the prompt {path}")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"cannot read the prompt {path}: {error}",
                allowed="a text, or the path of a UTF-8 .md or .txt file",
                next_step="check decision.prompt in the recipe",
            ) from error

    @cached_property
    def corpus_files(self) -> tuple[Path, ...]:
        """The files of the project's corpus, relative to the repository; none where it has no corpus."""
        from components.decision.corpus import corpus_files

        corpus = self.recipe.data.corpus
        if corpus is None:
            return ()
        return tuple(Path(os.path.relpath(path, self.repo)) for path in corpus_files(self.repo / corpus))

    @cached_property
    def context(self) -> ContextSource | None:
        """Where prompts take passages from; None where the project has no corpus."""
        from components.decision.context import ContextSource
        from components.decision.corpus import read_corpus

        corpus = self.recipe.data.corpus
        if corpus is None:
            return None
        return ContextSource(read_corpus(self.repo / corpus), self.recipe.decision.passages)

    @property
    def test_rows_digest(self) -> str:
        """Which rows are scored, in their order: kept scores are one number a row."""
        return digest_of([row.to_dict() for row in self.test_rows])

    @cached_property
    def situation(self) -> Situation:
        """What the rules of thumb look at: data, base and memory."""
        from components.decision.situation import read_situation

        return read_situation(self.base.folder, self.train_rows, self.recipe.memory.budget, text=self.on_text)

    @cached_property
    def tactics(self) -> Tactics:
        """The finetuning settings in use: the recipe's, and what the rules chose where it says 'auto'."""
        return self.tactics_for(self.recipe.finetune.method)

    def tactics_for(self, method: str, *, whatever: bool = False) -> Tactics:
        """Return the settings for a method.

        Args:
            method: Its name; where the recipe leaves it to the memory plan, the one that was planned.
            whatever: Whatever the recipe's own method is; a learning rate that it sets for that one is left out, and so
                are a head's epochs, which are passes over kept features.
        """
        from components.decision.tactics import choose_tactics

        section = self.recipe.finetune.model_dump()
        if whatever and section["method"] != method:
            passes = {"epochs": "auto"} if section["method"] == "features" else {}
            section |= {"method": method, "learning_rate": "auto", **passes}
        if section["method"] == "auto":
            section["method"] = method
        sources = {key.removeprefix("finetune."): source for key, source in self.resolved.sources.items()}
        return choose_tactics(self.situation, section, sources)

    def check_rows(self) -> None:
        """Read what is on disk already, so that what is wrong in it is told before anything costly is done.

        Raises:
            InputError: A file that is missing and that no stage brings, or that can't be used; a subset that no row
                has; fewer test rows than the gate wants; answers that a head can't learn, where one is asked for.
        """
        data = self.recipe.data
        for split in SPLITS:
            path = self.split_path(split)
            if path.exists() or not can_be_brought(self.repo, path):
                getattr(self, f"{split}_rows")
        if all(self.split_path(split).exists() for split in SPLITS):
            check_head(self)
        _ = self.written_prompt
        if data.corpus and ((self.repo / data.corpus).exists() or not can_be_brought(self.repo, Path(data.corpus))):
            _ = self.context
        if data.assets and not (self.repo / data.assets).exists() and not can_be_brought(self.repo, Path(data.assets)):
            raise InputError(
                f"no data file {self.repo / data.assets}",
                allowed="a file, or an output of a stage in dvc.yaml",
                next_step="check data.assets in the recipe",
            )

    def scored_rows(self, split: str) -> list[Row]:
        """Return the rows of dev or test that are answered and scored."""
        return self.dev_rows if split == "dev" else self.test_rows

    def forget_rows(self) -> None:
        """Drop what was read for checking: what is materialised afterwards may hold other rows and passages."""
        for name in (
            "texts",
            "train_rows",
            "dev_rows",
            "held_out_rows",
            "test_rows",
            "decision_rows",
            "dev_loss_rows",
            "dev_metric_rows",
            "corpus_files",
            "context",
            "situation",
            "tactics",
        ):
            self.__dict__.pop(name, None)

    @property
    def data_files(self) -> list[Path]:
        """The files that the run reads, relative to the repository."""
        data = self.recipe.data
        # a corpus that a stage makes is one file, and may be missing before the stage has run
        corpus = data.corpus and (self.repo / data.corpus).is_dir()
        files = [Path(p) for p in (data.train, data.dev, data.test, data.assets, None if corpus else data.corpus) if p]
        return [*files, *self.text_files, *(self.corpus_files if corpus else ())]

    @property
    def text_files(self) -> list[Path]:
        """The files of the raw text, relative to the repository; one that a stage makes may be missing yet."""
        text = self.recipe.data.text
        if text is None:
            return []
        if not (self.repo / text).is_dir():
            return [Path(text)]
        return [Path(os.path.relpath(path, self.repo)) for path in text_files(self.repo / text)]

    @property
    def metric_options(self) -> dict[str, Any]:
        """The metric's options; one that names the data's assets gets their absolute path."""
        assets = self.recipe.data.assets
        options = self.recipe.task.metric_options
        return {k: str(self.repo / v) if assets and v == assets else v for k, v in options.items()}

    def _check_gate(self, chosen: list[Row], path: Path) -> None:
        """Refuse a gate that these rows can't satisfy, whatever the model scores on them."""
        gate = self.recipe.gate
        rows = chosen
        if gate.subset:
            rows = [row for row in chosen if row.metadata.get("subset") == gate.subset]
            if not rows:
                found = sorted({str(row.metadata["subset"]) for row in chosen if "subset" in row.metadata})
                raise InputError(
                    f"gate.subset is {gate.subset!r}, which none of the {len(chosen)} test rows to be scored has",
                    allowed=", ".join(found) or "nothing: no test row names a subset",
                    next_step="set gate.subset to one of these, or name its rows in data.test_subsets and "
                    f"evaluation.test_rows; `tunewright data stats {path}` counts the subsets",
                )
        if len(rows) < gate.min_rows:
            of = f" of gate.subset {gate.subset!r}" if gate.subset else ""
            raise InputError(
                f"gate.min_rows is {gate.min_rows}, but only {len(rows)} test rows{of} will be scored "
                f"(evaluation.test_rows is {json.dumps(self.recipe.evaluation.model_dump(mode='json')['test_rows'])})",
                allowed=f"gate.min_rows of at most {len(rows)}, or more rows to score",
                next_step="lower gate.min_rows, raise evaluation.test_rows (0: all), or add rows to data.test",
            )

    def _rows(self, split: str, subsets: tuple[str, ...], key: str) -> list[Row]:
        path = self.split_path(split)
        rows = select_subsets(self.texts[split] if self.on_text else read_rows(path), subsets, path, key)
        if not rows:
            raise InputError(f"{path} has no rows", next_step=f"check data.{split} in the recipe")
        return rows


def _not_empty(text: str, what: str) -> str:
    if not text.strip():
        raise InputError(
            f"{what} is empty",
            allowed="a text, or the path of a UTF-8 .md or .txt file",
            next_step="write what the model should be told, or take decision.prompt out of the recipe",
        )
    return text


def _last_part(base: str) -> str:
    return base.rstrip("/").rpartition("/")[2]
