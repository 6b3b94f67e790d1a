"""What can be typed? The group ``coord``: it finds its commands, and turns what went wrong into an exit code.

Every module here whose name does not begin with an underscore is a command and exports it as ``command``. A command
returns its exit code, or nothing for 0. It imports what it needs when it runs, so that help stays fast.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, cast

import click

from coordination import __version__
from coordination.cli._session import Session
from coordination.cli._terminal import plain
from coordination.errors import CoordinationError, Rejected

INTERRUPTED = 130
BROKEN_PIPE = 141


class Commands(click.Group):
    """The commands are the modules of this package: to add one, add a file."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all commands."""
        del ctx
        return sorted(_modules())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name; its module is imported only when it is asked for."""
        del ctx
        module = _modules().get(cmd_name)
        return None if module is None else cast(click.Command, importlib.import_module(module).command)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises ReaderGoneError for a closed pipe, which click itself would call a failure."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderGoneError from error


class ReaderGoneError(Exception):
    """Whoever read our output has enough."""


def _modules() -> dict[str, str]:
    names = [found.name for found in pkgutil.iter_modules(__path__) if not found.name.startswith("_")]
    return {name.replace("_", "-"): f"{__name__}.{name}" for name in names}


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "-C",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Work in the repository round DIR instead of the present directory.",
)
@click.version_option(__version__, message="coord %(version)s")
@click.pass_context
def group(context: click.Context, directory: Path) -> None:
    """Coordinate parallel Claude Code instances in one git repository.

    Tasks come in as files or by `coord submit`; agents work on them in worktrees of their own; approved work lands on
    the branch coordination/integration. Exit codes: 0 done, 1 failed, 2 usage, 3 no such task or run, 4 refused,
    5 the log is damaged.
    """
    context.obj = Session(directory=directory, environment=os.environ)


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    for stream in (sys.stdout, sys.stderr):
        # what a terminal's encoding cannot show must not keep the rest from it
        cast(Any, stream).reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code. One of the two places that catch broadly."""
    try:
        code = group.main(list(arguments), prog_name="coord", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except CoordinationError as error:
        return _failed(_explained(error), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except (ReaderGoneError, BrokenPipeError):
        # the interpreter would complain when it flushes at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except Exception as error:
        if os.environ.get("COORD_DEBUG"):
            traceback.print_exc()
        told = f"{type(error).__name__}: {error}"
        return _failed(f"{told}. This was not expected; COORD_DEBUG=1 shows where it happened", 1)
    return code if isinstance(code, int) else 0


def _failed(message: str, code: int) -> int:
    click.echo(f"coord: {plain(message)}", err=True)
    return code


def _explained(error: CoordinationError) -> str:
    if not isinstance(error, Rejected):
        return str(error)
    parts = {"field": error.field, "expected": error.expected, "found": error.found}
    return "\n".join([f"rejected: {error.reason}", *(f"  {name}: {said}" for name, said in parts.items() if said)])
