"""`tunewright schema`: the recipe's JSON Schema, for editors and for reading."""

from __future__ import annotations

import json

import click

from flows.commands.output import emit, json_option


@click.command("schema")
@json_option
def command(as_json: bool) -> None:
    """Print the JSON Schema of a recipe."""
    from components.recipe import json_schema

    emit(json_schema(), as_json, lambda schema: json.dumps(schema, indent=2))
