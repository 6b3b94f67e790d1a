"""What happens just now, and what needs a person? A live view of one repository's coordination, for a terminal.

::

    files ──▶ watching ──▶ seen ──▶ frames (papers, cells) ──▶ app ──▶ terminal
                                      ▲                          │
                                    place ◀────────── keys ──────┤
    log ◀── deciding ◀────────────── wish ───────────────────────┘

``watching`` and ``deciding`` do what has effects, ``app`` speaks with the terminal, and everything between is pure: a
frame follows from what was seen and from the place of the person who looks. It reads files only, so it works when no
supervisor runs, and says so.
"""

from __future__ import annotations

from collections.abc import Callable

from coordination.coordinator import Coordinator
from coordination.errors import CoordinationError
from coordination.monitor.place import Place, Screen

__all__ = ["Screen", "once", "watch"]


def once(coordinator: Coordinator, screen: Screen, width: int, height: int | None) -> tuple[str, int]:
    """One frame as plain text, and the exit code that it stands for."""
    from coordination.monitor import frames
    from coordination.monitor.watching import Watch

    watch = Watch(coordinator)
    text = frames.plain_text(watch.look(), Place(screen=screen), width, height)
    return text, _code(watch.trouble)


def watch(coordinator: Coordinator, writing: Callable[[], Coordinator], screen: Screen, *, colours: bool) -> int:
    """Show it until the person leaves; the exit code. Decisions are recorded through ``writing``."""
    from coordination.monitor.app import Monitor
    from coordination.monitor.deciding import Decisions
    from coordination.monitor.watching import Watch

    seeing = Watch(coordinator)
    Monitor(coordinator, seeing, Decisions(writing), Place(screen=screen), colours=colours).show()
    return _code(seeing.trouble)


def _code(trouble: CoordinationError | OSError | None) -> int:
    if trouble is None:
        return 0
    return trouble.exit_code if isinstance(trouble, CoordinationError) else 1
