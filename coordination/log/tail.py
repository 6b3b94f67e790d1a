"""Through which descriptor is the newest segment written or synced? Opened anew when another file has its name."""

from __future__ import annotations

from pathlib import Path

from coordination.env import Env
from coordination.log import frames, segments
from coordination.log.names import Names
from coordination.log.page import Head


class Tail:
    """The newest segment, open. Used in one kind of turn only."""

    def __init__(self, directory: Path, names: Names, *, env: Env) -> None:
        self._directory = directory
        self._names = names
        self._env = env
        self._open: tuple[int, int, tuple[int, int]] | None = None  # segment, descriptor, file
        self._name = self._name_after = ""

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
        return found == frames.suffix(head.sum) + b"\n"

    def close(self) -> None:
        """Give the descriptor back."""
        if self._open is not None:
            (_, descriptor, _), self._open = self._open, None
            self._env.close(descriptor)
