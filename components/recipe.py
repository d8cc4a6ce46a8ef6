"""The recipe: one YAML file says what a project wants. Parsed once at the door; parts take plain values from it.

Every value is resolved and keeps where it came from: the recipe, its profile, the command line, or the default of its
section (`recipe_sections.py`, `recipe_finetune.py`).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from pydantic import BaseModel, ValidationError

from components.errors import InputError
from components.recipe_errors import COMMAND_LINE, Origins, refusal, shown
from components.recipe_sections import Recipe
from components.strict_yaml import read_yaml

__all__ = ["ResolvedRecipe", "json_schema", "load_recipe", "with_values"]


@dataclass(frozen=True)
class ResolvedRecipe:
    """A recipe with the origin of every value.

    Attributes:
        recipe: The values.
        path: The file that it was read from.
        profile: The profile laid over it, or None.
        sources: Dotted key -> `recipe`, `profile NAME`, `command line` or `default`.
    """

    recipe: Recipe
    path: Path
    profile: str | None
    sources: Mapping[str, str]

    def rows(self) -> list[dict[str, Any]]:
        """List every value as `{key, value, source}`, in the order of the sections."""
        flat = _flatten(self.recipe.model_dump(mode="json"))
        return [{"key": key, "value": value, "source": self.sources[key]} for key, value in flat]


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a recipe file, profiles included."""
    schema = Recipe.model_json_schema()
    schema["properties"]["profiles"] = {
        "type": "object",
        "description": "named sections laid over the recipe by --profile",
        "additionalProperties": {"type": "object"},
    }
    return schema


def load_recipe(path: Path, profile: str | None = None, overrides: tuple[str, ...] = ()) -> ResolvedRecipe:
    """Read a recipe, lay a profile and overrides over it, and check every key.

    Args:
        path: The YAML file.
        profile: Name of an entry under `profiles`, or None or `full` for the recipe as it stands.
        overrides: `section.key=value` texts, values in YAML; they win over everything.

    Returns:
        The frozen recipe and where each value came from.

    Raises:
        InputError: No file, not YAML, an unknown profile or one named `full`, an unknown key (the nearest known one is
            named), a value of the wrong kind, or values that contradict each other.
    """
    document = _read_yaml(path)
    profiles = document.pop("profiles", None) or {}
    layers = [("recipe", document)]
    if isinstance(profiles, dict) and "full" in profiles:
        raise InputError(
            f"{path}: a profile is named 'full', which is the recipe as it stands",
            allowed="any other name",
            next_step="rename it",
        )
    if profile not in (None, "full"):
        if not isinstance(profiles, dict) or profile not in profiles:
            raise InputError(
                f"{path}: no profile {profile!r}", allowed=", ".join(["full", *profiles]), next_step="name one of these"
            )
        layers.append((f"profile {profile}", profiles[profile] or {}))
    if overrides:
        layers.append((COMMAND_LINE, _parse_overrides(overrides)))
    merged: dict[str, Any] = {}
    sources: dict[str, str] = {}
    origins = Origins(path, overrides)
    for source, layer in layers:
        _check_keys(layer, Recipe, source, origins)
        _lay_over(merged, layer, source, sources, ())
    try:
        recipe = Recipe.model_validate(merged)
    except ValidationError as error:
        raise refusal(error, Recipe.model_json_schema(), merged, sources, origins) from error
    complete = {key: sources.get(key, "default") for key, _ in _flatten(recipe.model_dump(mode="json"))}
    return ResolvedRecipe(recipe, path, profile if profile != "full" else None, complete)


def with_values(resolved: ResolvedRecipe, values: Mapping[str, Any], source: str) -> ResolvedRecipe:
    """Return a recipe with some other values; it is what `--set` with each of them would give.

    Args:
        resolved: The recipe.
        values: Dotted key -> value.
        source: Where they come from.

    Raises:
        InputError: A value that its key doesn't take, or values that contradict each other.
    """
    document = resolved.recipe.model_dump(mode="json")
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        (document[section] if section else document)[name] = value
    sources = {**resolved.sources, **dict.fromkeys(values, source)}
    try:
        recipe = Recipe.model_validate(document)
    except ValidationError as error:
        raise refusal(error, Recipe.model_json_schema(), document, sources, Origins(resolved.path)) from error
    return ResolvedRecipe(recipe, resolved.path, resolved.profile, sources)


def _read_yaml(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"no recipe at {path}", next_step="give the path of a recipe, such as examples/text2sql/recipe.yaml"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot read {path}: {error}", allowed="a readable UTF-8 YAML file") from error
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {error}", allowed="one YAML mapping") from error
    if not isinstance(document, dict):
        raise InputError(f"{path} holds {type(document).__name__}, not a mapping", allowed="one YAML mapping")
    return document


class _Dotted(dict[str, Any]):
    """What dotted keys spell out: laid into the mapping that is there, where one that is given whole replaces it."""


def _parse_overrides(overrides: tuple[str, ...]) -> dict[str, Any]:
    import yaml

    layer: dict[str, Any] = {}
    for text in overrides:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise InputError(
                f"--set {text} is not of the form section.key=value",
                allowed="a key of the recipe and its value, such as finetune.rank=8",
                next_step="see docs/recipe.md or `tunewright schema` for the keys",
            )
        place = layer
        *parents, last = key.split(".")
        for parent in parents:
            place = place.setdefault(parent, _Dotted())
            if not isinstance(place, dict):
                raise InputError(
                    f"--set {text} sets a key below {parent}, which another --set gave a value",
                    allowed="one of the two",
                    next_step="leave one of them out",
                )
        try:
            place[last] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(
                f"--set {text}: the value is not YAML: {error}",
                allowed="a value as it stands in a recipe, such as 8, auto or [piqa, siqa]",
                next_step="quote it for the shell",
            ) from error
    return layer


def _check_keys(layer: Any, section: type[BaseModel], source: str, origins: Origins, prefix: str = "") -> None:
    """Refuse unknown keys before values are looked at, naming the nearest known one."""
    if not isinstance(layer, dict):
        name = prefix.rstrip(".")
        raise InputError(
            f"{origins.place(source, name)}: {name or 'a profile'} must be a mapping, not {shown(layer)}",
            allowed=", ".join(prefix + key for key in section.model_fields),
            next_step="set the keys that are in it",
        )
    for key, value in layer.items():
        if key not in section.model_fields:
            nearest = difflib.get_close_matches(str(key), section.model_fields, n=1, cutoff=0.4)
            raise InputError(
                f"{origins.place(source, f'{prefix}{key}')}: unknown key {prefix}{key}",
                allowed=", ".join(prefix + name for name in section.model_fields),
                next_step=f"did you mean {prefix}{nearest[0]}?" if nearest else "see `tunewright schema`",
            )
        kind = section.model_fields[key].annotation
        if _is_section(kind):
            _check_keys(value, kind, source, origins, f"{prefix}{key}.")


def _is_section(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _lay_over(
    merged: dict[str, Any], layer: Mapping[str, Any], source: str, sources: dict[str, str], place: tuple[str, ...]
) -> None:
    for key, value in layer.items():
        here = (*place, key)
        # a mapping for a key that is no section is a value like others, and told by the check that follows
        if isinstance(value, dict) and not place and _is_section(Recipe.model_fields[key].annotation):
            _lay_over(merged.setdefault(key, {}), value, source, sources, here)
        else:
            merged[key] = _laid_into(merged.get(key), value) if isinstance(value, _Dotted) else value
            sources[".".join(here)] = source


def _laid_into(there: Any, value: Any) -> Any:
    if not isinstance(value, _Dotted):
        return value
    found = dict(there) if isinstance(there, dict) else {}
    for key, item in value.items():
        found[key] = _laid_into(found.get(key), item)
    return found


def _flatten(document: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield dotted keys one section deep: what lies below a section's key is that key's value."""
    for key, value in document.items():
        if isinstance(value, Mapping):
            for name, item in value.items():
                yield f"{key}.{name}", item
        else:
            yield key, value
