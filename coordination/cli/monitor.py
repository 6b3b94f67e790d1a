"""What happens just now? The live view, or one frame of it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping

import click

from coordination.cli._command import verb
from coordination.cli._session import Session
from coordination.cli._terminal import note

_COLOURS_LEAST = 8


@verb("coord monitor", "coord monitor --agents", "coord monitor --once", "COLUMNS=160 coord monitor --once > frame.txt")
@click.option("--once", is_flag=True, help="Print one frame as plain text and end; so it is, too, without a terminal.")
@click.option("--agents", is_flag=True, help="Begin with the agents alone.")
@click.pass_obj
def command(session: Session, once: bool, agents: bool) -> int:
    """Watch what needs you, what agents do, what waits and why, what lands and what is spent; decide at a key.

    Works without a supervisor, which it then says. `?` lists the keys, `q` leaves. A damaged log is shown with what to
    run, and the exit code is 5. Without colours: NO_COLOR=1.
    """
    from coordination import monitor

    screen = monitor.Screen.AGENTS if agents else monitor.Screen.OVERVIEW
    coordinator = session.reading()
    live = not once and sys.stdin.isatty() and sys.stdout.isatty()
    if live and not _steerable(session.environment):
        note("This terminal says that it cannot be steered (TERM=dumb or none): this is one frame.")
        live = False
    if live:
        return monitor.watch(coordinator, session.writing, screen, colours=_coloured(session.environment))
    width, height = shutil.get_terminal_size()
    given = session.environment.get("LINES", "").isdigit() or sys.stdout.isatty()
    text, code = monitor.once(coordinator, screen, width, height if given else None)
    click.echo(text, nl=False)
    return code


def _steerable(environment: Mapping[str, str]) -> bool:
    return environment.get("TERM", "") not in ("", "dumb", "unknown")


def _coloured(environment: Mapping[str, str]) -> bool:
    """Whether the person wants colours and the terminal has some, as far as it can be known."""
    return not environment.get("NO_COLOR") and _colours(environment.get("TERM", "")) >= _COLOURS_LEAST


def _colours(term: str) -> int:
    """How many colours the terminal of that name has; where nobody knows, enough."""
    try:
        import curses

        curses.setupterm(term, os.open(os.devnull, os.O_RDONLY))
    except (ImportError, OSError, curses.error):
        return _COLOURS_LEAST
    return curses.tigetnum("colors")
