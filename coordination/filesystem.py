"""Can this filesystem keep our promises? Locks that another machine ignores and syncs that do not reach a disk cannot.

The list is of what is known not to suffice; anything else is believed. Read from ``/proc/self/mountinfo`` (see
proc_pid_mountinfo(5)); where there is none, nothing is refused.
"""

from __future__ import annotations

from pathlib import Path

from coordination.errors import Unsuitable

_REMOTE = frozenset(
    [
        "9p",
        "afs",
        "beegfs",
        "ceph",
        "cifs",
        "coda",
        "davfs",
        "fuse.glusterfs",
        "fuse.rclone",
        "fuse.s3fs",
        "fuse.sshfs",
        "fuse.vmhgfs-fuse",
        "glusterfs",
        "lustre",
        "ncpfs",
        "nfs",
        "nfs4",
        "orangefs",
        "smb2",
        "smb3",
        "smbfs",
        "vboxsf",
    ]
)
_MOUNTS = Path("/proc/self/mountinfo")
_BLANKS = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


def check(directory: Path, mounts: Path = _MOUNTS) -> None:
    """Raise Unsuitable when ``directory`` lies on a filesystem whose locks or syncs are not what we need."""
    try:
        table = mounts.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return
    kind = kind_of(str(directory.resolve()), table)
    if kind in _REMOTE:
        raise Unsuitable(
            f"{directory} is on a filesystem of type {kind}, whose locks and syncs are not what the log needs: "
            "point COORDINATION_HOME to a directory on a local disk"
        )


def kind_of(path: str, table: str) -> str:
    """The type of the filesystem that holds an absolute path: of the longest mount point above it, the last mounted."""
    best, found = -1, ""
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split(" ")
        if len(fields) < 5 or not after:  # noqa: PLR2004 - the mount point is the fifth field
            continue
        point = _plain(fields[4])
        above = path == point or path.startswith(point.rstrip("/") + "/")
        if above and len(point) >= best:
            best, found = len(point), after.split(" ")[0]
    return found


def _plain(field: str) -> str:
    for escaped, sign in _BLANKS.items():
        field = field.replace(escaped, sign)
    return field
