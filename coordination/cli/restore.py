"""How does somebody get back what was in a task's workspace before it was reset or removed?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coordination.cli._command import json_option, task_argument, verb
from coordination.cli._kept import describe, rows
from coordination.cli._session import Session
from coordination.cli._terminal import emit, say

if TYPE_CHECKING:
    from coordination.workspaces.upkeep import Kept


@verb("coord restore T7 --list", "coord restore T7 --to ../t7-files", "coord restore T7 --ref 2 --branch t7-again")
@task_argument
@click.option("--list", "lists", is_flag=True, help="Only say what is kept.")
@click.option("--ref", "number", type=click.IntRange(min=1), metavar="N", help="Which; the newest if none is named.")
@click.option(
    "--to", "directory", type=click.Path(path_type=Path), metavar="DIRECTORY", help="Into this new directory."
)
@click.option("--branch", default="", metavar="NAME", help="As this new branch; with --to, as a worktree on it.")
@json_option()
@click.pass_obj
def command(
    session: Session, task: str, lists: bool, number: int | None, directory: Path | None, branch: str, as_json: bool
) -> None:
    """Bring back what is kept of a task: files that were in no commit, and commits that were on no branch.

    Before a workspace is reset or removed, everything in it is kept under refs/coordination/preserved/TASK/N. It comes
    back as plain files in a new directory, as a new branch (one commit on top of where the workspace was), or with both
    options as a worktree. Nothing that exists is ever overwritten; what is kept stays kept.
    """
    coordinator = session.reading() if lists else session.writing()
    name = coordinator.state().find(task).id
    kept = coordinator.workspaces.kept(name)
    if lists:
        _list(name, kept, as_json=as_json)
        return
    if directory is None and not branch:
        raise click.UsageError("say where to: --to DIRECTORY or --branch NAME; --list says what there is")
    chosen = _chosen(name, kept, number)
    _check_branch(branch)
    root = coordinator.home.repository.root
    place = directory and directory.absolute()
    coordinator.workspaces.restore(chosen.commit, root, directory=place, branch=branch)
    if as_json:
        emit(rows([chosen])[0] | {"directory": str(place) if place else None, "branch": branch or None})
        return
    into = " on ".join(part for part in (str(place or ""), f"branch {branch}" if branch else "") if part)
    say(f"Restored {chosen.ref} into {into}.", whole=True)
    _tell_left_out(chosen)


def _chosen(task: str, kept: tuple[Kept, ...], number: int | None) -> Kept:
    from coordination.errors import NotFound

    if not kept:
        raise NotFound(f"nothing is kept of {task}: its workspaces were never reset or removed with anything in them")
    found = kept[-1] if number is None else next((one for one in kept if one.number == number), None)
    if found is None:
        known = ", ".join(str(one.number) for one in kept)
        raise NotFound(f"nothing is kept of {task} under number {number}; there are: {known}")
    return found


def _check_branch(name: str) -> None:
    from coordination.settings import is_ref_name

    if name and (not is_ref_name(name) or name.startswith("coordination/")):
        raise click.UsageError(f"expected the name of a branch of yours, not below coordination/, found {name!r}")


def _list(task: str, kept: tuple[Kept, ...], *, as_json: bool) -> None:
    if as_json:
        emit({"task": task, "kept": rows(kept)})
        return
    if not kept:
        say(f"Nothing is kept of {task}.")
    for line in describe(task, kept):
        say(line, whole=True)


def _tell_left_out(chosen: Kept) -> None:
    if chosen.left_out:
        named: list[Any] = list(chosen.left_out)
        say(f"Never kept, for size or because it may be secret: {', '.join(named)}", whole=True)
