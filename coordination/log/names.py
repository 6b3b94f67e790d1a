"""Do the names in a log's directory still mean the files that we have open? Asked in every turn, so it must be cheap.

Somebody may remove or replace any of them while we run, and then what we write would be in nobody's log. While nothing
in the directory changed, no name did: so the directory is asked, once a turn, and the names only when it moved.
"""

from __future__ import annotations

from pathlib import Path

from coordination.env import Env

FileId = tuple[int, int]


class Names:
    """What the names meant when we looked. Used by one thread at a time."""

    def __init__(self, directory: Path, *, env: Env) -> None:
        self._directory = str(directory)  # asked for at every append, and text is what the system wants
        self._env = env
        self._stamp: tuple[int, int, int] | None = None
        self._known: dict[str, FileId | None] = {}

    def look(self) -> None:
        """Begin anew if anything changed since the last look. Before asking for names, never after."""
        stamp = self._env.names_stamp(self._directory)
        if stamp is None or stamp != self._stamp:
            self._known.clear()
        self._stamp = stamp

    def file_id_at(self, name: str) -> FileId | None:
        """Which file has this name, in the directory, as of the last look; None when none has."""
        if name not in self._known:
            self._known[name] = self._env.file_id_at(name)
        return self._known[name]
