"""Weather: what a service lets an account do just now, folded from how runs ended. An account is a backend's login.

One limit is everybody's: the first run that meets it parks all that would use the same account. When the time is over
one run tries (the *probe*), and only its success lets the others go on. How long to wait is a policy's to say; here
stand only the facts: what was met, when, how often in a row, and when the service said that it ends.
"""

from __future__ import annotations

from msgspec.structs import replace

from coordination.model import endings
from coordination.model.endings import How, kind_of
from coordination.model.runs import Ending, Outcome, Value


class Account(Value, frozen=True, kw_only=True):
    """The weather of one account. Instants in seconds since the epoch."""

    live: tuple[str, ...] = ()  # runs that use it now
    kind: str = ""  # of the bad weather, see ``endings``; "": nothing is in the way
    said: str = ""  # in the service's words
    since: float = 0.0  # when it was met last
    resets_at: float = 0.0  # when it ends, if the service said so
    storms: int = 0  # how often in a row it was met by a run that was planned after the time before
    met_by: str = ""  # the run that met it last
    probe: str = ""  # the run that tries whether it is over
    warned: float = 0.0  # share of a usage window that is used up, as the service warned
    warned_until: float = 0.0

    @property
    def personal(self) -> bool:
        """Whether no time helps, only a person."""
        return self.kind in endings.PERSONAL


def planned(account: Account, run: str) -> Account:
    """A run is going to use it; in bad weather that is the probe."""
    return replace(account, live=(*account.live, run), probe=run if account.kind else "")


def ended(account: Account, run: str, planned_at: float, outcome: Outcome, at: float) -> Account:
    """A run that used it has ended, at that instant."""
    account = replace(account, live=tuple(each for each in account.live if each != run))
    kind = kind_of(outcome)
    if kind.how is How.WAIT and outcome.ending is not Ending.STOPPED:
        # many fall in one storm; it is another one only for who set out after the last, or by a clock that went back
        further = not account.kind or planned_at > account.since or at < account.since
        return replace(
            account,
            kind=kind.name,
            said=outcome.reason,
            since=at if further else account.since,
            resets_at=outcome.resets_at if further else max(account.resets_at, outcome.resets_at),
            storms=account.storms + 1 if further else account.storms,
            met_by=run if further else account.met_by,
            probe="" if account.probe == run else account.probe,
        )
    if account.probe == run and not _was_served(outcome):
        return replace(account, probe="")  # it says nothing about the weather: another one tries
    if account.kind and planned_at <= account.since:
        return account  # it was served before
    fine = Account(live=account.live)
    warning = {"warned": outcome.warned, "warned_until": outcome.resets_at} if outcome.warned else {}
    return replace(fine, **warning)


def cleared(account: Account) -> Account:
    """A person says that it is over: the next run tries."""
    return replace(account, kind="", storms=0, probe="")


def _was_served(outcome: Outcome) -> bool:
    """Whether the service answered this run at all."""
    return outcome.ending is Ending.SUCCEEDED or outcome.usage.turns > 0
