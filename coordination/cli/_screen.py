"""How does what there is to say fit on one screen? Of everything something, and of nothing everything."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Section:
    """Entries under a title. The first line of an entry stands for it; the others are shown where there is room."""

    title: str
    entries: Sequence[Sequence[str]]
    rest: str  # what lists those that are not shown

    def height(self, shown: int, whole: int) -> int:
        """Lines with ``shown`` entries, of which ``whole`` are shown with all their lines."""
        more = shown < len(self.entries)
        return 2 + shown + more + sum(len(entry) - 1 for entry in self.entries[:whole])

    def lines(self, shown: int, whole: int) -> Iterable[str]:
        """A blank line, the title, and so much of the entries."""
        yield ""
        yield self.title
        for at, entry in enumerate(self.entries[:shown]):
            yield from entry if at < whole else entry[:1]
        if shown < len(self.entries):
            yield f"  … and {len(self.entries) - shown} more: {self.rest}"


def fitted(sections: Iterable[Section], lines_max: int) -> list[str]:
    """Lines of all sections that have entries, at most ``lines_max``, but at least one entry of each.

    Entries are added in turn, one of each section; what room is left is for their other lines, the first section first.
    """
    filled = [section for section in sections if section.entries]
    shown, whole = [1] * len(filled), [0] * len(filled)

    def fits() -> bool:
        heights = (section.height(*sizes) for section, *sizes in zip(filled, shown, whole, strict=True))
        return sum(heights) <= lines_max

    def grown(sizes: list[int], at: int, most: int) -> bool:
        if sizes[at] >= most:
            return False
        sizes[at] += 1
        if fits():
            return True
        if sizes is shown and sizes[at] == most - 1:  # the last one takes the line that says that there is one more
            sizes[at] += 1
            if fits():
                return True
            sizes[at] -= 1
        sizes[at] -= 1
        return False

    growing = True
    while growing:
        growing = False
        for at, section in enumerate(filled):
            growing = grown(shown, at, len(section.entries)) or growing
    for at, section in enumerate(filled):
        while section.entries[whole[at] : shown[at]] and grown(whole, at, shown[at]):
            pass
    return [line for section, *sizes in zip(filled, shown, whole, strict=True) for line in section.lines(*sizes)]
