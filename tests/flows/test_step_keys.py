"""A step's key holds the source of everything that it calls: an edit there must not leave a stale document standing."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"components", "deploy"}
# Parts of steps that stand in modules of their own: what keys are made of, and the training.
FOLLOWED = {"flows.step_reads", "flows.training"}
# What a step reaches and no key holds, since no number that later steps take depends on it.
NOT_IN_THE_KEY = {
    # the plan held against what was measured, and a config's reader
    "finetune: 'finetune'": {"components/memory"},
}
Scope = Mapping[str, "ast.FunctionDef | ast.expr | str"]


def module_file(name: str) -> Path | None:
    path = ROOT.joinpath(*name.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


def imported(node: ast.AST) -> Iterator[tuple[str, str]]:
    """Yield (name here, module) of every import below a node; a name out of a module stands for that module."""
    for inner in ast.walk(node):
        if isinstance(inner, ast.Import):
            yield from ((alias.asname or alias.name, alias.name) for alias in inner.names)
        elif isinstance(inner, ast.ImportFrom) and inner.module:
            for alias in inner.names:
                whole = f"{inner.module}.{alias.name}"
                yield alias.asname or alias.name, whole if module_file(whole) else inner.module


def closure(modules: set[str]) -> set[str]:
    """Return our modules that some modules import, directly or not."""
    seen: set[str] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        file = module_file(name)
        if name in seen or file is None or name.partition(".")[0] not in OURS:
            continue
        seen.add(name)
        waiting += [module for _, module in imported(ast.parse(file.read_text()))]
    return seen


def packages_of(modules: set[str]) -> set[str]:
    """Return folders, such as components/data. What stands directly in components (errors, files, paths, the process's
    set-up) decides no number and is in no key; deploy is one package."""
    folders = {"/".join(module.split(".")[:2]) for module in modules if module.startswith("components.")}
    return {folder for folder in folders if (ROOT / folder).is_dir()} | (
        {"deploy"} if any(module.startswith("deploy.") for module in modules) else set()
    )


def names_in(scope: ast.AST) -> dict[str, ast.FunctionDef | ast.expr | str]:
    """Return what a module's or function's own names stand for: a function, a value, or an imported module."""
    found: dict[str, ast.FunctionDef | ast.expr | str] = {}
    for node in ast.iter_child_nodes(scope):
        if isinstance(node, ast.FunctionDef):
            found[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            found[node.targets[0].id] = node.value
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found.update(imported(node))
    return found


def function_in(module: str, name: str) -> tuple[ast.AST, Scope]:
    """Return a function of another module, and what its names stand for there."""
    file = module_file(module)
    assert file is not None
    scope = names_in(ast.parse(file.read_text()))
    found = scope[name]
    assert isinstance(found, ast.FunctionDef)
    return found, scope


def reached(node: ast.AST, scope: Scope) -> tuple[set[str], set[str]]:
    """Return the modules that a node's code uses and the packages whose source it digests, calls followed."""
    modules: set[str] = set()
    packages: set[str] = set()
    seen: set[int] = set()
    waiting: list[tuple[ast.AST, Scope]] = [(node, scope)]
    while waiting:
        part, around = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        modules |= {module for _, module in imported(part)}
        for inner in ast.walk(part):
            if isinstance(inner, ast.Call) and ast.unparse(inner.func) == "source_digest":
                packages |= set(ast.literal_eval(inner.args[0]))
            target = around.get(inner.id) if isinstance(inner, ast.Name) else None
            if isinstance(target, str) and target in FOLLOWED:
                waiting.append(function_in(target, ast.unparse(inner)))
            elif isinstance(target, str):
                modules.add(target)
            elif target is not None:
                waiting.append((target, around))
    return modules, packages


def keyed_steps() -> list[tuple[str, set[str], set[str]]]:
    """List (step, packages that it reaches, packages in its key) of every call of a step store."""
    found = []
    files = [file for pattern in ("*_step.py", "*steps.py") for file in sorted((ROOT / "flows").glob(pattern))]
    for file in files:
        tree = ast.parse(file.read_text())
        for function in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
            scope = {**names_in(tree), **names_in(function)}
            # a parameter is no function of its name
            for argument in function.args.args:
                scope.pop(argument.arg, None)
            for call in ast.walk(function):
                if isinstance(call, ast.Call) and ast.unparse(call.func) == "job.store.run":
                    name, reads, make, *_ = call.args
                    used = packages_of(closure(reached(make, scope)[0]))
                    found.append((f"{function.name}: {ast.unparse(name)}", used, reached(reads, scope)[1]))
    return found


def test_every_costly_step_is_found() -> None:
    found = {name: used for name, used, _ in keyed_steps()}
    assert len(found) == 7
    trained_by = {"components/finetuning", "components/data", "components/models", "components/evaluation"}
    assert found["finetune: 'finetune'"] >= trained_by
    assert found["try_question: 'endpoint'"] >= {"deploy"}


@pytest.mark.parametrize(("step", "used", "digested"), keyed_steps(), ids=[name for name, _, _ in keyed_steps()])
def test_a_key_covers_every_package_that_its_step_reaches(step: str, used: set[str], digested: set[str]) -> None:
    missing = used - digested - NOT_IN_THE_KEY.get(step, set())
    assert not missing, f"{step} misses {sorted(missing)}"
