"""How does what landed come to the user's own branch?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from coordination.cli._command import json_option, verb
from coordination.cli._session import Session
from coordination.cli._terminal import dollars, emit, note, say

if TYPE_CHECKING:
    from coordination.coordinator import Coordinator
    from coordination.delivery import Delivery

REFUSED = 4
SHOWN_MAX = 100


@verb("coord land --dry-run", "coord land", "coord land --pr", "coord land --dry-run --json | jq .tasks")
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
@click.option("--now", is_flag=True, help="Bring what has landed by now, even while a task is landing.")
@click.option("--pr", is_flag=True, help="Push the integration branch and open a pull request by gh, instead.")
@json_option()
@click.pass_obj
def command(session: Session, dry_run: bool, now: bool, pr: bool, as_json: bool) -> int:
    """Bring what landed to your branch: [git] target is fast-forwarded to the integration branch.

    If the branch is checked out, the files come with it, as `git merge --ff-only` would bring them, without hooks. If
    anything stands in the way, nothing is changed: what it is and what to do about it is said. A file that was
    changed, that git does not know or that git ignores is never overwritten. When another branch is checked out, only
    the branch moves. With --pr nothing moves here: the integration branch is pushed, and the pull request opened or, if
    there is one, updated.

    Exit codes: 0 done, or nothing to do; 4 refused.
    """
    from coordination import delivery

    coordinator = session.reading() if dry_run else session.writing()
    found = delivery.survey(coordinator, now=now)
    if pr:
        return _request(coordinator, found, dry_run=dry_run, as_json=as_json)
    if not dry_run:
        found = delivery.deliver(coordinator, now=now)
    if as_json:
        emit(_row(found))
    else:
        _tell(found, dry_run=dry_run)
    return REFUSED if found.bringing.state == "refused" else 0


def _row(found: Delivery) -> dict[str, Any]:
    import msgspec

    row: dict[str, Any] = msgspec.to_builtins(found)
    what: dict[str, Any] = row.pop("bringing")
    diff = None if found.diff is None else msgspec.structs.asdict(found.diff)
    return what | row | {"diff": diff}


def _tell(found: Delivery, *, dry_run: bool) -> None:
    from coordination.errors import Refused

    what = found.bringing
    if what.state == "refused":
        state = "It may be half done" if what.unfinished else "Nothing was changed"
        raise Refused(f"{what.reason}. {state}. To go on: {what.remedy}")
    if what.state == "nothing":
        say(f"Nothing to do: {what.reason}.", whole=True)
        return
    if what.reason:
        say(f"Note: {what.reason}.", whole=True)
    _tell_tasks(found)
    where = "" if what.how == "checkout" else " (it is not checked out, so no file changes)"
    move = f"{what.target} {'would go' if dry_run else 'went'} from {what.old[:12]} to {what.new[:12]}{where}"
    say(f"{move}.", whole=True)


def _tell_tasks(found: Delivery) -> None:
    for task in found.tasks[:SHOWN_MAX]:
        judged = f"reviewed by {task.reviewer}" if task.reviewer else "no review needed"
        say(f"{task.task}  {task.title}")
        say(f"    {task.files} files, +{task.insertions} -{task.deletions}; {judged}; {dollars(task.cost_usd)}")
    if len(found.tasks) > SHOWN_MAX:
        say(f"… and {len(found.tasks) - SHOWN_MAX} more; --json has them all")
    merges = {task.merge for task in found.tasks}
    for step in found.commits:
        if step.commit not in merges:
            say(f"{step.commit[:12]}  {step.subject}")
    diff = found.diff
    if diff is not None:
        counts = f"{len(found.tasks)} tasks, {len(found.commits)} commits"
        say(f"{counts}: {diff.files} files, +{diff.insertions} -{diff.deletions}")


def _request(coordinator: Coordinator, found: Delivery, *, dry_run: bool, as_json: bool) -> int:
    import msgspec

    from coordination import delivery

    wanted = delivery.prepare(coordinator, found)
    if not dry_run:
        note(f"Pushes {wanted.branch} to {wanted.remote}, then asks gh for a pull request into {wanted.base}.")
        wanted = delivery.open_request(coordinator, wanted)
    if as_json:
        emit(_row(found) | {"pull_request": msgspec.to_builtins(wanted)})
        return 0
    _tell_tasks(found)
    if dry_run:
        say(f"Would push {wanted.branch} to {wanted.remote} and open a pull request into {wanted.base}: {wanted.title}")
    else:
        say(f"Pull request {wanted.state}: {wanted.url}", whole=True)
    return 0
