"""Does an installed wheel work without the checkout?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROBE = """
import json, coordination
from coordination import context, roles, shipped
loaded = roles.load([shipped.roles()])
shared = context.gather([shipped.shared_context()], instructions=None, entries=[], read=lambda path: None)
scripts = str(shipped.folder("scripts"))
print(json.dumps([coordination.__file__, sorted(loaded), [one.source for one in shared], scripts]))
"""


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    everything = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"} | environment
    return subprocess.run(
        [*map(str, command)], cwd=cwd, env=everything, capture_output=True, text=True, check=False, timeout=55
    )


def done(result: subprocess.CompletedProcess[str]) -> str:
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel in it, in a path with a space; the libraries are borrowed from ours."""
    place = tmp_path_factory.mktemp("a wheel")
    done(run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", place, ROOT, cwd=place))
    (wheel,) = place.glob("*.whl")
    done(run(sys.executable, "-m", "venv", "--without-pip", place / "venv", cwd=place))
    python = place / "venv/bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    done(run(*pip, wheel, cwd=place))
    return place / "venv"


def test_the_wheel_brings_roles_context_and_scripts(installed: Path, tmp_path: Path) -> None:
    """What is shipped is found inside the installed package, not in a checkout."""
    libraries = sysconfig.get_paths()["purelib"]
    told = done(run(installed / "bin/python", "-c", PROBE, cwd=tmp_path, PYTHONPATH=libraries))
    package, roles, shared, scripts = json.loads(told)
    assert Path(package).is_relative_to(installed)
    assert roles == ["blue", "green", "red"]
    assert shared == ["shared_context/conventions.md"]
    assert Path(scripts) == Path(package).parent / "_shipped/scripts"
    assert (Path(package).parent / "py.typed").exists()


def test_shipped_scripts_use_the_environment_they_are_in(installed: Path, tmp_path: Path) -> None:
    """Scripts of an installed package run its own ``coord`` and install nothing."""
    (scripts,) = installed.glob("lib/python*/site-packages/coordination/_shipped/scripts")
    program = 'set -euo pipefail; . "$1/environment.sh"; prepare ""; printf %s "$COORD"'
    told = done(run("bash", "-c", program, "-", scripts, cwd=tmp_path))
    assert Path(told) == (installed / "bin/coord").resolve()
    assert os.access(told, os.X_OK)
    refused = run(scripts / "test.sh", cwd=tmp_path)
    assert refused.returncode == 2
    assert "need a checkout" in refused.stderr
