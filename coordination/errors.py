"""What can go wrong, as one tree.

::

    CoordinationError                    exit code 1
    ├── UsageError                       2   the call or a settings file is not of the form we accept
    │   └── SettingsError                    coordination.toml: names the file, the key and the nearest known key
    ├── NotFound                         3   no such task or run
    ├── Refused                          4   illegal in this state; says who or what stands in the way
    │   ├── LockHeld                         another process owns it: says who
    │   ├── OutcomeUnknown                   a sync failed: what was appended may or may not be durable
    │   └── Unsuitable                       filesystem, repository or environment cannot carry us
    ├── LogDamaged                       5   where, and what to run
    ├── Conflict                             the log's head moved: decide again (never reaches a person)
    ├── Rejected                             a task file that is not accepted, with the reason
    ├── SetUpFailed                          a workspace could not be made ready, as [setup] says
    └── GitFailed                            a git call that exited non-zero

Every error carries its data as attributes; the message is for people and is never parsed.
"""

from __future__ import annotations


class CoordinationError(Exception):
    """Base of everything this package raises on purpose."""

    exit_code = 1


class UsageError(CoordinationError):
    """The call is not of the form we accept."""

    exit_code = 2


class SettingsError(UsageError):
    """A settings file holds something we do not know or accept."""

    def __init__(self, message: str, *, file: str = "", key: str = "") -> None:
        super().__init__(message)
        self.file = file
        self.key = key


class NotFound(CoordinationError):
    """No such task or run."""

    exit_code = 3


class Refused(CoordinationError):
    """What was asked is illegal in this state."""

    exit_code = 4


class LockHeld(Refused):
    """Another process owns what was asked for."""

    def __init__(self, message: str, *, holder: str = "") -> None:
        super().__init__(message)
        self.holder = holder


class OutcomeUnknown(Refused):
    """A sync failed after bytes were written: they may or may not survive. Never retried in place."""


class Unsuitable(Refused):
    """The filesystem, repository or environment cannot carry what we promise."""


class LogDamaged(CoordinationError):
    """The log contradicts itself. Nothing is served beyond the damage."""

    exit_code = 5

    def __init__(self, message: str, *, path: str = "", offset: int = 0, seq: int = 0) -> None:
        super().__init__(message)
        self.path = path
        self.offset = offset
        self.seq = seq


class Conflict(CoordinationError):
    """The log's head is no longer where the caller decided: refresh and decide again."""

    def __init__(self, message: str, *, head: int) -> None:
        super().__init__(message)
        self.head = head


class Rejected(CoordinationError):
    """A task that is not accepted: which field, what was expected, what was found."""

    exit_code = 2

    def __init__(self, reason: str, *, field: str = "", expected: str = "", found: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field
        self.expected = expected
        self.found = found


class SetUpFailed(CoordinationError):
    """A workspace could not be made ready: says by what, with the end of what it printed."""


class GitFailed(CoordinationError):
    """A git call exited non-zero."""

    def __init__(self, message: str, *, code: int, stderr: str) -> None:
        super().__init__(message)
        self.code = code
        self.stderr = stderr
