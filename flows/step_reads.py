"""What the steps' content keys are made of: all that a model, a task, a prompt and scored rows depend on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from components.errors import TunewrightError
from components.files import digest_of
from flows.job import Job
from flows.long_context import task_scaling
from flows.step_store import library_versions, source_digest

__all__ = ["file_digest", "model_reads", "prompting_reads", "scored_reads", "split_digest", "task_reads"]


def model_reads(job: Job) -> dict[str, Any]:
    """Return what everything that runs the base depends on."""
    computing = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
    return {
        "base": job.binding.base,
        "tokenizer": job.binding.tokenizer,
        "template": job.binding.template,
        "libraries": {name: library_versions()[name] for name in computing},
        "model code": source_digest(("components/models",)),
    }


def task_reads(job: Job, data: dict[str, Any]) -> dict[str, Any]:
    """Return what every measurement of the task depends on."""
    recipe = job.recipe
    return {
        **model_reads(job),
        "task": [job.metric, recipe.finetune.max_tokens] if job.on_text else recipe.task.model_dump(mode="json"),
        "assets": file_digest(job, data, recipe.data.assets) if recipe.data.assets else None,
        "seed": recipe.seed,
        "rope scaling": str(task_scaling(job)),
    }


def prompting_reads(job: Job, data: dict[str, Any]) -> dict[str, Any]:
    """Return what prompts are made of besides rows: what was written, and the corpus.

    The names of a folder's files are a part of it: passages are called by them, and rows name passages.
    """
    corpus = job.recipe.data.corpus
    folder = job.repo / corpus if corpus is not None else job.repo
    named = folder.is_dir()
    return {
        "written": job.written_prompt,
        "corpus": [
            [
                Path(os.path.relpath(job.repo / path, folder)).as_posix() if named else None,
                file_digest(job, data, str(path)),
            ]
            for path in job.corpus_files
        ],
        "passages": job.recipe.decision.passages if job.corpus_files else None,
    }


def scored_reads(job: Job, data: dict[str, Any]) -> list[Any]:
    """Return what decides which held-out rows are scored."""
    recipe = job.recipe
    rows = [recipe.evaluation.model_dump(mode="json")["test_rows"], recipe.seed]
    return [split_digest(job, data, "test"), list(recipe.data.test_subsets), rows]


def file_digest(job: Job, data: dict[str, Any], path: str) -> str:
    """Return the digest of a materialised file that the recipe names."""
    from flows.data_version import relative_path

    repo = job.repo.resolve()
    name = relative_path(repo, Path(path))
    for file in data["files"]:
        if file["path"] == name:
            return str(file["sha256"])
    raise TunewrightError(f"{path} is not among the materialised files")


def split_digest(job: Job, data: dict[str, Any], split: str) -> str:
    """Return the digest of what a split's rows are read from and dealt by."""
    if not job.on_text:
        return file_digest(job, data, getattr(job.recipe.data, split))
    files = [[path.as_posix(), file_digest(job, data, str(path))] for path in job.text_files]
    return digest_of([split, files, job.recipe.data.text_held_out, job.recipe.seed])
