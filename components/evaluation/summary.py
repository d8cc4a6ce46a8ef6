"""A run in a terminal and as markdown: the report's numbers without its charts. Ends what the main job prints."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from typing import Any, Literal

from components.evaluation import advice_tables, money_tables, planning_tables, result_tables
from components.evaluation.formatting import plain, value
from components.evaluation.run_document import missing_reason, outcome, section
from components.evaluation.run_lines import outcome_lines, planning_lines
from components.evaluation.table import Table, rows_of

__all__ = ["render_markdown", "render_table", "render_text"]

COMMANDS = (("query", "Query"), ("serve", "Serve"), ("rollback", "Roll back"))
TONE_STYLE = {"good": "bold green", "bad": "bold red", "neutral": "bold"}
MOST_EXAMPLES = 3
NARROWEST, WIDE = 72, 92


def render_text(run: Mapping[str, Any], width: int = 100, *, color: bool = False) -> str:
    """Render a run for a terminal.

    Args:
        run: The run document; any section may be missing or null.
        width: Columns of the terminal, at least 72 are used; commands and the path are never broken.
        color: Write ANSI styles; give whether standard output is a terminal.

    Returns:
        Text without a trailing line feed; its last line is the report's path.
    """
    from rich.text import Text

    width = max(width, NARROWEST)
    ended = outcome(run)
    title = plain(run.get("version") or run.get("name") or "run")
    blocks: list[Any] = [
        Text.assemble((title, "bold"), "  ", (ended.label, TONE_STYLE[ended.tone])),
        Text(f"{ended.sentence}\n"),
        _labelled(planning_lines(run)),
        Text(),
    ]
    for key, table in (("Task", result_tables.task_table(run)), ("Tax", result_tables.tax_table(run))):
        missing = _labelled([(key, f"not run: {missing_reason(run, key.lower())}")])
        blocks += [_terminal_table(table, width) if table.rows else missing, Text()]
    if (beside := result_tables.summaries_table(run)).rows:
        blocks += [_terminal_table(beside, width), Text()]
    if note := result_tables.tax_note(run):
        blocks += [Text(f"{note}\n")]
    blocks.append(_labelled(outcome_lines(run)))
    text = _captured(blocks, width, color)
    for key, label in COMMANDS:
        command = section(run, "commands").get(key)
        if command:
            text += f"\n{label}:\n  {plain(command)}\n"
    # The path stands alone on its line, so that a script may take the last line and a terminal may link it.
    text += f"\nReport:\n{plain(run.get('report') or 'not written')}"
    return re.sub(r"[ \t]+\n", "\n", re.sub(r"\n(\s*\n){2,}", "\n\n", text))


def render_table(table: Table, width: int = 120) -> str:
    """Render one table of the report for a terminal, without its charts.

    Args:
        table: The table.
        width: Columns of the terminal, at least 72 are used.

    Returns:
        Text without a trailing line feed; empty for a table without rows.
    """
    if not table.rows:
        return ""
    width = max(width, NARROWEST)
    text = _captured([_terminal_table(table, width)], width, False)
    return "\n".join(line.rstrip() for line in text.rstrip().splitlines())


def _captured(blocks: list[Any], width: int, color: bool) -> str:
    from rich.console import Console

    stream = io.StringIO()
    console = Console(
        file=stream,
        width=width,
        force_terminal=color,
        color_system="standard" if color else None,
        legacy_windows=False,
        highlight=False,
        markup=False,
        emoji=False,
        _environ={},  # COLUMNS and NO_COLOR are the caller's to read: equal input gives equal text
    )
    for block in blocks:
        console.print(block)
    return stream.getvalue()


def _labelled(lines: list[tuple[str, str]]) -> Any:
    from rich.table import Table as Grid
    from rich.text import Text

    grid = Grid.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True, min_width=8)
    grid.add_column(overflow="fold")
    for label, text in lines:
        grid.add_row(Text(label, style="dim"), Text(text))
    return grid


def _shown(table: Table, width: int) -> list[int]:
    hidden = () if width >= WIDE else ("metric",)
    return [i for i, column in enumerate(table.columns) if column.kind != "chart" and column.label not in hidden]


def _terminal_table(table: Table, width: int) -> Any:
    from rich import box
    from rich.console import Group
    from rich.table import Table as Grid
    from rich.text import Text

    drawn = Grid(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    shown = _shown(table, width)
    for column in (table.columns[index] for index in shown):
        numeric = column.kind in ("number", "verdict")
        justify: Literal["right", "left"] = "right" if column.kind == "number" else "left"
        drawn.add_column(Text(column.label), justify=justify, no_wrap=numeric, overflow="fold")
    for row in table.rows:
        drawn.add_row(*(Text(table.columns[index].text(row[index])) for index in shown))
    return Group(Text(table.caption, style="bold"), drawn)


def _markdown_text(text: str) -> str:
    escaped = plain(text)
    for character in "\\`*_{}[]<>|#!~&":
        escaped = escaped.replace(character, f"\\{character}")
    return escaped.replace("\n", "<br>")


def _markdown_table(table: Table) -> list[str]:
    if not table.rows:
        return []
    shown = _shown(table, WIDE)
    columns = [table.columns[index] for index in shown]
    lines = [f"**{_markdown_text(table.caption)}**", ""]
    lines.append("| " + " | ".join(_markdown_text(column.label) for column in columns) + " |")
    lines.append("|" + "|".join("---:" if column.kind == "number" else "---" for column in columns) + "|")
    for row in table.rows:
        cells = (_markdown_text(table.columns[index].text(row[index])) for index in shown)
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def _fenced(code: object, language: str = "") -> list[str]:
    text = plain(code)
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}{language}", text, fence, ""]


def _markdown_examples(run: Mapping[str, Any]) -> list[str]:
    examples = section(section(run, "task"), "examples")
    lines: list[str] = []
    for key, heading in (("won", "Won by tuning"), ("lost", "Lost by tuning")):
        for case in rows_of(examples.get(key))[:MOST_EXAMPLES]:
            named = f"{value(case.get('subset'))}, database {value(case.get('database'))}, {value(case.get('id'))}"
            lines += [f"**{heading}** ({_markdown_text(named)}): {_markdown_text(value(case.get('question')))}", ""]
            lines += _fenced("\n".join(f"-- {who}\n{value(case.get(who))}" for who in ("gold", "base", "tuned")), "sql")
    return lines


def render_markdown(run: Mapping[str, Any]) -> str:
    """Render a run as compact markdown, for a place that shows no HTML file.

    Args:
        run: The run document; any section may be missing or null.

    Returns:
        Markdown with tables; text from data and models is escaped.
    """
    ended = outcome(run)
    title = _markdown_text(str(run.get("version") or run.get("name") or "run"))
    lines = [f"# {title}: {ended.label}", "", _markdown_text(ended.sentence), ""]
    lines += [f"- **{label}**: {_markdown_text(text)}" for label, text in [*planning_lines(run), *outcome_lines(run)]]
    for heading, key, tables in (
        ("Decision", "decision", (planning_tables.candidates_table(run), planning_tables.failures_table(run))),
        ("Money", "money", money_tables.money_tables(run)),
        ("Which base", "bases", (advice_tables.bases_table(run),)),
        ("Tactics", "tactics", (advice_tables.tactics_table(run),)),
        ("Memory", "plan", (planning_tables.memory_table(run), planning_tables.alternatives_table(run))),
        ("Task score", "task", (result_tables.task_table(run), result_tables.summaries_table(run))),
        ("Alignment tax", "tax", (result_tables.tax_table(run),)),
        ("Gate", "gate", (result_tables.gate_table(run),)),
    ):
        lines += ["", f"## {heading}", ""]
        drawn = [line for table in tables for line in _markdown_table(table)]
        lines += drawn or [f"Not run: {_markdown_text(missing_reason(run, key))}."]
        if key == "tax" and (note := result_tables.tax_note(run)):
            lines += ["", _markdown_text(note)]
    examples = _markdown_examples(run)
    if examples:
        lines += ["", "## Examples", "", *examples]
    commands = [(label, section(run, "commands").get(key)) for key, label in COMMANDS]
    for label, command in commands:
        if command:
            lines += [f"**{label}**", "", *_fenced(command, "sh")]
    if run.get("report"):
        lines.append(f"Report: `{plain(run['report'])}`")
    text = "\n".join(lines)
    while "\n\n\n" in text:
        text = text.replace("\n\n\n", "\n\n")
    return text.strip() + "\n"
