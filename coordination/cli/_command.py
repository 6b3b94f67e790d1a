"""What do all commands have in common? A name from their module, examples in their help, ``--json`` when they read."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from coordination.errors import CoordinationError

OFFERED_MAX = 200

F = TypeVar("F", bound=Callable[..., Any])


class Command(click.Command):
    """A command whose help ends with examples."""

    examples: Sequence[str] = ()

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples as they would be typed."""
        super().format_epilog(ctx, formatter)
        with formatter.section("Examples"):
            for example in self.examples:
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


def verb(*examples: str) -> Callable[[Callable[..., Any]], Command]:
    """Make a function the command of its module, named like it; its docstring is the help."""

    def made(function: Callable[..., Any]) -> Command:
        name = function.__module__.rpartition(".")[2].replace("_", "-")
        command = click.command(name, cls=Command)(function)
        command.examples = examples
        return command

    return made


def json_option(what: str = "Print one JSON object.") -> Callable[[F], F]:
    """``--json`` of a command that reads; its parameter is ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help=what)


def known_tasks(context: click.Context, _parameter: click.Parameter, begun: str) -> list[str]:
    """Ids for a shell that completes: those that begin so, what has not ended first. Silent when there is no log."""
    from coordination.cli._session import Session

    directory = context.find_root().params.get("directory") or Path()
    try:
        state = Session(directory=directory, environment=os.environ).reading().state()
    except (CoordinationError, OSError):
        return []
    ids = [*state.open, *(task for task in reversed(state.tasks) if task not in state.open)]
    return [task for task in ids if task.lower().startswith(begun.lower())][:OFFERED_MAX]


task_argument = click.argument("task", shell_complete=known_tasks)
"""The id of a task, whatever its case."""

reason_option = click.option("--reason", default="", metavar="TEXT", help="Why; it is recorded.")
"""Why a person decided so."""
