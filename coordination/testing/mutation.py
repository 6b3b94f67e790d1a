"""How is one line of a module taken away, so that one can see who notices?

A mutant replaces one text of one module. It never touches a file: the changed source is compiled when the module is
imported, in a process of its own (``installed``) or as a second module beside the right one (``beside``).
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType

import msgspec


class Mutant(msgspec.Struct, frozen=True, kw_only=True):
    """One rule less."""

    name: str
    rule: str  # what the text is there for, in one sentence
    module: str
    text: str  # stands exactly once in the module
    instead: str


class Outdated(Exception):
    """The text to be replaced does not stand exactly once in its module: the list of mutants has to follow the code."""


def source_of(mutant: Mutant) -> tuple[str, Path]:
    """The changed source and where the right one stands. Raises Outdated."""
    spec = importlib.util.find_spec(mutant.module)
    if spec is None or spec.origin is None:
        raise Outdated(f"{mutant.name}: there is no module {mutant.module}")
    path = Path(spec.origin)
    source = path.read_text(encoding="utf-8")
    if (times := source.count(mutant.text)) != 1:
        raise Outdated(f"{mutant.name}: expected its text once in {mutant.module}, found it {times} times")
    if mutant.text == mutant.instead:
        raise Outdated(f"{mutant.name}: changes nothing")
    return source.replace(mutant.text, mutant.instead), path


def install(mutant: Mutant) -> None:
    """Make every import from now on give the mutant. For a process that does nothing else. Raises Outdated."""
    source, path = source_of(mutant)
    if mutant.module in sys.modules:
        raise RuntimeError(f"{mutant.module} was imported before the mutant {mutant.name} was installed")
    sys.meta_path.insert(0, _Finder(mutant.module, path, compile(source, str(path), "exec")))


def beside(mutant: Mutant) -> ModuleType:
    """The changed module under a name of its own; the right one stays. Raises Outdated."""
    source, path = source_of(mutant)
    module = ModuleType(f"{mutant.module}__{mutant.name.replace('-', '_')}")
    sys.modules[module.__name__] = module  # msgspec looks there for the names in annotations
    exec(compile(source, str(path), "exec"), module.__dict__)  # noqa: S102 -- our own module, one text changed
    return module


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    def __init__(self, module: str, path: Path, code: CodeType) -> None:
        self._module = module
        self._path = path
        self._code = code

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 -- as the protocol wants it
        target: ModuleType | None = None,  # noqa: ARG002 -- same
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self._module:
            return None
        is_package = self._path.name == "__init__.py"
        spec = importlib.machinery.ModuleSpec(fullname, self, origin=str(self._path), is_package=is_package)
        if is_package:
            spec.submodule_search_locations = [str(self._path.parent)]
        return spec

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 -- we find only one
        return self._code

    def get_source(self, fullname: str) -> None:  # noqa: ARG002 -- the text in the file is not what runs
        return None
