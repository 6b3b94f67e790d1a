"""What should a run know beforehand? ``gather`` collects candidates, ``pack`` fits them into a number of tokens.

Gathering reads files; packing is pure: equal candidates and equal room give equal text. Order is rank: what does not
fit is cut from the end, and the text says so. A token is counted as four bytes, which is short of the truth for code
and long for prose; the room is an allowance, not a limit that something breaks at.

Everything packed is data from files. It stands between fences longer than any it contains, so no text can end its
own section and go on as instruction.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from coordination.model.runs import Value
from coordination.reading import NotPlain, plain_bytes

BYTES_MAX = 256 * 1024
FILES_MAX = 200
BYTES_PER_TOKEN = 4
_CUT_BYTES_MIN = 400  # a shorter piece of a file tells nothing
_NOTE_BYTES_MAX = 2048
_SHARED = "shared_context/"

Reader = Callable[[str], bytes | None]
"""Gives the bytes of a repository path at the base commit, or None when there is no such file."""


class Candidate(Value):
    """One text that a run may be given. ``missing`` says why there is none, for the list of what was left out."""

    source: str
    text: str = ""
    missing: str = ""


def tokens(text: str) -> int:
    """How many tokens a text is counted as."""
    return -(-len(text.encode()) // BYTES_PER_TOKEN)


def gather(
    directories: Sequence[Path], *, instructions: bytes | None, entries: Sequence[str], read: Reader
) -> list[Candidate]:
    """Collect in order of rank: the repository's CLAUDE.md, what the task names, the shared context.

    ``directories`` are the folders of shared context, the user's own first: a file there takes the place of one with
    the same path in a later folder. ``instructions`` is the text of CLAUDE.md at the base commit, if it has one.
    ``entries`` are the task's: a path in the repository, else in the shared context. Each source is given once.
    What cannot be read becomes a candidate that says why; a folder that does not exist holds nothing.
    """
    shared = {candidate.source: candidate for folder in reversed(directories) for candidate in _folder(folder)}
    found: dict[str, Candidate] = {}
    if instructions is not None:
        found["CLAUDE.md"] = _candidate("CLAUDE.md", instructions)
    for entry in entries:
        candidate = _named(entry, shared, read)
        found.setdefault(candidate.source, candidate)
    for source in sorted(shared):
        found.setdefault(source, shared[source])
    return list(found.values())


def pack(candidates: Sequence[Candidate], tokens_max: int) -> str:
    """Fit candidates into ``tokens_max`` in their order, and name at the end what was cut or left out. Pure.

    The text, the naming included, never counts more than ``tokens_max``.
    """
    room = tokens_max * BYTES_PER_TOKEN
    text, missing = _fill(candidates, room)
    if not missing:
        return text
    note_room = min(_NOTE_BYTES_MAX, room // 4)
    text, missing = _fill(candidates, room - note_room)
    return text + _note(missing, note_room)


def _fill(candidates: Sequence[Candidate], room: int) -> tuple[str, list[str]]:
    text = ""
    missing = []
    for candidate in candidates:
        section, lacks = _fitted(candidate, room)
        room -= len(section.encode())
        text += section
        if lacks:
            missing.append(f"- {_one_line(candidate.source)}: {lacks}")
    return text, missing


def _fitted(candidate: Candidate, room: int) -> tuple[str, str]:
    """The section of a candidate in so many bytes, and what it lacks."""
    if candidate.missing:
        return "", candidate.missing
    whole = _section(candidate, candidate.text)
    if (length := len(whole.encode())) <= room:
        return whole, ""
    data = candidate.text.encode()
    kept = data[: max(0, room - (length - len(data)))]
    kept = kept[: kept.rfind(b"\n") + 1]
    if len(kept) < _CUT_BYTES_MIN:
        return "", f"left out, {len(data):,} bytes"
    return _section(candidate, kept.decode()), f"cut after {len(kept):,} of {len(data):,} bytes"


def _section(candidate: Candidate, text: str) -> str:
    longest = max(map(len, re.findall("`+", candidate.text)), default=0)
    fence = "`" * max(3, longest + 1)
    end = "" if text.endswith("\n") or not text else "\n"
    return f"### {_one_line(candidate.source)}\n\n{fence}\n{text}{end}{fence}\n\n"


def _note(missing: Sequence[str], room: int) -> str:
    """As many names as fit, and the number of the others."""
    heading = "### Not given in full\n\n"
    for told in range(len(missing), -1, -1):
        rest = [f"- and {len(missing) - told} more"] if told < len(missing) else []
        text = heading + "\n".join([*missing[:told], *rest]) + "\n"
        if len(text.encode()) <= room:
            return text
    return ""


def _one_line(source: str) -> str:
    return source if source.isprintable() else repr(source)


def _candidate(source: str, data: bytes) -> Candidate:
    if len(data) > BYTES_MAX:
        return Candidate(source=source, missing=f"larger than {BYTES_MAX:,} bytes")
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return Candidate(source=source, missing="not UTF-8 text")
    return Candidate(source=source, missing="not text") if "\0" in text else Candidate(source=source, text=text)


def _named(entry: str, shared: dict[str, Candidate], read: Reader) -> Candidate:
    if (data := read(entry)) is not None:
        return _candidate(entry, data)
    absent = Candidate(source=entry, missing="found neither at the base commit nor in the shared context")
    return shared.get(entry) or shared.get(_SHARED + entry) or absent


def _folder(folder: Path) -> Iterator[Candidate]:
    unlisted: list[OSError] = []
    for number, path in enumerate(_paths(folder, unlisted.append)):
        if number == FILES_MAX:
            yield Candidate(source=_SHARED + "…", missing=f"more than {FILES_MAX} files in one folder")
            return
        source = _SHARED + path.relative_to(folder).as_posix()
        try:
            yield _candidate(source, plain_bytes(path, BYTES_MAX))
        except NotPlain:
            yield Candidate(source=source, missing=f"not a plain file of at most {BYTES_MAX:,} bytes")
        except OSError as error:
            yield Candidate(source=source, missing=f"cannot be read: {error.strerror}")
    for refusal in unlisted:
        if not isinstance(refusal, FileNotFoundError):
            source = _SHARED + Path(refusal.filename).relative_to(folder).as_posix()
            yield Candidate(source=source, missing=f"cannot be listed: {refusal.strerror}")


def _paths(folder: Path, unlisted: Callable[[OSError], None]) -> Iterator[Path]:
    """Files in an order that does not depend on the filesystem. Linked directories are not entered."""
    for directory, below, names in os.walk(folder, onerror=unlisted, followlinks=False):
        below[:] = sorted(name for name in below if not name.startswith("."))
        for name in sorted(names):
            path = Path(directory, name)
            if not name.startswith(".") and path != folder / "README.md":
                yield path
