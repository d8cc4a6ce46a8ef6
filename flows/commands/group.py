"""A group of verbs that answers an unknown one with the nearest it has."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import click

__all__ = ["UnknownCommand", "VerbGroup"]


class UnknownCommand(click.UsageError):
    """A group has no such verb.

    Args:
        given: What was typed.
        verbs: What the group has.
        context: The group's context.
    """

    def __init__(self, given: str, verbs: Sequence[str], context: click.Context) -> None:
        nearest = difflib.get_close_matches(given, verbs, n=1, cutoff=0.5)
        self.allowed = ", ".join(verbs)
        self.next_step = f"{context.command_path} {nearest[0] if nearest else '--help'}"
        advice = f"Did you mean '{self.next_step}'?" if nearest else f"Commands: {self.allowed}."
        super().__init__(f"No such command '{given}'. {advice}", context)


class VerbGroup(click.Group):
    """A click group that says for an unknown verb which is nearest, or which there are."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb that the first argument names, as click does.

        Raises:
            UnknownCommand: There is no such verb.
        """
        verbs = self.list_commands(ctx)
        # an option that stands where the verb is expected is click's to tell
        if args[0] not in verbs and not args[0].startswith("-") and not ctx.resilient_parsing:
            raise UnknownCommand(args[0], verbs, ctx)
        return super().resolve_command(ctx, args)
