"""What can a person decide at the monitor, and what does it mean in a state? Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from coordination.errors import NotFound, Refused
from coordination.model import commands
from coordination.model.events import AnyEvent
from coordination.model.state import State


class Verb(StrEnum):
    """What a person can decide here: the commands of the same names."""

    APPROVE = "approve"
    REJECT = "reject"
    CANCEL = "cancel"
    RETRY = "retry"
    PAUSE = "pause"
    RESUME = "resume"


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """A decision to be recorded. ``commit`` is what the person was shown: nobody approves what he did not see."""

    verb: Verb
    task: str = ""  # "": everything
    text: str = ""
    commit: str | None = None


def events_of(state: State, wish: Wish) -> Sequence[AnyEvent]:
    """What a wish means in a state. Raises Refused when it is about another commit than the one that was shown."""
    _check_shown(state, wish)
    match wish.verb:
        case Verb.APPROVE:
            return commands.approve(state, wish.task)
        case Verb.REJECT:
            return commands.reject(state, wish.task, wish.text)
        case Verb.CANCEL:
            return commands.cancel(state, wish.task, wish.text)
        case Verb.RETRY:
            return commands.retry(state, wish.task)
        case Verb.PAUSE:
            return commands.pause(state, wish.task or None, wish.text)
        case Verb.RESUME:
            return commands.resume(state, wish.task or None)


def _check_shown(state: State, wish: Wish) -> None:
    if wish.commit is None:
        return
    task = state.find(wish.task)
    if task.commit != wish.commit:
        found = task.commit[:12] or "none"
        raise Refused(f"{task.id} has another commit now ({found}) than when you were asked; look at it again")


def refusal(state: State, wish: Wish) -> str:
    """Why it is not possible in a state; "" when it is. Said before a person is asked for more."""
    try:
        events_of(state, wish)
    except (Refused, NotFound) as error:
        return str(error)
    return ""
