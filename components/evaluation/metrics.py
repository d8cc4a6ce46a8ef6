"""Score predictions with the metric modules shipped in `metric_modules/`, offline. Called by task and decision.

Each module is an `evaluate` metric that returns `scores`, one number a row, beside its mean; what else it says of all
rows together it names in `SUMMARIES`. Options whose values may be wrong it checks in `check_options`. What it reads it
says in its features: `predictions`, `references` (the rows' answers), and any other column `xs`, filled from the rows'
metadata `x`. `evaluate.load` would copy the module into a cache and may ask the network; here the class is imported.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from components.errors import InputError
from components.paths import cache_dir

if TYPE_CHECKING:
    from components.data.rows import Row

__all__ = [
    "METRIC_MODULES",
    "check_metric",
    "check_metric_name",
    "check_option_names",
    "known_metrics",
    "score",
    "summaries",
]

METRIC_MODULES = Path(__file__).parent / "metric_modules"


def known_metrics() -> list[str]:
    """Return the names of the shipped metrics, sorted."""
    return sorted(folder.name for folder in METRIC_MODULES.iterdir() if (folder / f"{folder.name}.py").is_file())


def check_metric_name(metric: str) -> None:
    """Refuse a metric that doesn't exist, without loading any.

    Raises:
        InputError: No such metric.
    """
    if metric not in known_metrics():
        raise InputError(
            f"unknown metric {metric!r}",
            allowed=", ".join(known_metrics()),
            next_step="name one of these as the metric in the recipe",
        )


def check_option_names(metric: str, options: Mapping[str, Any]) -> None:
    """Refuse a metric, or an option of it, that doesn't exist, by the module's text: importing one takes seconds.

    Args:
        metric: Name of a shipped metric.
        options: Its options; only their names are looked at.

    Raises:
        InputError: No such metric, or an option that it doesn't know.
    """
    check_metric_name(metric)
    tree = ast.parse((METRIC_MODULES / metric / f"{metric}.py").read_text(encoding="utf-8"))
    found = {node.name: node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    columns = {node.value for node in ast.walk(found["_info"]) if isinstance(node, ast.Constant)}
    known = [part.arg for part in found["_compute"].args.args[1:] if part.arg not in columns]
    unknown = sorted(set(options) - set(known))
    if unknown:
        _refuse_option(metric, f"unknown option {unknown[0]!r}", known)


def check_metric(metric: str, options: Mapping[str, Any], rows: Sequence[Row] = ()) -> None:
    """Refuse a metric, options of it, or rows for it, that don't exist or can't be used.

    Args:
        metric: Name of a shipped metric.
        options: Its options.
        rows: What is to be scored by it.

    Raises:
        InputError: No such metric, an option that it doesn't know, one missing that it needs, a value that it can't
            use, or a row whose answer it can't compare with.
    """
    check_metric_name(metric)
    kind = _metric_class(metric)
    _check_options(metric, kind, options)
    if hasattr(kind, "check_reference"):
        for row in rows:
            try:
                kind.check_reference(row.answer)
            except ValueError as error:
                raise InputError(
                    f"metric {metric}, line {row.line}: {error}", next_step="correct the row, or choose another metric"
                ) from error


def score(metric: str, predictions: Sequence[str], rows: Sequence[Row], options: Mapping[str, Any]) -> list[float]:
    """Score one prediction for each row.

    Args:
        metric: Name of a shipped metric.
        predictions: What the model wrote, in the order of the rows.
        rows: The rows answered.
        options: Options of the metric, by the names in its module's documentation.

    Returns:
        One number a row.

    Raises:
        InputError: An unknown metric or option, a number of predictions other than of rows, or a row without the
            metadata that the metric reads.
    """
    return [float(value) for value in _computed(metric, predictions, rows, options).get("scores", ())]


def summaries(
    metric: str, predictions: Sequence[str], rows: Sequence[Row], options: Mapping[str, Any]
) -> dict[str, float]:
    """Return what a metric says of all rows together beside its mean, such as macro-F1.

    Args:
        metric: Name of a shipped metric.
        predictions: As `score` takes them.
        rows: The rows answered.
        options: Options of the metric.

    Returns:
        Numbers by the names in the module's `SUMMARIES`; one that these rows don't define is left out, and most metrics
        have none.

    Raises:
        InputError: As `score`.
    """
    check_metric_name(metric)
    names = getattr(_metric_class(metric), "SUMMARIES", ())
    found = _computed(metric, predictions, rows, options) if names else {}
    return {name: float(found[name]) for name in names if name in found}


def _computed(
    metric: str, predictions: Sequence[str], rows: Sequence[Row], options: Mapping[str, Any]
) -> Mapping[str, Any]:
    if len(predictions) != len(rows):
        raise InputError(f"{len(predictions)} predictions for {len(rows)} rows", allowed="one prediction for each row")
    check_metric(metric, options, rows)
    kind = _metric_class(metric)
    if not rows:
        return {}
    module = kind(keep_in_memory=True, cache_dir=str(cache_dir() / "evaluate"))
    columns: dict[str, list[Any]] = {}
    for column in module.features:
        if column == "predictions":
            columns[column] = list(predictions)
        elif column == "references":
            columns[column] = [row.answer for row in rows]
        else:
            columns[column] = [_metadata(row, column.removesuffix("s"), metric) for row in rows]
    found: Mapping[str, Any] = module.compute(**columns, **options)
    return found


def _metric_class(metric: str) -> Any:
    # evaluate and datasets read these when they are first imported
    os.environ.setdefault("HF_EVALUATE_OFFLINE", "1")
    os.environ.setdefault("HF_UPDATE_DOWNLOAD_COUNTS", "0")
    import evaluate

    module = importlib.import_module(f"components.evaluation.metric_modules.{metric}.{metric}")
    classes = [
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, evaluate.Metric) and kind.__module__ == module.__name__
    ]
    return classes[0]


def _check_options(metric: str, kind: Any, options: Mapping[str, Any]) -> None:
    columns = kind(keep_in_memory=True, cache_dir=str(cache_dir() / "evaluate")).features
    parameters = {
        name: parameter
        for name, parameter in inspect.signature(kind._compute).parameters.items()
        if name != "self" and name not in columns
    }
    needed = [name for name, parameter in parameters.items() if parameter.default is inspect.Parameter.empty]
    unknown = sorted(set(options) - set(parameters))
    missing = [name for name in needed if name not in options]
    if unknown or missing:
        problem = f"unknown option {unknown[0]!r}" if unknown else f"option {missing[0]!r} is missing"
        _refuse_option(metric, problem, list(parameters))
    if hasattr(kind, "check_options"):
        try:
            kind.check_options(**options)
        except ValueError as error:
            raise InputError(
                f"metric {metric}: {error}", next_step="correct task.metric_options in the recipe"
            ) from error


def _refuse_option(metric: str, problem: str, known: Sequence[str]) -> NoReturn:
    raise InputError(
        f"metric {metric}: {problem}",
        allowed=", ".join(known) or "no options",
        next_step="correct task.metric_options in the recipe",
    )


def _metadata(row: Row, key: str, metric: str) -> Any:
    if key not in row.metadata:
        raise InputError(
            f"line {row.line}: metadata {key!r} is missing, which the metric {metric} reads",
            allowed=f"rows with {key!r} in their metadata",
        )
    return row.metadata[key]
