"""What a recipe is refused for at the door: from cheap to dear, in terms of its keys."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import InputError
from components.paths import home
from components.recipe import load_recipe
from flows.open_job import open_job

Project = Callable[..., Path]

# prints what was refused, and which frameworks were loaded to find out
REFUSED = """
import json, sys
from pathlib import Path
from components.errors import InputError
from components.recipe import load_recipe
from flows.open_job import open_job
try:
    open_job(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]))
except InputError as error:
    print(json.dumps([str(error), sorted({"torch", "transformers", "evaluate", "datasets"} & set(sys.modules))]))
"""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": {"train": "absent.jsonl"}}, "absent.jsonl"),
        ({"data": {"assets": "absent.json"}}, "check data.assets in the recipe"),
        ({"data": {"test_subsets": ["prime"]}}, "which data.test_subsets names"),
        ({"task": {"metric": "no_such_metric"}}, "no_such_metric"),
        ({"evaluation": {"suites": ["no-such-suite"]}}, "no-such-suite"),
        ({"base": "no-such-base"}, "no-such-base"),
        ({"base": "/"}, "/ has no config.json"),
        ({"gate": {"min_rows": 13}}, "gate.min_rows is 13"),
    ],
)
def test_a_mistake_is_told_before_any_framework_is_loaded(
    change: dict[str, Any], message: str, project: Project
) -> None:
    arguments = [sys.executable, "-c", REFUSED, str(project(**change)), str(home())]
    found = subprocess.run(arguments, capture_output=True, text=True, check=True)
    told, loaded = json.loads(found.stdout)
    assert message in told
    assert loaded == []
    assert not home().exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gate": {"min_rows": 13}}, r"gate\.min_rows is 13, but only 12 test rows will be scored"),
        (
            {"gate": {"min_rows": 7, "subset": "odd"}},
            r"gate\.min_rows is 7, but only 6 test rows of gate\.subset 'odd' will be scored",
        ),
        (
            {"gate": {"min_rows": 4, "subset": "odd"}, "evaluation": {"test_rows": {"even": 6, "odd": 3}}},
            r'only 3 test rows .* \(evaluation\.test_rows is {"even": 6, "odd": 3}\)',
        ),
        (
            {"gate": {"subset": "prime"}},
            r"no row of subset 'prime', which gate\.subset names.*\n.*even, odd\n.*correct",
        ),
        (
            {"gate": {"subset": "odd"}, "evaluation": {"test_rows": {"even": 3}}},
            r"gate\.subset is 'odd', which none of the 3 test rows to be scored has\n  allowed: even\n  next: set gate",
        ),
    ],
)
def test_a_gate_that_no_score_could_pass_is_refused(change: dict[str, Any], message: str, project: Project) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_job(load_recipe(project(**change)), home())
    assert caught.value.next_step


def test_a_gate_that_takes_every_row_is_fine(project: Project) -> None:
    change = {"gate": {"min_rows": 3, "subset": "odd"}, "evaluation": {"test_rows": {"odd": 3}}}
    job = open_job(load_recipe(project(**change)), home())
    assert len(job.test_rows) == 3
    assert job.base.origin == "local folder"
