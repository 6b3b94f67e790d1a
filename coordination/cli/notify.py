"""Who tells a person that is not looking? This, while a supervisor runs; and once, to try it."""

from __future__ import annotations

import os
import sys
import threading

import click

from coordination.cli._command import verb
from coordination.cli._session import Session
from coordination.cli._terminal import line, note, say
from coordination.errors import Refused


@verb("coord notify --test", "coord notify < /dev/tty    # until its input ends")
@click.option("--test", "tests", is_flag=True, help="Send one message now, and say whether it arrived.")
@click.pass_obj
def command(session: Session, tests: bool) -> int:
    """Tell the command and the webhook of [notify] in coordination.toml what happens, until standard input ends.

    The supervisor does this by itself where [notify] names either: you only need --test. Exit codes: 0 done; 1 the
    message of --test did not arrive; 4 another process tells already, or there is nobody to tell.
    """
    from coordination.notices import Notice
    from coordination.notifying import Notifier

    coordinator = session.writing()
    if not (coordinator.settings.notify.command or coordinator.settings.notify.webhook):
        raise Refused(f"[notify] in {coordinator.home.settings_file} names neither a command nor a webhook")
    notifier, ended = Notifier(coordinator, session.environment, lambda why: note(line(why))), threading.Event()
    if tests:
        told = Notice(kind="needs_person", text="this is only a test of [notify]")
        arrived = notifier.tell([told], ended, tries_max=1)
        if arrived:
            say("It arrived.")
        return 0 if arrived else 1
    threading.Thread(target=_listen, args=(ended,), daemon=True).start()
    notifier.run(ended)
    return 0


def _listen(ended: threading.Event) -> None:
    """Whoever started us holds the other end of our input for life."""
    while os.read(sys.stdin.fileno(), 4096):
        pass
    ended.set()
