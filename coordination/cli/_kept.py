"""How is told what is kept of a task, and how it comes back?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordination.workspaces.upkeep import Kept

_UNIT = 1024


def rows(kept: Sequence[Kept]) -> list[dict[str, Any]]:
    """As JSON."""
    import msgspec

    from coordination.views import moment

    return [msgspec.to_builtins(one) | {"at": moment(one.at)} for one in kept]


def describe(task: str, kept: Sequence[Kept]) -> Iterator[str]:
    """In words: when, what, and the command to type."""
    from coordination.views import moment

    for one in kept:
        whose = f"of workspace {one.workspace}" if one.workspace else "of its branch"
        yield f"{one.ref}  {moment(one.at)}, {whose}: {_holds(one)}"
        yield f"    coord restore {task} --ref {one.number} --to DIRECTORY"


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < _UNIT:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= _UNIT
    return f"{count:.1f} GiB"


def _holds(one: Kept) -> str:
    more = f" and {one.files - len(one.names)} more" if one.files > len(one.names) else ""
    files = f"{one.files} files ({size(one.bytes)}) in no commit: {', '.join(one.names)}{more}" if one.files else ""
    commits = f"{one.commits} commits on no branch" if one.commits else ""
    left = f"not kept: {len(one.left_out)}" if one.left_out else ""
    return "; ".join(part for part in (files, commits, left) if part) or f"where its HEAD was ({one.base[:12]})"
