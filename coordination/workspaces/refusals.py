"""What may a workspace refuse, by name?

::

    Refused
    ├── NestedRepository      a directory below the workspace has a ``.git`` of its own, or is a submodule
    ├── UnresolvedConflict    conflict markers are still in files that a merge left for the run to settle
    └── HeadMoved             the workspace is not on its branch, or its branch lost the commit it started from
"""

from __future__ import annotations

from coordination.errors import Refused


class NestedRepository(Refused):
    """Git would record such a directory as a link, without its files. ``directories`` are relative to the workspace."""

    def __init__(self, message: str, *, directories: tuple[str, ...]) -> None:
        super().__init__(message)
        self.directories = directories


class UnresolvedConflict(Refused):
    """``files`` still hold conflict markers."""

    def __init__(self, message: str, *, files: tuple[str, ...]) -> None:
        super().__init__(message)
        self.files = files


class HeadMoved(Refused):
    """``found`` is where the workspace's HEAD is, ``expected`` where it should be."""

    def __init__(self, message: str, *, expected: str, found: str) -> None:
        super().__init__(message)
        self.expected = expected
        self.found = found


class BranchAstray(Refused):
    """The integration branch is gone, rewound, checked out or another name for one of the user's: nothing can land."""
