"""A state directory on a filesystem that cannot keep our promises is refused, by name and with the way out."""

from __future__ import annotations

from pathlib import Path

import pytest

from coordination.errors import Unsuitable
from coordination.filesystem import check, kind_of

TABLE = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
31 22 0:27 / /home rw,nosuid - nfs4 server:/home rw,vers=4.2
32 31 0:28 / /home/ada/local\040disk rw - xfs /dev/vdb rw
33 22 0:29 / /mnt rw - ext4 /dev/vdc rw
34 33 0:30 / /mnt rw master:1 propagate_from:2 - cifs //server/share rw
half a line
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/srv/project", "ext4"),
        ("/home", "nfs4"),
        ("/home/ada/project", "nfs4"),
        ("/homely", "ext4"),
        ("/home/ada/local disk/project", "xfs"),
        ("/mnt/project", "cifs"),
    ],
)
def test_the_longest_and_last_mount_point_counts(path: str, kind: str) -> None:
    """A path belongs to the innermost mount above it, and of two on one point to the one on top."""
    assert kind_of(path, TABLE) == kind


def test_a_remote_filesystem_is_refused_with_the_way_out(tmp_path: Path) -> None:
    """The message names the type and what to set."""
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"31 22 0:27 / {tmp_path} rw - nfs4 server:/home rw\n")
    with pytest.raises(Unsuitable, match=r"nfs4.*COORDINATION_HOME"):
        check(tmp_path / "state", mounts)


def test_a_local_one_and_an_unknown_table_are_believed(tmp_path: Path) -> None:
    """Nothing is refused on suspicion."""
    check(tmp_path, tmp_path / "no such table")
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"31 22 0:27 / {tmp_path} rw - btrfs /dev/vda rw\n")
    check(tmp_path, mounts)
