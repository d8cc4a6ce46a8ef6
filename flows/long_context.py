"""Whether the base answers a recipe's task under the recipe's RoPE scaling. Asked where the base itself is measured.

A scaled base is worse at short prompts, and would make training look better than it is. So the base is measured as it
is, and scaled only where the task's own prompts don't fit it otherwise.
"""

from __future__ import annotations

from components.models.rope import RopeScaling, cached_positions
from flows.job import Job
from flows.run_settings import rope_scaling

__all__ = ["task_scaling"]


def task_scaling(job: Job) -> RopeScaling | None:
    """Return the scaling under which the base answers dev and test rows: the recipe's where a plain prompt with its
    answer is longer than the base's positions, else none."""
    scaling = rope_scaling(job)
    if scaling is None:
        return None
    from components.data.chat import prompt_ids
    from components.models.base_config import read_config
    from components.models.load import load_tokenizer

    positions = cached_positions(read_config(job.base.folder))
    if job.on_text:
        return scaling if positions is not None and job.recipe.finetune.max_tokens > positions else None
    tokenizer = load_tokenizer(job.base.folder)
    rows = (*job.decision_rows, *job.test_rows)
    longest = max(len(prompt_ids(tokenizer, row.prompt)) for row in rows) + job.recipe.task.max_new_tokens
    return scaling if positions is not None and longest > positions else None
