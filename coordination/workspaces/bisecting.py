"""Which of several changes land together, and which of them is to blame when their gates fail? Pure.

What is merged, tested and moved is the caller's (``Steps``); here is only the order. The branch goes nowhere but to
merges that passed, and of several nobody is sent back but for a merge that fails where what it stands on passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Fate(StrEnum):
    """What became of one of them."""

    MERGED = "merged"
    CONFLICT = "conflict"
    FAILED = "gate_failed"
    MOVED = "moved"  # it passed, but somebody else moved the branch meanwhile
    LEFT = "left"  # nothing is known of it


@dataclass(frozen=True, kw_only=True, slots=True)
class Chain:
    """Merges on top of each other, one a task, the first on what the branch has."""

    tasks: Sequence[str]
    conflicting: Sequence[str] = ()  # with what the branch has
    postponed: Sequence[str] = ()  # with others of the chain only, and whether those land is not known yet


class Steps(Protocol):
    """Whoever merges, tests and moves. ``count`` means the first so many of a chain; 0: what they stand on."""

    def chain(self, tasks: Sequence[str]) -> Chain:
        """Merge them in this order, as far as they can be merged."""

    def passes(self, chain: Chain, count: int) -> bool:
        """Whether the gates pass there."""

    def moves(self, chain: Chain, count: int) -> bool:
        """Put the branch there; False when it is no longer where it was."""

    def stopping(self) -> bool:
        """Whether nothing more is to be begun."""


def settle(tasks: Sequence[str], steps: Steps) -> dict[str, Fate]:
    """What became of each. Tasks are named in the order in which they are to land.

    All of them are tested at once; if that fails, log2(n) tests say which one fails first. What is before it lands, it
    goes back, and the rest is merged anew. After a failure half as many are tried together, after a success twice as
    many: where much is bad, few are searched at a time.
    """
    fates = dict.fromkeys(tasks, Fate.LEFT)
    pending, size, going = list(tasks), len(tasks), True
    while pending and going and not steps.stopping():
        chain = steps.chain(pending[:size])
        found = _searched(chain, steps, confirmed=len(tasks) > 1)
        going = found.going
        fates.update(dict.fromkeys(chain.conflicting, Fate.CONFLICT))
        if found.bad is not None:
            fates[found.bad] = Fate.FAILED
            size = max(1, size // 2)
        else:
            size *= 2
        if found.good:
            moves = steps.moves(chain, found.good)
            going = going and moves
            fates.update(dict.fromkeys(chain.tasks[: found.good], Fate.MERGED if moves else Fate.MOVED))
        pending = [task for task in pending if fates[task] is Fate.LEFT]
    return fates


@dataclass(frozen=True, kw_only=True, slots=True)
class _Found:
    good: int  # so many pass, tested together
    bad: str | None = None  # the next one fails
    going: bool = True  # whether there is any use in going on


def _searched(chain: Chain, steps: Steps, *, confirmed: bool) -> _Found:
    """How many of the chain pass, and who is to blame that no more do.

    ``confirmed``: when the first one fails, what it stands on must pass. If it does not, the first one goes back all
    the same, for somebody must look at it; the others wait until it has.
    """
    good, bad = 0, len(chain.tasks)
    if not chain.tasks or steps.passes(chain, bad):
        return _Found(good=bad)
    while bad - good > 1:
        if steps.stopping():
            return _Found(good=good, going=False)
        middle = (good + bad) // 2
        if steps.passes(chain, middle):
            good = middle
        else:
            bad = middle
    going = good > 0 or not confirmed or steps.passes(chain, 0)
    return _Found(good=good, bad=chain.tasks[bad - 1], going=going)
