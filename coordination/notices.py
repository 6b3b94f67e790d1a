"""Of what that happens is a person told who is not looking? One sentence a notice. Pure."""

from __future__ import annotations

from collections import Counter

from coordination.model import events as e
from coordination.model.runs import Value
from coordination.model.state import State
from coordination.settings import NoticeKind


class Notice(Value, frozen=True, kw_only=True):
    """Something that somebody may want to know."""

    kind: NoticeKind
    text: str
    task: str = ""
    title: str = ""


class Seen(Value, frozen=True, kw_only=True):
    """What of the state before an event its notices depend on."""

    weather: dict[str, str]  # account -> what is in the way
    open: bool  # whether anything had not ended


def seen(state: State) -> Seen:
    """To be asked before the event is folded."""
    return Seen(weather={name: account.kind for name, account in state.accounts.items()}, open=bool(state.open))


def notices(event: e.AnyEvent, before: Seen, state: State) -> list[Notice]:
    """What is to be told of an event, in the state after it."""
    told = [*_of_event(event, state), *_of_weather(before, state)]
    if before.open and not state.open:
        counts = Counter(str(task.status) for task in state.tasks.values())
        ended = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
        told.append(Notice(kind="all_done", text=f"nothing is left to do: {ended}"))
    return told


def _of_event(event: e.AnyEvent, state: State) -> list[Notice]:
    match event:
        case e.TaskEscalated(task=name, reason=reason):
            return _about("needs_person", name, f"{name} needs a person: {reason}", state)
        case e.TaskMerged(task=name, merge=merge):
            return _about("merged", name, f"{name} landed as {merge[:12]}", state)
        case e.TaskDone(task=name):
            return _about("done", name, f"{name} is answered", state)
        case e.TaskFailed(task=name, reason=reason) | e.DependencyFailed(task=name, reason=reason):
            return _about("failed", name, f"{name} failed: {reason}", state)
        case e.BatchLost():
            return [Notice(kind="needs_person", text="a part of the log is lost, and everything is paused")]
    return []


def _about(kind: NoticeKind, name: str, text: str, state: State) -> list[Notice]:
    task = state.get(name)
    return [Notice(kind=kind, text=text, task=name, title=task.spec.title if task is not None else "")]


def _of_weather(before: Seen, state: State) -> list[Notice]:
    """What is in the way now and was not before: nothing starts on that account until it is over."""
    told = []
    for name, account in state.accounts.items():
        if account.kind and account.kind != before.weather.get(name, ""):
            kind: NoticeKind = "needs_person" if account.personal else "parked"
            told.append(Notice(kind=kind, text=f"{account.kind} of {name}, nothing more starts: {account.said}"))
    return told
