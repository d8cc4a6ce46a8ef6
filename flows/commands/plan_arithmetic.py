"""`tunewright plan --params N`: the bare arithmetic, held against a budget where one is given. Calls and prints."""

from __future__ import annotations

from typing import Any

from components.errors import VerdictError
from flows.commands.output import emit

__all__ = ["run"]

GIB = 2**30


def run(params: float, options: dict[str, Any], explain: bool, as_json: bool) -> None:
    """Print the arithmetic.

    Args:
        params: Number of parameters.
        options: The command's.
        explain: Show it line by line.
        as_json: Print the document.

    Raises:
        InputError: Numbers out of range, or an unknown optimizer.
        VerdictError: It doesn't fit the budget.
    """
    from components.memory.formula import estimate
    from components.memory.hardware import gpu_budget, parse_size

    optimizer = "adamw" if options["optimizer"] == "auto" else options["optimizer"]
    found = estimate(params, options["bytes_per_value"], optimizer, options["trainable"])
    budget = parse_size(options["budget"]) if options["budget"] else None
    if options["gpu"]:
        budget = gpu_budget(options["gpu"]).budget_bytes
    needed = found.training_bytes_without_activations
    compared = {} if budget is None else {"budget_bytes": budget, "fits": needed <= budget}
    document = found.to_dict() | compared | ({"explanation": found.explain()} if explain else {})
    lines = found.explain() if explain else _formula_lines(found)
    if budget is not None:
        lines += [
            f"budget                  {budget / 1e9:>10,.2f} GB: {'fits' if needed <= budget else 'does not fit'}"
        ]
    emit(document, as_json, lambda _: "\n".join(lines))
    if budget is not None and needed > budget:
        raise VerdictError(
            f"training does not fit {budget / GIB:.2f} GiB: weights, gradients and optimizer need {needed / GIB:.2f} "
            "GiB before any activations",
            next_step="train fewer parameters (--trainable), or plan adapters: tunewright plan --base",
        )


def _formula_lines(found: Any) -> list[str]:
    return [
        f"weights                 {found.weights_bytes / 1e9:>10,.2f} GB",
        f"inference               {found.inference_bytes / 1e9:>10,.2f} GB",
        f"gradients + optimizer   {found.gradient_and_optimizer_bytes / 1e9:>10,.2f} GB",
        f"training                {found.training_bytes_without_activations / 1e9:>10,.2f} GB + activations",
    ]
