"""How does the supervisor start at login, and again after a crash? As a service of systemd, of the user's own."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from coordination.cli._command import verb
from coordination.cli._session import Session
from coordination.errors import Unsuitable

STOP_SECONDS = 120
_PASSED = ("PATH", "COORDINATION_HOME", "COORDINATION_CLAUDE")

_UNIT = """\
# The supervisor of {where}
# made by `coord service`; make it anew when the repository or the Python environment moves.

[Unit]
Description=Supervisor of coding agents in {name}
StartLimitIntervalSec=600
StartLimitBurst=5

[Service]
Type=exec
ExecStart={start}
ExecStop={stop}
# Keys and logins, one NAME=value a line, in a file that only you can read.
EnvironmentFile=-%E/claude-coordination.env
{environment}
# A supervisor that crashed is started again, and adopts the runs that go on meanwhile: they are not ended with it.
Restart=on-failure
RestartSec=5
KillMode=process
# Wrong settings, somebody else's lock and a damaged log stay so until a person looks.
RestartPreventExitStatus=2 4 5
TimeoutStopSec={seconds}
# Runs are limited by control groups below ours.
Delegate=yes

[Install]
WantedBy=default.target
"""


@verb(
    "coord service > ~/.config/systemd/user/coord-shop.service",
    "systemctl --user daemon-reload && systemctl --user enable --now coord-shop",
    "loginctl enable-linger    # also without a login",
)
@click.pass_obj
def command(session: Session) -> None:
    """Print a systemd unit that runs the supervisor of this repository: at login, and again after a crash.

    Nothing is installed. The unit stops the supervisor as `coord stop` does, so agents finish their turn. PATH is that
    of this call; keys come from a file that the unit names and you write, and are never in the unit.
    """
    home = session.reading().home
    passed = {name: session.environment[name] for name in _PASSED if session.environment.get(name)}
    click.echo(unit(home.repository.root, passed), nl=False)


def unit(root: Path, environment: dict[str, str]) -> str:
    """The text of the unit. Raises Unsuitable for a path that cannot stand in one."""
    program = [sys.executable, "-P", "-m", "coordination", "-C", str(root)]
    return _UNIT.format(
        where=_described(str(root)),
        name=_described(root.name),
        start=" ".join(map(_word, [*program, "start", "--foreground"])),
        stop=" ".join(map(_word, [*program, "stop", "--timeout", str(STOP_SECONDS - 10)])),
        environment="\n".join(
            f"Environment={_word(f'{name}={value}', command=False)}" for name, value in environment.items()
        ),
        seconds=STOP_SECONDS,
    )


def _word(text: str, *, command: bool = True) -> str:
    """One word as systemd reads it: quoted, and with nothing in it that it would replace (systemd.syntax(7))."""
    if not text.isprintable():
        raise Unsuitable(f"expected a path without control characters, found {text!r}: it cannot stand in a unit")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
    return f'"{escaped.replace("$", "$$") if command else escaped}"'


def _described(text: str) -> str:
    return text.replace("%", "%%")
