"""`tunewright`: a lazy group of verbs, each in flows/commands/, and the one place where errors become exit statuses."""

from __future__ import annotations

import importlib
import sys
import traceback

import click

from components.runtime import quiet_libraries
from flows.commands.group import VerbGroup
from flows.commands.output import begin, documents_alone, emit_error
from flows.interruption import Terminated, interruption, raise_on_sigterm, stop_behind, take_no_more_signals

__all__ = ["main"]

# verb -> (module in flows.commands, one line for --help); the modules are imported only when their verb is called,
# so that `--help` answers at once and a registry lookup needs no torch.
VERBS: dict[str, tuple[str, str]] = {
    "run": ("run", "Run the whole chain of a recipe: decide, plan, finetune, evaluate, gate, register, serve."),
    "data": ("data", "Check, show and count the rows of a data file."),
    "decide": ("decide", "Measure what prompting reaches and say whether to finetune."),
    "tactics": ("tactics", "Say which settings a recipe finetunes with, and why."),
    "plan": ("plan", "Plan memory: which method and batch fit the budget."),
    "finetune": ("finetune", "Plan and train a recipe; nothing is registered."),
    "compare-methods": ("compare_methods", "Train a recipe by several methods, measured side by side."),
    "sweep": ("sweep", "Train a recipe with other values, trial after trial, and say which are best."),
    "quantize": ("quantize", "Keep a registered version's weights in 8 or 4 bits, measured against it."),
    "multitask": ("multitask", "Train several tasks mixed, in turn, and apart, on equal tokens."),
    "evaluate": ("evaluation", "Score a registered version on general suites, and its alignment tax."),
    "long-context": ("long_context", "Measure how far a model reads, with and without RoPE scaling."),
    "registry": ("registry", "Look up, promote, roll back and verify model versions."),
    "serve": ("serve", "Serve a registered version behind an OpenAI-compatible endpoint."),
    "bundle": ("bundle", "Package a registered version with BentoML."),
    "schema": ("schema", "Print the recipe's JSON Schema."),
    "doctor": ("doctor", "Say what this machine offers, and whether the folders can be used."),
}


class LazyGroup(VerbGroup):
    """A group that knows its verbs' names and help lines without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"flows.commands.{VERBS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, help_line) for verb, (_, help_line) in VERBS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.version_option(package_name="tunewright", prog_name="tunewright")
def cli(debug: bool) -> None:
    """Decide whether to finetune, finetune within memory, measure the alignment tax, serve only proven weights.

    Exit status: 0 done, 1 internal failure, 2 bad input or usage, 3 a verdict said no, 4 conflict or not found.
    """


def main() -> None:
    """Run the command line; an error says what was given, what is allowed and what to do next."""
    debug = "--debug" in sys.argv[1:]
    arguments = [a for a in sys.argv[1:] if a != "--debug"]
    begin()
    quiet_libraries()
    raise_on_sigterm()
    with documents_alone(arguments):
        _run(arguments, debug)


def _run(arguments: list[str], debug: bool) -> None:
    raised: BaseException
    try:
        # outside its standalone mode click returns the status of ctx.exit()
        sys.exit(cli.main(args=arguments, prog_name="tunewright", standalone_mode=False) or 0)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        status, raised = 2, error
    except (Exception, KeyboardInterrupt, Terminated) as error:
        if ended := stop_behind(error):
            take_no_more_signals()
            raised = interruption(isinstance(ended, Terminated), arguments)
            click.echo(str(raised), err=True)
            status = raised.exit_status
        else:
            if debug:
                traceback.print_exc()
            status, raised = _tell(error), error
    emit_error(raised, status, arguments)
    sys.exit(status)


def _tell(error: BaseException) -> int:
    """Say on standard error what went wrong, and return the exit status."""
    # registry and components have error trees of their own; both carry an exit_status
    status = getattr(error, "exit_status", None)
    if status is not None:
        click.echo(f"error: {error}", err=True)
        return int(status)
    click.echo(f"error: internal failure: {type(error).__name__}: {error}", err=True)
    click.echo("  next: run again with --debug for the traceback", err=True)
    return 1
