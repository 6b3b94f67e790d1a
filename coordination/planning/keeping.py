"""What of all that is kept may go, and why does the rest stay? Found things and state in, a verdict on each out.

Three rules stand above all settings:

* what belongs to a task that has not ended, waits for a person or has a run under way stays;
* what is in no other place stays; a person may say otherwise (``forget``) about what was kept under a ref long ago;
* what goes before its time because there is too much of it goes oldest first.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Literal

from coordination.model.runs import Value
from coordination.model.state import State, Task
from coordination.model.tasks import ENDED_WELL
from coordination.settings import Keep

Kind = Literal["workspace", "session", "transcript", "branch", "kept", "aside"]

DAY_SECONDS = 24 * 3600.0
_GIB = 1 << 30
_ON_DISK = ("workspace", "session", "transcript")  # what a quota can be met with: the rest is git's, and small
_ALONE = ("session", "transcript")  # holds nothing but words about work


class Found(Value, frozen=True, kw_only=True):
    """One thing that takes room."""

    kind: Kind
    name: str
    task: str = ""
    bytes: int = 0  # on disk; 0 for what git keeps
    at: float = 0.0  # since when nobody has needed it: when its task changed last, or when it was kept
    commit: str = ""  # of a branch or a ref
    content: str = ""  # how the integration branch or the target has all of it: see ``workspaces.containment``
    unneeded: str = ""  # of a workspace: why nobody needs it any more, as ``coord repair`` judges


class Verdict(Value, frozen=True, kw_only=True):
    """Whether it goes, and why it does or does not."""

    found: Found
    goes: bool
    why: str


def judge(
    found: Sequence[Found], state: State, keep: Keep, now: float, *, alone: bool = False, forget: bool = False
) -> tuple[Verdict, ...]:
    """A verdict on each, in the order given.

    ``alone``: nobody has asked, so only what needs no person's word goes. ``forget``: a person has said that refs which
    keep something that is nowhere else may go when they are older than ``keep.preserved_days``.
    """
    verdicts = [_verdict(one, state, keep, now, alone=alone, forget=forget) for one in found]
    over = _over(verdicts, keep)
    for at in sorted(range(len(found)), key=lambda place: (found[place].at, found[place].name)):
        if over <= 0:
            break
        if _may_go_early(found[at], state, alone=alone) and not verdicts[at].goes:
            verdicts[at] = Verdict(
                found=found[at], goes=True, why=f"more than {keep.gib:g} GiB is used; {_since(found[at])}"
            )
            over -= found[at].bytes
    return tuple(verdicts)


def idle(state: State, name: str) -> bool:
    """Whether a task has ended and nothing of it is under way: only then may anything of it go."""
    task = state.get(name)
    return task is not None and task.status.ended and not task.live


def _verdict(one: Found, state: State, keep: Keep, now: float, *, alone: bool, forget: bool) -> Verdict:
    task = state.get(one.task)
    goes, why = False, ""
    if one.kind == "aside":
        why = "it was put there so that nothing is lost: remove it yourself when you have looked"
    elif task is None:
        why = "the log knows no such task"
    elif not idle(state, task.id):
        why = f"{task.id} is {task.status}"
    elif one.kind == "workspace":
        goes, why = _workspace(one, task, keep, now, alone=alone)
    elif one.kind in _ALONE:
        goes, why = _aged(one, task, keep.days, now)
    elif alone:
        why = "only a person lets go of it: coord gc --apply"
    elif one.kind == "branch":
        goes, why = _branch(one, task, keep, now)
    else:
        goes, why = _kept(one, task, keep, now, forget=forget)
    return Verdict(found=one, goes=goes, why=why)


def _workspace(one: Found, task: Task, keep: Keep, now: float, *, alone: bool) -> tuple[bool, str]:
    if one.unneeded:
        return True, one.unneeded
    goes, why = _aged(one, task, keep.days, now)
    if goes and alone:
        return False, f"{why}, but only a person lets go of it: coord gc --apply"
    return goes, f"{why}; what is in it is kept under a ref" if goes else f"{why}; it is there to be looked at"


def _branch(one: Found, task: Task, keep: Keep, now: float) -> tuple[bool, str]:
    if not one.content:
        return False, f"{task.id} is {task.status}, and its commits are nowhere else"
    goes, why = _aged(one, task, keep.days, now)
    first = "" if one.content == "merged" else ", in other commits; these are kept under a ref"
    return goes, f"{why}; all of it has landed{first}"


def _kept(one: Found, task: Task, keep: Keep, now: float, *, forget: bool) -> tuple[bool, str]:
    if one.content:
        goes, why = _aged(one, task, keep.days, now)
        return goes, f"{why}; all of it has landed"
    old = now - one.at >= keep.preserved_days * DAY_SECONDS
    if old and forget:
        return True, f"it is nowhere else, and was kept for {keep.preserved_days:g} days: {_since(one)}"
    way = "; `coord gc --apply --forget` lets go of it" if old else ""
    return False, f"what is in it is nowhere else{way}"


def _aged(one: Found, task: Task, days: float, now: float) -> tuple[bool, str]:
    goes = now - one.at >= days * DAY_SECONDS
    until = "" if goes else f", kept until {_date(one.at + days * DAY_SECONDS)}"
    return goes, f"{task.id} is {task.status} since {_date(task.changed_at)}{until}"


def _over(verdicts: Sequence[Verdict], keep: Keep) -> int:
    """How many bytes are too many once everything has gone whose time has come."""
    stays = sum(verdict.found.bytes for verdict in verdicts if not verdict.goes and verdict.found.kind in _ON_DISK)
    return stays - int(keep.gib * _GIB) if keep.gib else 0


def _may_go_early(one: Found, state: State, *, alone: bool) -> bool:
    """Whether only its age speaks for it. The workspace of a task that ended badly goes only if a person asks."""
    if one.kind not in _ON_DISK or not one.bytes or not idle(state, one.task):
        return False
    task = state.get(one.task)
    return one.kind in _ALONE or not alone or (task is not None and task.status in ENDED_WELL)


def _since(one: Found) -> str:
    return f"nobody has needed it since {_date(one.at)}"


def _date(at: float) -> str:
    return datetime.fromtimestamp(max(at, 0.0), UTC).date().isoformat() if at < _FAR else "ever after"


_FAR = 2e11  # beyond the year 8000, where dates end
