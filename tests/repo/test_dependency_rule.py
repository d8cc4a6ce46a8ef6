"""Who may import whom, and that heavy imports stay inside functions."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FORBIDDEN = {
    "components": {"prefect", "dvc", "bentoml", "registry", "flows", "deploy"},
    "registry": {"torch", "transformers", "peft", "prefect", "dvc", "bentoml", "flows", "deploy", "components"},
    "deploy": {"prefect", "dvc", "flows"},
}
SERVERS = {"fastapi", "starlette", "pydantic", "httpx", "uvicorn", "anyio"}
ORCHESTRATION = {"prefect", "dvc"}
HEAVY = {"torch", "transformers", "peft", "bitsandbytes", "accelerate", "evaluate", "datasets", "scipy"}
# Modules that subclass or decorate with what they import. They are themselves imported inside functions only.
HEAVY_MODULES = {
    "components/finetuning/trainer.py": {"torch", "transformers"},
    "components/finetuning/callbacks.py": {"transformers"},
    "components/evaluation/metric_modules/execution_match/execution_match.py": {"evaluate", "datasets"},
    "components/evaluation/metric_modules/exact_match/exact_match.py": {"evaluate", "datasets"},
    "components/evaluation/metric_modules/label_accuracy/label_accuracy.py": {"evaluate", "datasets"},
    "components/evaluation/metric_modules/number_closeness/number_closeness.py": {"evaluate", "datasets"},
}


def modules(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py"))


def imports(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each imported top-level package, and whether the import runs when the module is loaded."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    in_function = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        else:
            continue
        for name in names:
            yield name.partition(".")[0], id(node) not in in_function


@pytest.mark.parametrize("package", sorted(FORBIDDEN))
def test_package_imports_nothing_that_is_not_its_own(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name, _ in imports(path)
        if name in FORBIDDEN[package]
    ]
    assert wrong == []


def test_of_the_registry_only_its_http_part_knows_of_servers() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules("registry")
        for name, _ in imports(path)
        if name in SERVERS and (ROOT / "registry" / "http") not in path.parents
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ["components", "registry", "deploy", "flows"])
def test_heavy_imports_stay_inside_functions(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name} when it is loaded"
        for path in modules(package)
        for name, at_load in imports(path)
        if at_load and name in HEAVY - HEAVY_MODULES.get(str(path.relative_to(ROOT)), set())
    ]
    assert wrong == []


@pytest.mark.parametrize("package", ["flows", "components", "registry", "deploy"])
def test_package_is_imported_from_this_checkout(package: str) -> None:
    program = f"import {package}; print({package}.__file__)"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert Path(found.strip()).parent == ROOT / package


def test_help_and_look_ups_load_no_framework() -> None:
    program = (
        "import sys; sys.argv = ['tunewright', '--help']\n"
        "import flows.cli\n"
        "try: flows.cli.main()\nexcept SystemExit: pass\n"
        "import flows.commands.registry\n"
        "print(sorted(set(sys.modules) & {'torch', 'transformers', 'prefect', 'bentoml', 'dvc', 'pydantic'}))"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip().splitlines()[-1] == "[]"
