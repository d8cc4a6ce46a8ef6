"""What is wrong with a recipe's values, in words for whoever wrote them. Between recipe.py and its validation.

Pydantic says what its validators want. A person is told where the value stands, what it is, and what its key takes;
the last is read off the JSON Schema that `tunewright schema` prints, so that no sentence is written twice.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import InputError

if TYPE_CHECKING:
    from pydantic import ValidationError

__all__ = ["COMMAND_LINE", "Origins", "allowed_values", "refusal", "shown"]

COMMAND_LINE = "command line"
MOST_CHARACTERS = 80
Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Origins:
    """Where a recipe's values can stand.

    Attributes:
        path: The recipe file.
        overrides: The `section.key=value` texts of the command line.
    """

    path: Path
    overrides: tuple[str, ...] = ()

    def place(self, source: str, key: str) -> str:
        """Name the place of a key as its writer knows it: the file, a profile in it, or what was typed."""
        if source == COMMAND_LINE:
            return " ".join(self.typed(key)) or "--set"
        return f"{self.path}, {source}" if source.startswith("profile ") else str(self.path)

    def typed(self, key: str) -> list[str]:
        """Return the overrides of a key, of what lies in it, or of what it lies in, as they were typed."""
        named = [(text.partition("=")[0], text) for text in self.overrides]
        return [
            f"--set {text}" for name, text in named if f"{name}.".startswith(f"{key}.") or key.startswith(f"{name}.")
        ]


def refusal(
    error: ValidationError, schema: Schema, values: Mapping[str, Any], sources: Mapping[str, str], origins: Origins
) -> InputError:
    """Turn what pydantic found into the error that a person reads.

    Args:
        error: What pydantic found.
        schema: The recipe's JSON Schema.
        values: What was validated.
        sources: Dotted key -> where its value came from.
        origins: Names the places.

    Returns:
        One error for all the values: each is named once, however many validators refused it.
    """
    problems: dict[str, str] = {}
    allowed: dict[str, str] = {}
    for detail in error.errors(include_url=False):
        if not detail["loc"]:
            # sections that contradict each other: no place of their own
            place = " with ".join([origins.place("recipe", ""), *(f"--set {text}" for text in origins.overrides)])
            problems["recipe"] = f"{place}: {detail['ctx']['error']}"
            continue
        parts = [str(part) for part in detail["loc"]]
        parts = parts[: 2 if parts[0] in schema["properties"] and "$ref" in schema["properties"][parts[0]] else 1]
        key = ".".join(parts)
        place = origins.place(sources.get(key, "recipe"), key)
        if detail["type"] == "value_error":
            # our own validators speak for themselves; a section's weigh values from several places
            overridden = [] if key in sources else origins.typed(key)
            place = " with ".join([place, *overridden])
            problems[key] = f"{place}: {key}: {detail['ctx']['error']}"
        elif detail["type"] == "missing":
            problems[key] = f"{place}: {key} is missing"
            allowed[key] = str(_of(schema, parts).get("description", allowed_values(_of(schema, parts))))
        else:
            problems[key] = f"{place}: {key} can't be {shown(_value(values, parts))}"
            allowed[key] = allowed_values(_of(schema, parts))
    alone = len(problems) == 1
    said = "; ".join(text if alone else f"{key}: {text}" for key, text in allowed.items())
    return InputError(
        "; ".join(problems.values()),
        allowed=said or None,
        next_step="correct it and run again; `tunewright schema` lists every key",
    )


def allowed_values(schema: Schema) -> str:
    """Say in words which values a schema takes."""
    if "x-allowed" in schema:
        return str(schema["x-allowed"])
    if "anyOf" in schema:
        return ", or ".join(allowed_values(one) for one in schema["anyOf"])
    if "const" in schema:
        return str(schema["const"])
    if "enum" in schema:
        return _either(schema["enum"])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return f"a {'whole number' if kind == 'integer' else 'number'}{_range(schema)}"
    if kind == "array":
        items = schema["items"]
        return f"a list of one or more of {_either(items['enum'])}" if "enum" in items else "a list, such as [one, two]"
    if kind == "object":
        inner = schema.get("additionalProperties")
        return f"a mapping of names, each to {allowed_values(inner)}" if isinstance(inner, dict) else "a mapping"
    words = {"boolean": "true or false", "null": "nothing", "string": "text"}
    return words.get(str(kind), "see `tunewright schema`")


def shown(value: Any) -> str:
    """Write a value as it may have been given, cut where it is long."""
    text = "empty" if value is None else repr(value) if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


def _range(schema: Schema) -> str:
    if "minimum" in schema and "maximum" in schema:
        return f" from {schema['minimum']} to {schema['maximum']}"
    words = (
        ("minimum", "of at least"),
        ("exclusiveMinimum", "above"),
        ("maximum", "of at most"),
        ("exclusiveMaximum", "below"),
    )
    return "".join(f" {word} {schema[key]}" for key, word in words if key in schema).replace(" below", " and below")


def _either(names: Sequence[Any]) -> str:
    *others, last = [str(name) for name in names]
    return f"{', '.join(others)} or {last}" if others else last


def _of(schema: Schema, parts: Sequence[str]) -> Schema:
    """Return the schema of a key, given as its section and its name."""
    found = schema
    for part in parts:
        found = found["properties"][part]
        if "$ref" in found:
            found = schema["$defs"][found["$ref"].rpartition("/")[2]]
    return found


def _value(values: Mapping[str, Any], parts: Sequence[str]) -> Any:
    found: Any = values
    for part in parts:
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
