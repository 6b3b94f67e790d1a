"""Where are the folders that come with the package: roles, shared context, scripts?"""

from __future__ import annotations

from pathlib import Path

from coordination.errors import Unsuitable

_PACKAGE = Path(__file__).resolve().parent


def roles() -> Path:
    """The folder whose subfolders are the shipped roles."""
    return folder("agent_workspaces")


def shared_context() -> Path:
    """The folder of what every agent may read."""
    return folder("shared_context")


def folder(name: str) -> Path:
    """Find a shipped folder: inside an installed wheel, else beside the package in a checkout.

    The wheel is asked first: what lies beside an installed package belongs to somebody else. Raises Unsuitable.
    """
    places = [_PACKAGE / "_shipped" / name, _PACKAGE.parent / name]
    for place in places:
        if place.is_dir():
            return place
    tried = " and ".join(str(place) for place in places)
    raise Unsuitable(f"the package is incomplete: expected a folder {name!r}, found none at {tried}. Install it again.")
