"""Kernel code reaches the world through one gate only, so that tests can fail, cut and count every gesture."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import coordination

ROOT = Path(coordination.__file__).parent
KERNEL = [ROOT / "files.py", *sorted((ROOT / "log").glob("*.py")), *sorted((ROOT / "store").glob("*.py"))]
BEYOND = {"os", "time", "fcntl", "mmap", "random", "secrets", "socket", "subprocess", "tempfile", "shutil", "io"}
DOING = {"open", "read_bytes", "read_text", "write_bytes", "write_text", "unlink", "rename", "mkdir", "exists", "stat"}


def imported(tree: ast.AST) -> set[str]:
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("path", KERNEL, ids=lambda path: str(path.relative_to(ROOT)))
def test_kernel_code_touches_the_world_only_through_env(path: Path) -> None:
    """No import of a system module, no ``open`` and no doing method of a path."""
    tree = ast.parse(path.read_text())

    assert imported(tree).isdisjoint(BEYOND)
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [call.id for call in calls if isinstance(call, ast.Name) and call.id == "open"]
    doing = [call for call in calls if isinstance(call, ast.Attribute) and call.attr in DOING]
    assert not [ast.unparse(call) for call in doing if "env" not in ast.unparse(call.value)]
