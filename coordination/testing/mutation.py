"""How is one rule of a module taken away, and who notices?

A mutant replaces exact texts of modules. It never touches a file: the changed source is compiled when the module is
imported, in a process that does nothing else (``install``), or as a second module beside the right one (``beside``).
A text that does not stand exactly once in its module is an error, so that a list of mutants cannot rot.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import CodeType, ModuleType

import msgspec


class Change(msgspec.Struct, frozen=True):
    """One text of one module, and what stands there instead."""

    module: str
    text: str
    instead: str = ""


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """One rule less."""

    name: str
    rule: str  # what the texts are there for, in one sentence
    changes: tuple[Change, ...]


Search = Callable[[int], str | None]  # given a seed, says what it found wrong; None: nothing


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Who noticed."""

    caught_by: str | None  # the search's name; None: it survived
    how: str
    seconds: float


class Outdated(Exception):
    """A text does not stand exactly once in its module: the list of mutants has to follow the code."""


def sources_of(mutant: Mutant) -> dict[str, tuple[str, Path]]:
    """For each changed module its changed source, and where the right one stands. Raises Outdated."""
    sources: dict[str, tuple[str, Path]] = {}
    for change in mutant.changes:
        source, path = sources.get(change.module) or _source_of(change.module, mutant.name)
        if (times := source.count(change.text)) != 1:
            message = f"{mutant.name}: expected once in {change.module}, found {times} times: {change.text!r}"
            raise Outdated(message)
        if change.text == change.instead:
            raise Outdated(f"{mutant.name}: changes nothing in {change.module}")
        sources[change.module] = source.replace(change.text, change.instead), path
    return sources


def install(mutant: Mutant) -> None:
    """Make every import from now on give the mutant. For a process that does nothing else. Raises Outdated."""
    codes = {name: (path, compile(source, str(path), "exec")) for name, (source, path) in sources_of(mutant).items()}
    if early := sorted(codes.keys() & sys.modules.keys()):
        raise RuntimeError(f"{', '.join(early)}: imported before the mutant {mutant.name} was installed")
    sys.meta_path.insert(0, _Finder(codes))


def beside(mutant: Mutant) -> ModuleType:
    """The one changed module under a name of its own; the right one stays. Raises Outdated."""
    ((name, (source, path)),) = sources_of(mutant).items()
    module = ModuleType(f"{name}__{mutant.name.replace('-', '_')}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # msgspec looks there for the names in annotations
    exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 -- our own module, one text changed
    return module


def judge(searches: Mapping[str, Search], seed: int) -> Verdict:
    """Run the searches against the modules as they were imported, until one finds something."""
    begun = time.monotonic()
    for name, search in searches.items():
        try:
            how = search(seed)
        except Exception as error:  # noqa: BLE001 -- who lacks a rule may fail in any way
            how = f"{type(error).__name__}: {error}"
        if how is not None:
            return Verdict(caught_by=name, how=how, seconds=time.monotonic() - begun)
    return Verdict(caught_by=None, how="", seconds=time.monotonic() - begun)


def _source_of(module: str, mutant: str) -> tuple[str, Path]:
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or spec.origin is None:
        raise Outdated(f"{mutant}: there is no module {module}")
    path = Path(spec.origin)
    return path.read_text(encoding="utf-8"), path


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    def __init__(self, codes: Mapping[str, tuple[Path, CodeType]]) -> None:
        self._codes = codes

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 -- as the protocol wants it
        target: ModuleType | None = None,  # noqa: ARG002 -- same
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in self._codes:
            return None
        origin, _ = self._codes[fullname]
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=str(origin), is_package=origin.stem == "__init__")
        spec.has_location = True
        if spec.submodule_search_locations is not None:
            spec.submodule_search_locations.append(str(origin.parent))
        return spec

    def get_code(self, fullname: str) -> CodeType:
        return self._codes[fullname][1]

    def get_source(self, fullname: str) -> None:  # noqa: ARG002 -- the text in the file is not what runs
        return None
