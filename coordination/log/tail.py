"""Through which descriptor is the newest segment written or synced? Opened anew when another file has its name.

A segment may be *filled*: ahead of the lines stand line feeds, so that a sync need not write the file's new length as
well. The fill means nothing, `jq` does not see it, and any part of it may be missing.
"""

from __future__ import annotations

from pathlib import Path

from coordination import files
from coordination.env import Env
from coordination.log import frames, segments
from coordination.log.names import Names
from coordination.log.page import Head

_FILL_BYTES_MIN = 1 << 16
_FILL_BYTES_MAX = 1 << 22


class Tail:
    """The newest segment, open. Used in one kind of turn only."""

    def __init__(self, directory: Path, names: Names, *, env: Env) -> None:
        self._directory = directory
        self._names = names
        self._env = env
        self._open: tuple[int, int, tuple[int, int]] | None = None  # segment, descriptor, file
        self._name = self._name_after = ""
        self._filled = 0  # the file is at least that long: segments only grow

    def descriptor(self, segment: int) -> int:
        """Of that segment, whose name still means it. Raises OSError."""
        if self._open is not None and (self._open[0] != segment or self._names.file_id_at(self._name) != self._open[2]):
            self.close()
        if self._open is None:
            path = segments.path_of(self._directory, segment)
            self._name, self._name_after = str(path), str(segments.path_of(self._directory, segment + 1))
            descriptor = self._env.open_existing(path)
            self._open = (segment, descriptor, self._env.file_id(descriptor))
        return self._open[1]

    def follows(self, head: Head) -> bool:
        """Whether the files say the same as ``head``: its line ends there, nothing stands behind it, none is newer."""
        try:
            descriptor = self.descriptor(head.segment)
        except FileNotFoundError:
            return False  # recovery will say so
        if self._names.file_id_at(self._name_after) is not None:
            return False  # somebody put an old page back, or was killed while he made a segment
        begin = head.offset - frames.SUFFIX_BYTES
        found = self._env.read(descriptor, frames.SUFFIX_BYTES + 1, begin)
        return len(found) >= frames.SUFFIX_BYTES and found.rstrip(b"\n") == frames.suffix(head.sum)

    def fill(self, descriptor: int, head: Head, size: int) -> None:
        """See to it that the file is longer than the next ``size`` bytes, if there is room on the disk."""
        end = head.offset + size
        if end <= self._filled:
            return
        self._filled = max(self._env.size(descriptor), head.offset)
        if end <= self._filled:
            return
        wanted = max(end, min(max(2 * self._filled, _FILL_BYTES_MIN), self._filled + _FILL_BYTES_MAX))
        try:
            files.write_fully(descriptor, b"\n" * (wanted - self._filled), self._filled, env=self._env)
        except OSError:
            return  # the disk is nearly full: the line itself, which is smaller, may still find room
        self._filled = wanted

    def close(self) -> None:
        """Give the descriptor back."""
        if self._open is not None:
            (_, descriptor, _), self._open = self._open, None
            self._filled = 0
            self._env.close(descriptor)
