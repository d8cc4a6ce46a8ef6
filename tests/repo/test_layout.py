"""The repository has the shape that the documents promise."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from components.recipe import json_schema, load_recipe

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("flows", "components", "registry", "deploy")
NAMES_TO_AVOID = {"evaluate", "datasets", "tokenize", "prefect", "dvc", "torch", "utils", "helpers", "common", "misc"}


def tracked() -> list[str]:
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")


@pytest.mark.parametrize(
    "entry",
    ["pyproject.toml", "flows", "components", "registry", "tests", "dvc.yaml", "dvc.lock", "deploy", "README.md",
     "LICENSE", "Makefile", "constraints.txt", ".ci/run", "docs/architecture.md", "docs/decisions", "docs/pitfalls.md",
     "examples/text2sql/recipe.yaml"],
)  # fmt: skip
def test_entry_exists(entry: str) -> None:
    assert (ROOT / entry).exists()


@pytest.mark.parametrize("package", PACKAGES)
def test_package_has_a_readme_that_can_be_read_at_once(package: str) -> None:
    lines = [line for line in (ROOT / package / "README.md").read_text().splitlines() if line.strip()]
    assert 5 <= len(lines) <= 40


def test_no_module_shadows_a_library_or_is_a_drawer() -> None:
    names = {path.stem for package in PACKAGES for path in (ROOT / package).rglob("*.py")}
    assert names & NAMES_TO_AVOID == set()


def test_every_module_and_public_function_says_what_it_is_for() -> None:
    silent = []
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text())
            if not ast.get_docstring(tree):
                silent.append(str(path))
            for node in tree.body:
                public = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
                if public and not ast.get_docstring(node):  # type: ignore[arg-type]
                    silent.append(f"{path}:{node.name}")  # type: ignore[attr-defined]
    assert silent == []


def test_every_shipped_recipe_parses_in_every_profile() -> None:
    recipes = sorted((ROOT / "examples").rglob("recipe*.yaml"))
    assert recipes
    for path in recipes:
        for profile in [None, *yaml.safe_load(path.read_text()).get("profiles", {})]:
            assert load_recipe(path, profile).recipe.name


def test_recipe_keys_are_described_in_the_guide() -> None:
    guide = (ROOT / "docs" / "recipe.md").read_text()
    schema = json_schema()
    for name, section in schema["$defs"].items():
        for key in section["properties"]:
            assert f"`{key}`" in guide, f"{name}.{key}"


def commands_in(text: str) -> set[str]:
    return set(re.findall(r"(?:^|[`/ ])tunewright ([a-z]+)", text, re.MULTILINE))


def test_commands_in_the_documents_exist_and_every_command_is_documented() -> None:
    from flows.cli import VERBS

    documents = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    named = set().union(*(commands_in(path.read_text()) for path in documents))
    assert named <= set(VERBS), f"documented but absent: {sorted(named - set(VERBS))}"
    assert set(VERBS) <= commands_in((ROOT / "README.md").read_text()), "a command is missing in the README"
    for module, _ in VERBS.values():
        assert (ROOT / "flows" / "commands" / f"{module}.py").exists()


def test_no_placeholder_is_left_in_the_documents() -> None:
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        found = [line for line in path.read_text().splitlines() if re.fullmatch(r"[A-Z]{3,}", line.strip())]
        assert found == [], path


def test_make_targets_in_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z-]+)", (ROOT / "README.md").read_text()))
    assert {"demo", "test", "check", "setup"} <= named <= targets


def test_every_pin_lies_within_the_declared_range() -> None:
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(
        line.split("#")[0].strip().lower().replace("_", "-").split("==")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    )
    declared = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    for text in declared:
        requirement = Requirement(text)
        pin = pins[requirement.name.lower().replace("_", "-")]
        assert pin in requirement.specifier, text


def test_no_large_or_binary_data_is_tracked() -> None:
    large = [
        name for name in tracked() if name and (ROOT / name).is_file() and (ROOT / name).stat().st_size > 1_000_000
    ]
    assert large == []
    assert not [name for name in tracked() if name.endswith((".safetensors", ".gguf", ".bin", ".whl", ".jsonl"))]
