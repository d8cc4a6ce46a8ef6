"""A teacher through the chain: planned for, learned from, and in the version's lineage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.errors import InputError
from components.models.tiny import make_tiny
from components.paths import home
from components.recipe import load_recipe
from flows.open_job import open_job
from registry.store import Registry
from tests.flows.test_text_objective import run

Project = Callable[..., Path]


@pytest.mark.integration
def test_a_version_teaches_another_base(project: Project, tmp_path: Path) -> None:
    larger = make_tiny(tmp_path / "larger", seed=4, hidden_size=128, layers=3)
    first = run(project(name="teacher", base=str(larger)))
    assert first["version"] == "teacher:v1"
    alone = run(project())
    found = run(project(finetune={"teacher": "version:teacher@champion", "distillation_weight": 0.3}))
    assert (found["version"], found["trained"]) == ("tiny:v2", True)
    weights = sum(path.stat().st_size for path in larger.glob("*.safetensors"))
    assert found["plan"]["breakdown"]["weights"] - alone["plan"]["breakdown"]["weights"] == pytest.approx(
        weights, rel=0.05
    )
    with Registry.open(home() / "registry") as registry:
        manifest = registry.resolve("tiny:v2").manifest
        parents = {parent.role: registry.resolve(parent.digest).label for parent in manifest.parents}
        assert parents == {"base": "tiny-base:v1", "teacher": "teacher-merged:v1"}
        teacher = manifest.metadata["teacher"]
        assert (teacher["weight"], teacher["temperature"]) == (0.3, 2.0)
        assert {"teacher:v1", "larger:v1"} <= {node.label for node in registry.lineage("tiny:v2").nodes}


@pytest.mark.parametrize(
    ("finetune", "said"),
    [
        ({"temperature": 3}, "there is none: set finetune.teacher"),
        ({"teacher": "tiny", "distillation_weight": 0}, "learns nothing from the teacher"),
        ({"teacher": "tiny", "temperature": 0}, "finetune.temperature"),
        ({"teacher": "tiny", "distillation_weight": 1.5}, "finetune.distillation_weight"),
        ({"teacher": "tiny", "method": "features"}, "teacher is for methods that train through the base"),
        ({"teacher": "nowhere"}, "unknown teacher 'nowhere'"),
        ({"teacher": "version:nobody@champion"}, "there is no registry"),
    ],
)
def test_a_teacher_that_cannot_be_is_told_at_the_door(project: Project, finetune: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_job(load_recipe(project(finetune=finetune)), home())


def test_a_teacher_with_another_tokenizer_is_told_at_the_door(project: Project, tmp_path: Path) -> None:
    other = make_tiny(tmp_path / "other", vocabulary=380)
    with pytest.raises(InputError, match="another tokenizer than the base"):
        open_job(load_recipe(project(finetune={"teacher": str(other)})), home())
