"""What all sections of a recipe share: frozen, no unknown keys, no boolean for a number, nothing named twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError

from components.recipe_errors import shown

__all__ = ["Auto", "Fraction", "Section"]

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Auto = Literal["auto"]


def _holds_boolean(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_holds_boolean, value.values()))
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_holds_boolean, value)))


def _takes_booleans(kind: Any) -> bool:
    if kind in (bool, Any) or (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return True
    return any(map(_takes_booleans, get_args(kind)))


class Section(BaseModel):
    """A part of the recipe: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _booleans_are_no_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        # pydantic takes true for 1
        if _holds_boolean(value) and not _takes_booleans(cls.model_fields[str(info.field_name)].annotation):
            raise PydanticCustomError("boolean", "a boolean is no number and no text")
        return value

    @field_validator("*")
    @classmethod
    def _nothing_is_named_twice(cls, value: Any) -> Any:
        if isinstance(value, tuple):
            twice = [item for place, item in enumerate(value) if item in value[:place]]
            if twice:
                raise ValueError(f"{shown(twice[0])} is named twice")
        return value
