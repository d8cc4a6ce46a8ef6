"""A job: one recipe on this machine, with the folders, rows and base that its steps share. Made once, at the door."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.data.rows import Row, read_rows
from components.data.selection import sample, sample_subsets, select_subsets
from components.errors import InputError
from components.models.fingerprint import Fingerprint, fingerprint
from components.models.sources import BaseSource, locate_base
from components.recipe import Recipe, ResolvedRecipe
from flows.step_store import StepStore

if TYPE_CHECKING:
    from components.decision.context import ContextSource

__all__ = ["Job", "open_job"]


@dataclass(frozen=True)
class Job:
    """What every step of a run reads.

    Attributes:
        resolved: The recipe with the origin of its values.
        repo: Folder that the data paths are relative to: the nearest one above the recipe with dvc.yaml, else its own.
        home: State folder.
        base: The base model's folder, licence and origin.
        binding: The base's fingerprint, tokenizer and template digests.
    """

    resolved: ResolvedRecipe
    repo: Path
    home: Path
    base: BaseSource
    binding: Fingerprint

    @property
    def recipe(self) -> Recipe:
        """The recipe's values."""
        return self.resolved.recipe

    @property
    def base_name(self) -> str:
        """The name that the base is registered under: the last part of a path or hub id."""
        return _last_part(self.recipe.base)

    @cached_property
    def store(self) -> StepStore:
        """Results of earlier steps."""
        return StepStore(self.home / "steps")

    @cached_property
    def train_rows(self) -> list[Row]:
        """The training rows of the recipe's subsets."""
        return self._rows("train", self.recipe.data.train_subsets)

    @cached_property
    def dev_rows(self) -> list[Row]:
        """The dev rows of the subset that the gate reads, or of those that are scored."""
        gated = self.recipe.gate.subset
        return self._rows("dev", (gated,) if gated else self.recipe.data.test_subsets)

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
    def test_rows(self) -> list[Row]:
        """The held-out rows that are scored."""
        rows = self._rows("test", self.recipe.data.test_subsets)
        path = self.repo / self.recipe.data.test
        chosen = sample_subsets(rows, self.recipe.evaluation.test_rows, self.recipe.seed, path)
        # the gate's subset must be among what is scored
        select_subsets(chosen, [self.recipe.gate.subset] if self.recipe.gate.subset else [], path)
        return chosen

    @cached_property
    def written_prompt(self) -> str | None:
        """The prompt written for the task: the recipe's text, or the file that it names."""
        named = self.recipe.decision.prompt
        if named is None or "\n" in named or not named.strip().endswith((".md", ".txt")):
            return named
        path = self.repo / named.strip()
        try:
            return path.read_text(encoding="utf-8").strip()
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

    def check_rows(self) -> None:
        """Read the splits that are on disk already, so that what is wrong in them is told before anything is written.

        Raises:
            InputError: A file that can't be used, or a subset that no row has.
        """
        data = self.recipe.data
        for split, path in (("train_rows", data.train), ("dev_rows", data.dev), ("test_rows", data.test)):
            # a stage of dvc.yaml may still bring a file that is missing
            if (self.repo / path).exists() or not (self.repo / "dvc.yaml").exists():
                getattr(self, split)
        _ = self.written_prompt
        if data.corpus and ((self.repo / data.corpus).exists() or not (self.repo / "dvc.yaml").exists()):
            _ = self.context

    @property
    def data_files(self) -> list[Path]:
        """The files that the run reads, relative to the repository."""
        data = self.recipe.data
        # a corpus that a stage makes is one file, and may be missing before the stage has run
        corpus = data.corpus and (self.repo / data.corpus).is_dir()
        files = [Path(p) for p in (data.train, data.dev, data.test, data.assets, None if corpus else data.corpus) if p]
        return [*files, *(self.corpus_files if corpus else ())]

    @property
    def metric_options(self) -> dict[str, Any]:
        """The metric's options; one that names the data's assets gets their absolute path."""
        assets = self.recipe.data.assets
        options = self.recipe.task.metric_options
        return {k: str(self.repo / v) if assets and v == assets else v for k, v in options.items()}

    def _rows(self, split: str, subsets: tuple[str, ...]) -> list[Row]:
        path = self.repo / getattr(self.recipe.data, split)
        found = read_rows(path)
        for row in found:
            for key in ("subset", "database"):
                if not isinstance(row.metadata.get(key, ""), str):
                    raise InputError(
                        f"{path}, line {row.line}: metadata.{key} is {row.metadata[key]!r}",
                        allowed="text",
                        next_step="correct the row",
                    )
        rows = select_subsets(found, subsets, path)
        if not rows:
            raise InputError(f"{path} has no rows", next_step=f"check data.{split} in the recipe")
        return rows


def open_job(resolved: ResolvedRecipe, home: Path) -> Job:
    """Find the base and the folders of a recipe.

    Args:
        resolved: The recipe.
        home: State folder; made when missing.

    Returns:
        The job.

    Raises:
        InputError: An unknown base, metric or suite, an unsafe base folder, a base without a chat template, or a state
            folder that can't be written.
    """
    from components.evaluation.metrics import check_metric
    from components.evaluation.suites import known_suites

    recipe = resolved.recipe
    check_metric(recipe.task.metric, recipe.task.metric_options)
    for suite in recipe.evaluation.suites:
        if suite not in known_suites():
            raise InputError(
                f"unknown suite {suite!r}", allowed=", ".join(known_suites()), next_step="change evaluation.suites"
            )
    if _last_part(recipe.base) == recipe.name:
        raise InputError(
            f"the recipe's name {recipe.name!r} is the base's own", next_step="give the tuned model a name of its own"
        )
    base = locate_base(recipe.base)
    _check_writable(home)
    return Job(resolved, _repository(resolved.path), home, base, fingerprint(base.folder))


def _last_part(base: str) -> str:
    return base.rstrip("/").rpartition("/")[2]


def _check_writable(home: Path) -> None:
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise InputError(
            f"cannot write {home}: {existing} is not a folder that this user may write",
            allowed="a folder that this user may write",
            next_step="choose another with --home or $TUNEWRIGHT_HOME",
        )


def _repository(recipe: Path) -> Path:
    for folder in recipe.resolve().parents:
        if (folder / "dvc.yaml").exists():
            return folder
    return recipe.resolve().parent
