"""What of the work that nobody synced is on the disk after a power cut?

Files and directories exist twice: as everybody sees them (the page cache) and as they are on the disk. Between the two
lie *changes* in the order they were made. A sync moves them to the disk. A power cut lets any part of them arrive, in
any order, torn anywhere. A failed sync lets any part arrive and forgets the others, with or without telling the cache.

The model is harsher than filesystems are, and that is on purpose: without a sync of the directory any subset of what
happened to its names may be lost, also behind a later one; a byte that was written over and not synced may be the old
or the new one regardless of its neighbours; and a forgotten byte does not become dirty again with its block.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from random import Random

WORD = 8
_GRANULES = (1, 1, WORD, 512, 4096)
_PIECES_MAX = 5
_CHANGES_MAX = 512

Change = tuple[int, bytes | None]  # bytes at an offset; or, with None, the file's new size
Naming = tuple["str | None", "str | None", "Node | None"]  # name taken away, name given, to what: one atomic step


class File:
    """A regular file: ``cache`` is what everybody reads, ``disk`` what a power cut leaves for certain."""

    __slots__ = ("cache", "changes", "disk", "holder", "links", "mapped", "number", "opened")

    def __init__(self, number: int) -> None:
        self.number = number
        self.cache = bytearray()
        self.disk = bytearray()
        self.changes: list[Change] = []
        self.holder: object | None = None  # the open description through which it is locked
        self.mapped = False
        self.links = 0
        self.opened = 0

    def change(self, change: Change) -> None:
        """Let everybody see it, and the disk perhaps."""
        apply(self.cache, change)
        self.changes.append(change)
        if len(self.changes) > _CHANGES_MAX:  # sooner or later the system writes on its own
            self._arrive(_CHANGES_MAX // 2)

    def sync(self) -> None:
        """Bring all changes to the disk."""
        self._arrive(len(self.changes))

    def forget(self, arrived: bytearray, *, dropped: bool) -> None:
        """Fail to sync: ``arrived`` is on the disk and the rest is clean. Dropped: the cache is read anew from there.

        Not dropped, everybody goes on reading what will never reach the disk, and the next sync succeeds.
        """
        self.disk = arrived
        self.changes = []
        if dropped:
            self.evict()

    def evict(self) -> None:
        """Read clean bytes anew from the disk, as happens when memory is short."""
        self.cache[:] = self.disk
        for change in self.changes:
            apply(self.cache, change)

    def restart(self, arrived: bytearray) -> None:
        """Begin anew after a power cut, from what arrived."""
        self.disk = arrived
        self.cache = bytearray(arrived)
        self.changes = []
        self.holder = None
        self.mapped = False
        self.opened = 0

    def copy(self) -> File:
        """The same file in another world, closed."""
        twin = File(self.number)
        twin.cache, twin.disk, twin.changes = bytearray(self.cache), bytearray(self.disk), list(self.changes)
        twin.links, twin.mapped = self.links, self.mapped
        return twin

    def _arrive(self, number: int) -> None:
        for change in self.changes[:number]:
            apply(self.disk, change)
        del self.changes[:number]


class Directory:
    """Names: ``entries`` is what everybody sees, ``disk`` what a power cut leaves for certain."""

    __slots__ = ("changed", "changes", "disk", "entries", "number")

    def __init__(self, number: int) -> None:
        self.number = number
        self.entries: dict[str, Node] = {}
        self.disk: dict[str, Node] = {}
        self.changes: list[Naming] = []
        self.changed = 0  # how often: stands for the time of the last change

    def change(self, naming: Naming) -> None:
        """Let everybody see it, and the disk perhaps."""
        self.changed += 1
        name(self.entries, naming)
        self.changes.append(naming)

    def sync(self) -> None:
        """Bring all changes to the disk."""
        for naming in self.changes:
            name(self.disk, naming)
        self.changes = []

    def forget(self, arrived: dict[str, Node]) -> None:
        """Fail to sync: these names are on the disk; everybody goes on seeing the others, and no sync brings them.

        A new directory is not forgotten, because nobody could know that, nor do anything about it.
        """
        self.disk = arrived
        self.changes = [change for change in self.changes if isinstance(change[2], Directory)]

    def restart(self, arrived: dict[str, Node]) -> None:
        """Begin anew after a power cut, from what arrived."""
        self.disk = arrived
        self.entries = dict(arrived)
        self.changes = []


Node = File | Directory


def apply(content: bytearray, change: Change) -> None:
    """Carry out one change; what lies between an old end and the place of a write is zeroes."""
    offset, data = change
    if (gap := offset - len(content)) > 0:
        content.extend(bytes(gap))
    if data is None:
        del content[offset:]
    else:
        content[offset : offset + len(data)] = data


def name(entries: dict[str, Node], naming: Naming) -> None:
    """Carry out one change of names."""
    old, new, node = naming
    if old is not None:
        entries.pop(old, None)
    if new is not None and node is not None:
        entries[new] = node


# ---- chance: one of the possible disks -------------------------------------------------------------------------------


def chance_content(file: File, dice: Random) -> bytearray:
    """What a power cut may leave of a file: nothing new, all of it, a torn beginning, or a patchwork."""
    content, changes = bytearray(file.disk), file.changes
    if not changes:
        return content
    luck = dice.random()
    if luck < 0.2:
        return content
    if luck < 0.4:
        return content_after(file, len(changes))
    if luck < 0.7:
        whole = dice.randrange(len(changes))
        return content_after(file, whole, dice.randrange(len(changes[whole][1] or b"") + 1))
    return _patchwork(file, dice)


def content_after(file: File, whole: int, torn: int = 0) -> bytearray:
    """The disk after the first ``whole`` changes, and the first ``torn`` bytes of the next one."""
    content = bytearray(file.disk)
    for change in file.changes[:whole]:
        apply(content, change)
    if torn:
        offset, data = file.changes[whole]
        apply(content, (offset, (data or b"")[:torn]))
    return content


def _patchwork(file: File, dice: Random) -> bytearray:
    """Every piece of the file is as old as it likes; so is the file's size."""
    last = len(file.changes)
    pieces: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for piece in _pieces(file, dice):
        pieces[dice.randrange(last + 1)].append(piece)
    size_age = dice.choice((last, last, dice.randrange(last + 1)))
    filling = dice.choice((b"\0", b"\n"))
    content, result, size = bytearray(file.disk), bytearray(file.disk), 0
    for age in range(last + 1):
        for begin, end in pieces.get(age, ()):
            apply(result, (begin, bytes(content[begin:end]).ljust(end - begin, filling)))
        if size_age == age:
            size = len(content)
        if age < last:
            apply(content, file.changes[age])
    apply(result, (size, None))
    return result


def _pieces(file: File, dice: Random) -> Iterator[tuple[int, int]]:
    touched = [(offset, offset + len(data)) for offset, data in file.changes if data]
    if file.mapped and len(touched) > 1:  # the words of a page go their own ways
        yield from sorted({extent for extent in touched if extent[1] - extent[0] == WORD})
        return
    first, last = min((begin for begin, _ in touched), default=0), max((end for _, end in touched), default=0)
    granule = dice.choice(_GRANULES)
    cuts = {dice.randrange(first, last + 1) // granule * granule for _ in range(dice.randrange(_PIECES_MAX))}
    edges = sorted({first, last, *(cut for cut in cuts if cut > first)})
    yield from pairwise(edges)


def chance_names(directory: Directory, dice: Random) -> dict[str, Node]:
    """What a power cut may leave of names: nothing new, all, the first few, or any of the changes."""
    changes = directory.changes
    luck = dice.random()
    if luck < 0.2:
        return names_after(directory, ())
    if luck < 0.5:
        return names_after(directory, range(len(changes)))
    if luck < 0.7:
        return names_after(directory, range(dice.randrange(len(changes) + 1)))
    return names_after(directory, [number for number in range(len(changes)) if dice.random() < 0.5])


def names_after(directory: Directory, arrived: Sequence[int]) -> dict[str, Node]:
    """The names on the disk when only these of the changes arrived."""
    entries = dict(directory.disk)
    for number in arrived:
        name(entries, directory.changes[number])
    return entries
