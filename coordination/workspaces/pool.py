"""Is there a tree already that only has to become another commit? Those of workspaces that were taken down.

On a large repository a checkout takes seconds, so the tree of a workspace that goes is kept: renamed out of its place,
cleaned, and sealed; the next workspace takes it by renaming it back. What is kept is files and nothing else: git's own
directory is always made anew, so that no HEAD, index, setting, lock or merge of one workspace is another's.

::

    workspace ─ preserve ─ rename ─▶ pool/.giving/tree ─ weed, compare ─ rename ─▶ pool/<n>/{tree,index,seal.json}
    workspace ◀─ rename ─ compare with the seal, switch ─ pool/.taking/tree ◀─ rename ─ pool/<n>

Nothing that was said in the workspace is believed. Its own index is thrown away; every file's bytes are compared with
the commit's, every inode's mode, owner, links, attributes and times with what git would have made, and what differs is
removed and written again. A tree in which a process still lives is not kept. The index that the comparison gave lies
where no run can write, and at the taking it tells, by the times that the kernel keeps, whether anything changed since.

All of it happens under the lock of the workspaces' making. What a kill leaves under a name with a dot is removed by the
next one who gives or takes; what it leaves in a workspace's place is a tree that holds exactly its commit's files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from coordination.env import REAL
from coordination.errors import GitFailed
from coordination.files import make_directory
from coordination.workspaces.git import Git
from coordination.workspaces.place import Place, _deleted

_GIVING, _TAKING = ".giving", ".taking"
_CONVERTING = r"^core\.(attributesfile|autocrlf|eol)$"
_CONVERTS = r"eol=crlf|working-tree-encoding|(^|[[:space:]])ident([[:space:]]|$)"
_ATTRIBUTES = ":(top,glob)**/.gitattributes"
_LINK = 0o160000
_KEPT_MIN = 0.5  # of the files: to write more again takes longer than to make a new tree


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    """What a commit's tree consists of, by path, and how git would make it here."""

    files: dict[str, tuple[int, int]]  # mode and size
    directories: set[str]
    mask: int  # what is taken away from the modes of new files
    above: os.stat_result  # of the directory round the tree: what is new there has its owner


class _Seal(msgspec.Struct, frozen=True, kw_only=True):
    """How a tree was left."""

    commit: str
    bytes: int
    surroundings: str
    directories: dict[str, tuple[int, int, int]]  # by path, each byte as one character


def give(place: Place, git: Git) -> None:
    """Keep the tree of a workspace that is to go, if it is worth it and can be trusted. Its place is empty then.

    The caller has preserved what was in it. Whatever goes wrong, the tree stays where it was or is removed.
    """
    trim(place)
    commit = _worth_keeping(place, git)
    if not commit:
        return
    giving, numbers = place.pool / _GIVING, [number for number, _ in _entries(place)]
    try:
        make_directory(giving)
        git.tree.rename(giving / "tree")
        if not _inhabited(giving / "tree") and _sealed(place, giving, commit):
            giving.rename(place.pool / str(max(numbers, default=0) + 1))
    except (GitFailed, OSError, RecursionError, ValueError):  # ValueError: a partial clone lacks what it names
        pass  # nothing but time is lost: the next workspace is made from nothing
    _sweep(place)
    trim(place)


def take(place: Place, git: Git) -> None:
    """Fill a workspace that was made just now, and is empty, from the pool, if something there fits."""
    if place.pooling is None or not place.pooling.trees:
        return
    _sweep(place)
    trim(place)
    entries = [(entry, seal) for _, entry in reversed(_entries(place)) if (seal := _seal(entry))]
    commit = git.commit_at("HEAD") if entries else None
    if commit is None:
        return
    # the one that has the commit first, then the one that was given last
    for entry, seal in sorted(entries, key=lambda found: found[1].commit != commit):
        if _taken(place, git, entry, seal, commit):
            return


def trim(place: Place) -> None:
    """Remove what is more than the settings allow, the oldest first."""
    if place.pooling is None or not place.pool.is_dir():
        return
    trees, size = place.pooling.trees, place.pooling.bytes
    for _, entry in reversed(_entries(place)):
        seal = _seal(entry)
        if seal is None or trees < 1 or seal.bytes > size:
            place.discard(entry)
        else:
            trees, size = trees - 1, size - seal.bytes


def _entries(place: Place) -> list[tuple[int, Path]]:
    """The trees that are ready, in the order in which they were given."""
    if not place.pool.is_dir():
        return []
    return sorted((int(entry.name), entry) for entry in place.pool.iterdir() if entry.name.isdecimal())


def _sweep(place: Place) -> None:
    """Nothing is under way: whoever began something here held our lock, and is dead or done."""
    for name in (_GIVING, _TAKING):
        if (place.pool / name).exists():
            place.discard(place.pool / name)


def _worth_keeping(place: Place, git: Git) -> str:
    """The commit that a workspace's files are compared with; "" when its tree is not to be kept."""
    pooling = place.pooling
    if pooling is None or _count(git.directory / "index") < pooling.files_min:
        return ""
    if len(_entries(place)) >= pooling.trees:
        return ""  # what is there goes on being warm; to clean one more would be for nothing
    return git.commit_at("HEAD") or ""


def _count(index: Path) -> int:
    """How many files an index says it has. A lie costs time, and nothing else."""
    try:
        with index.open("rb") as stream:
            return int.from_bytes(stream.read(12)[8:], "big")
    except OSError:
        return 0


# -- giving


def _sealed(place: Place, giving: Path, commit: str) -> bool:
    """Make the tree exactly the commit's and write down how it was left; False when that cannot be."""
    git = _git(place, giving)
    wanted = _wanted(git, giving, commit)
    if not wanted.files or _converts(git, wanted, commit) or not _plain(giving / "tree", stat.S_IFDIR, 0o777, wanted):
        return False
    kept, size = _weed(giving / "tree", wanted)
    if place.pooling is None or size > place.pooling.bytes or kept < len(wanted.files) * _KEPT_MIN:
        return False
    git.run("read-tree", commit)  # knows nothing of any file's times: each one's content is looked at
    if not _unchanged(git):
        git.run("read-tree", "--reset", "-u", commit)
        if not _unchanged(git):
            return False
    times = {_told(name): _times(giving / "tree" / name) for name in ("", *sorted(wanted.directories))}
    seal = _Seal(commit=commit, bytes=size, surroundings=_surroundings(git), directories=times)
    (giving / "seal.json").write_bytes(msgspec.json.encode(seal))
    return True


def _wanted(git: Git, giving: Path, commit: str) -> _Wanted:
    files, directories = {}, set()
    for line in git.run("ls-tree", "-r", "-l", "-z", "--full-tree", commit).names:
        described, _, path = line.partition("\t")
        mode, _, _, size = described.split()
        if int(mode, 8) == _LINK:
            directories.add(path)  # a submodule is an empty directory here
        else:
            files[path] = int(mode, 8), int(size)
        above = path.rpartition("/")[0]
        while above and above not in directories:
            directories.add(above)
            above = above.rpartition("/")[0]
    return _Wanted(files=files, directories=directories, mask=_mask(), above=giving.stat())


def _converts(git: Git, wanted: _Wanted, commit: str) -> bool:
    """Whether git writes other bytes than a commit has. Then equal content would not mean equal files."""
    if _text(git.common / "info" / "attributes"):
        return True
    if git.run("config", "--includes", "--name-only", "--get-regexp", _CONVERTING, accept=(0, 1)).code == 0:
        return True
    if not any(path.rpartition("/")[2] == ".gitattributes" for path in wanted.files):
        return False
    asked = ("grep", "-q", "-i", "-E", "-e", _CONVERTS, commit, "--", _ATTRIBUTES)
    return git.run(*asked, accept=(0, 1), magic=True).code == 0


def _weed(tree: Path, wanted: _Wanted) -> tuple[int, int]:
    """Remove what the commit does not have, or git would have made otherwise. How many files are left; their size."""
    kept, size, left = 0, 0, [""]
    while left:
        where = left.pop()
        with os.scandir(tree / where) as found:
            entries = list(found)
        for entry in entries:
            path = f"{where}/{entry.name}" if where else entry.name
            if path in wanted.directories and _plain(entry, stat.S_IFDIR, 0o777, wanted):
                left.append(path)
            elif path in wanted.files and _as_made(entry, *wanted.files[path], wanted):
                kept += 1
                size += entry.stat(follow_symlinks=False).st_blocks * 512
            elif entry.is_dir(follow_symlinks=False):
                _deleted(Path(entry.path))
            else:
                Path(entry.path).unlink()
    return kept, size


def _as_made(entry: os.DirEntry[str], mode: int, size: int, wanted: _Wanted) -> bool:
    """Whether a file is as if git had written it and nobody had come near it since. What is in it is not looked at."""
    status = entry.stat(follow_symlinks=False)
    # another name, mode, owner, time or attribute moves one of the two times; only writing moves both
    if status.st_nlink != 1 or status.st_size != size or status.st_mtime_ns != status.st_ctime_ns:
        return False
    if stat.S_IFMT(mode) == stat.S_IFLNK:
        return _plain(entry, stat.S_IFLNK, None, wanted)
    return _plain(entry, stat.S_IFREG, 0o777 if mode & 0o100 else 0o666, wanted)


def _plain(entry: os.DirEntry[str] | Path, kind: int, mode: int | None, wanted: _Wanted) -> bool:
    """Whether something has the kind, modes and owner of what is new, and nothing else is attached to it."""
    status = entry.stat(follow_symlinks=False)
    if stat.S_IFMT(status.st_mode) != kind:
        return False
    if (status.st_uid, status.st_gid) != (wanted.above.st_uid, wanted.above.st_gid):
        return False
    inherited = wanted.above.st_mode & stat.S_ISGID if kind == stat.S_IFDIR else 0
    if mode is not None and stat.S_IMODE(status.st_mode) != (mode & ~wanted.mask | inherited):
        return False
    return not _attached(os.fspath(entry))


def _attached(path: str) -> bool:
    return any(not name.startswith("security.") for name in os.listxattr(path, follow_symlinks=False))


# -- taking


def _taken(place: Place, git: Git, entry: Path, seal: _Seal, commit: str) -> bool:
    """Put this tree into the workspace, if it can become its commit; else it is gone."""
    taking = place.pool / _TAKING
    entry.rename(taking)
    try:
        fits = _switched(place, taking, seal, commit)
    except (GitFailed, OSError):
        fits = False
    if fits:
        (git.tree / ".git").rename(taking / "tree" / ".git")
        git.tree.rmdir()
        (taking / "tree").rename(git.tree)
        (taking / "index").rename(git.directory / "index")  # last: until it is there, all is checked out once more
    _sweep(place)
    return fits


def _switched(place: Place, taking: Path, seal: _Seal, commit: str) -> bool:
    """Make the tree the commit's; False when it is not as it was sealed, or was written under other conditions."""
    git = _git(place, taking)
    if seal.surroundings != _surroundings(git):
        return False
    if any(_times(taking / "tree" / _untold(name)) != times for name, times in seal.directories.items()):
        return False
    if not _unchanged(git):
        return False
    if seal.commit == commit:
        return True
    # other attributes: git would write files in another way that are the same in both commits
    if git.run("diff-tree", "-r", "--name-only", seal.commit, commit, "--", _ATTRIBUTES, magic=True).out:
        return False
    git.run("read-tree", "-m", "-u", seal.commit, commit)
    return True


def _seal(entry: Path) -> _Seal | None:
    try:
        return msgspec.json.decode((entry / "seal.json").read_bytes(), type=_Seal)
    except (OSError, msgspec.DecodeError):
        return None


# -- both


def _git(place: Place, entry: Path) -> Git:
    return Git(place.common, tree=entry / "tree").with_index(entry / "index")


def _unchanged(git: Git) -> bool:
    """Whether every file is what the index says, by its times where the index knows them, else by its content."""
    return git.run("update-index", "--refresh", accept=(0, 1)).code == 0


def _times(directory: Path) -> tuple[int, int, int]:
    status = directory.lstat()
    return status.st_ino, status.st_mtime_ns, status.st_ctime_ns


def _told(name: str) -> str:
    return os.fsencode(name).decode("latin-1")  # a name that is no text can stand in JSON, too


def _untold(name: str) -> str:
    return os.fsdecode(name.encode("latin-1"))


def _surroundings(git: Git) -> str:
    """What else decides how a file is written; and the boot, since nothing here was ever synced to the disk."""
    import hashlib  # OpenSSL comes with it, and most repositories are too small for all this

    settings = git.run("config", "--list", "--includes", "-z").out
    known = (REAL.boot_id().encode(), str(_mask()).encode(), settings, _text(git.common / "info" / "attributes"))
    return hashlib.sha256(b"\0".join(known)).hexdigest()


def _mask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _text(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return b""


def _inhabited(tree: Path) -> bool:
    """Whether a process is still in there: by its directory, an open file, a mapping, a mount. Yes, if nobody says."""
    if not Path("/proc/self/maps").exists():
        return True
    return any(_inside(process, tree) for process in Path("/proc").iterdir() if process.name.isdecimal())


def _inside(process: Path, tree: Path) -> bool:
    try:
        if any(leads == tree or tree in leads.parents for leads in _leads(process)):
            return True
        # a mount is told by its place in its own filesystem, with blanks escaped: the end of the path is enough
        if f"/{_GIVING}/tree".encode() in (process / "mountinfo").read_bytes():
            return True
        return os.fsencode(tree) in (process / "maps").read_bytes()
    except OSError:
        return False  # it ended, or is not ours to look into


def _leads(process: Path) -> Iterator[Path]:
    for link in (process / "cwd", process / "root", *(process / "fd").iterdir()):
        with suppress(OSError):  # closed since it was listed
            yield link.readlink()
