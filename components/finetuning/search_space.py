"""What a sweep may set: the recipe's ranges and choices, checked against the keys that they are for. No Optuna here."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from components.errors import InputError
from components.files import canonical_json
from components.finetuning.method_keys import READ_BY, reads

if TYPE_CHECKING:
    from components.recipe_sections import Recipe, SweptValues

__all__ = ["Swept", "applicable", "check_combinations", "check_parameters", "search_space"]

BASE, METHOD = "base", "finetune.method"
# What a trial is judged by, or what it costs to watch it: with other values trials couldn't be compared.
NOT_SWEPT = (
    "checkpoint_steps",
    "keep_checkpoints",
    "dev_loss_rows",
    "dev_metric_rows",
    "dev_passes",
    "early_stopping",
    "keep_best",
    "report_to",
)
# Settings of heads, which aren't swept.
HEAD = "head"
# Of the corners of a space so many are tried before a sweep begins.
MOST_CORNERS = 256
DIGITS = 4


@dataclass(frozen=True)
class Swept:
    """A key and the values that a sweep may give it.

    Attributes:
        key: The recipe's key, with its section.
        choices: Text -> value, where values are listed; empty for a range.
        low: Smallest value of a range.
        high: Largest value of a range.
        log: Whether equal factors are equally likely.
        step: Distance of values, or None where any may be taken.
        whole: Whether they are whole numbers.
    """

    key: str
    choices: Mapping[str, Any]
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    whole: bool = False

    @property
    def ends(self) -> tuple[Any, ...]:
        """All choices, or both ends of the range."""
        return tuple(self.choices.values()) or tuple(map(self.value, (self.low, self.high)))

    def value(self, drawn: Any) -> Any:
        """Return what the recipe is set to for what was drawn: a listed value, or a number that can be typed."""
        if self.choices:
            return self.choices[drawn]
        if self.whole:
            return int(drawn)
        return min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high)


def check_parameters(parameters: Mapping[str, SweptValues]) -> tuple[Swept, ...]:
    """Return what may be set: base and method first, the others in the recipe's order.

    Raises:
        InputError: A key that can't be swept, or a range or choice that its key doesn't take.
    """
    found = [_swept(key, values) for key, values in parameters.items()]
    found.sort(key=lambda swept: (BASE, METHOD, swept.key).index(swept.key))
    return tuple(found)


def search_space(recipe: Recipe) -> tuple[Swept, ...]:
    """Return what a sweep of the recipe may set.

    Raises:
        InputError: As `check_parameters`; nothing to set, or a key that none of the methods reads.
    """
    if not recipe.sweep.parameters:
        raise InputError(
            "the recipe's sweep has no parameters",
            allowed="sweep.parameters, a mapping of recipe keys to ranges or choices",
            next_step="such as sweep: {parameters: {finetune.rank: {choices: [4, 8, 16]}}}; docs/recipe.md has more",
        )
    found = check_parameters(recipe.sweep.parameters)
    method = next((swept for swept in found if swept.key == METHOD), None)
    methods = (recipe.finetune.method,) if method is None else method.ends
    if "features" in methods:
        raise InputError(
            "a sweep of method features: a head's dev loss is that of labels, and can't be compared with that of text",
            allowed=f"other values of {METHOD}",
            next_step="take it out; a head trains in seconds, and `tunewright finetune` with --set tries its settings",
        )
    for swept in found:
        if not any(applicable(swept.key, name) for name in methods):
            raise InputError(
                f"sweep.parameters: {swept.key} is not read by method {', '.join(methods)}",
                allowed=f"{swept.key} with finetune.method {', '.join(READ_BY[_name(swept.key)])}",
                next_step="take it out, or choose one of these methods",
            )
    return found


def applicable(key: str, method: str) -> bool:
    """Tell whether a method, or one that 'auto' may become, reads a key."""
    return reads(method, _name(key))


def check_combinations(space: tuple[Swept, ...], check: Callable[[dict[str, Any]], object]) -> None:
    """Refuse a space whose corners contradict the recipe, every one that is tried.

    Args:
        space: What may be set.
        check: Raises InputError for values that can't stand together.

    Raises:
        InputError: As `check`, for the first corner.
    """
    first: InputError | None = None
    for corner in itertools.islice(_corners(space), MOST_CORNERS):
        try:
            check(corner)
        except InputError as error:
            first = first or error
        else:
            return
    if first is not None:
        raise first


def _corners(space: tuple[Swept, ...]) -> Iterator[dict[str, Any]]:
    for ends in itertools.product(*(swept.ends for swept in space)):
        corner = {swept.key: value for swept, value in zip(space, ends, strict=True)}
        method = corner.get(METHOD)
        yield {key: value for key, value in corner.items() if method is None or applicable(key, method)}


def _swept(key: str, values: SweptValues) -> Swept:
    from components.recipe_finetune import FinetuneSection

    fields = FinetuneSection.model_fields
    allowed = [BASE, *(f"finetune.{name}" for name in fields if name not in NOT_SWEPT and not name.startswith(HEAD))]
    if _name(key) in NOT_SWEPT and key.startswith("finetune."):
        raise InputError(
            f"sweep.parameters: {key} can't be swept: it is how trials are watched and judged, not what they learn",
            allowed=", ".join(allowed),
            next_step=f"set {key} in the recipe, for all trials alike",
        )
    if key not in allowed:
        nearest = difflib.get_close_matches(key, allowed, n=1, cutoff=0.5)
        raise InputError(
            f"sweep.parameters: unknown key {key}",
            allowed=", ".join(allowed),
            next_step=f"did you mean {nearest[0]}?" if nearest else "name keys with their section",
        )
    if values.choices is not None:
        return _listed(key, values)
    return _range(key, values, _kinds(str if key == BASE else fields[_name(key)].annotation))


def _listed(key: str, values: SweptValues) -> Swept:
    if values.low is not None or values.high is not None or values.step is not None or values.log:
        raise _refused(key, "has choices and a range", "one of the two")
    choices = [list(value) if isinstance(value, tuple) else value for value in values.choices or ()]
    if not choices:
        raise _refused(key, "has an empty list of choices", "two values or more")
    named: dict[str, Any] = {}
    for value in choices:
        text = value if isinstance(value, str) else canonical_json(value)
        if text in named:
            raise _refused(key, f"has the choice {text} twice", "each value once")
        _check_value(key, value)
        named[text] = value
    return Swept(key, named)


def _range(key: str, values: SweptValues, kinds: list[Any]) -> Swept:
    low, high, step = values.low, values.high, values.step
    numbers = "{low: 1, high: 2}, or {choices: [one, two]}"
    if low is None or high is None:
        raise _refused(key, "has neither choices nor both low and high", numbers)
    if not {int, float} & set(kinds):
        raise _refused(key, "has a range, and takes no numbers", "{choices: [one, two]}")
    if low > high:
        raise _refused(key, f"low {low:g} is above high {high:g}", "low below high")
    if low == high:
        raise _refused(key, f"low and high are both {low:g}: there is nothing to choose", "low below high")
    if values.log and low <= 0:
        raise _refused(key, f"log with low {low:g}", "low above 0, or no log")
    if values.log and step is not None:
        raise _refused(key, "has both log and step", "one of the two")
    if step is not None and step > high - low:
        raise _refused(key, f"step {step:g} is wider than the range from {low:g} to {high:g}", "a smaller step")
    whole = int in kinds and float not in kinds
    if whole and not all(float(number).is_integer() for number in (low, high, step or 1)):
        raise _refused(key, "takes whole numbers", "low, high and step without fractions")
    if step is not None:  # the largest value that is reached
        high = low + step * math.floor((high - low) / step + 1e-9)
    swept = Swept(key, {}, low, high, values.log, step, whole)
    for end in swept.ends:
        _check_value(key, end)
    return swept


def _check_value(key: str, value: Any) -> None:
    """Refuse what the key doesn't take, whatever stands in the others."""
    from pydantic import ValidationError

    from components.recipe_errors import allowed_values, shown
    from components.recipe_finetune import FinetuneSection

    if key == BASE:
        if not isinstance(value, str) or not value:
            raise _refused(key, f"can't be {shown(value)}", "names of bases")
        return
    name = _name(key)
    try:
        FinetuneSection.model_validate({name: value})
    except ValidationError as error:
        # without a place it is about several keys, and others may be set with it
        if any(detail["loc"][:1] == (name,) for detail in error.errors()):
            schema = FinetuneSection.model_json_schema()["properties"][name]
            raise _refused(key, f"can't be {shown(value)}", allowed_values(schema)) from error


def _refused(key: str, problem: str, allowed: str) -> InputError:
    return InputError(
        f"sweep.parameters: {key} {problem}",
        allowed=allowed,
        next_step="correct the recipe's sweep section; docs/recipe.md describes it",
    )


def _kinds(annotation: Any) -> list[Any]:
    """Return the plain types in an annotation."""
    inner = get_args(annotation)
    return [kind for part in inner for kind in _kinds(part)] if inner else [annotation] * isinstance(annotation, type)


def _name(key: str) -> str:
    return key.rpartition(".")[2]
