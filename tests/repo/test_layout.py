"""The repository has the shape that the documents promise."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from pathlib import Path

import click
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


# each in two pieces, so that this file isn't found; an error with a message says why something isn't offered
PLACEHOLDER = re.compile(r"\b(TO" r"DO|FIX" r"ME|XX" r"X)\b|raise NotImplemented" r"Error\s*(\(\s*\))?\s*(#.*)?$")


@pytest.mark.parametrize("mark", ["TO" + "DO", "FIX" + "ME", "XX" + "X"])
def test_a_placeholder_is_recognised_wherever_it_stands(mark: str) -> None:
    for line in (mark, f"# {mark}: later", f"a sentence ({mark})", "    raise NotImplemented" + "Error()"):
        assert PLACEHOLDER.search(line), line
    for line in ("mktemp -d /tmp/tw.XX" + "XXXX", "raise NotImplemented" + 'Error("a schema only goes forward")'):
        assert not PLACEHOLDER.search(line), line


def test_no_placeholder_is_left() -> None:
    found = []
    for name in filter(None, tracked()):
        if not (ROOT / name).is_file():
            continue
        for number, line in enumerate((ROOT / name).read_text().splitlines(), start=1):
            capitals = name.endswith(".md") and re.fullmatch(r"[A-Z]{3,}", line.strip())
            if capitals or PLACEHOLDER.search(line):
                found.append(f"{name}:{number}: {line.strip()}")
    assert found == []


def calls_in(text: str) -> list[str]:
    """Return what follows `tunewright` in code spans and code lines, up to where the code ends."""
    return re.findall(r"(?:^|[`/ ])tunewright ((?:--?)?[a-z][^`\n|]*)", text, re.MULTILINE)


def options_of(command: click.Command) -> set[str]:
    return {name for option in command.params if isinstance(option, click.Option) for name in option.opts}


def unknown_in(call: str) -> tuple[list[str], click.Command]:
    """Return the words of a documented call that the command line doesn't know, and the command that is called."""
    from flows.cli import cli

    command: click.Command = cli
    known = {"--help", "-h", *options_of(cli), "--version"}
    unknown = []
    for word in call.split():
        if word.startswith("-"):
            unknown += [word] if word.partition("=")[0] not in known else []
        elif isinstance(command, click.Group) and re.fullmatch(r"[a-z][a-z-]*", word):
            found = command.get_command(click.Context(command), word)
            if found is None:
                return [*unknown, word], command
            command = found
            known |= options_of(command)
    return unknown, command


def test_calls_in_the_documents_name_verbs_subcommands_and_options_that_exist() -> None:
    documents = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    calls = [(path.name, call) for path in documents for call in calls_in(path.read_text())]
    assert len(calls) > 10
    assert [(name, call, unknown) for name, call in calls if (unknown := unknown_in(call)[0])] == []


@pytest.mark.parametrize("call", ["trian RECIPE", "registry audits", "plan --bugdet 8GiB", "data check FILE --bsae X"])
def test_a_documented_call_that_does_not_exist_is_found(call: str) -> None:
    assert unknown_in(call)[0]


def test_the_table_of_commands_names_every_verb_and_subcommand_and_only_options_that_exist() -> None:
    from flows.cli import VERBS, cli

    named: dict[str, set[str]] = {}
    for first, rest in re.findall(r"^\| `tunewright ([^`]+)` \|(.*)$", (ROOT / "README.md").read_text(), re.MULTILINE):
        verb, *words = first.split()
        spans = re.findall(r"`([^`]+)`", rest)
        assert not [span for span in spans if span.startswith("-") and unknown_in(f"{first} {span}")[0]], first
        plain = [word for word in (*words[:1], *spans) if re.fullmatch(r"[a-z][a-z-]*", word)]
        named.setdefault(verb, set()).update(plain)
    assert set(named) == set(VERBS)
    for verb in VERBS:
        command = cli.get_command(click.Context(cli), verb)
        if isinstance(command, click.Group):
            assert named[verb] == set(command.list_commands(click.Context(command))), verb


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
