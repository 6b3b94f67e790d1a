"""How does a repository become one that is coordinated?"""

from __future__ import annotations

import click

from coordination.cli._command import verb
from coordination.cli._session import Session
from coordination.cli._terminal import tell


@verb("coord init", "coord -C ~/projects/shop init")
@click.pass_obj
def command(session: Session) -> None:
    """Prepare this repository; harmless when it is prepared already.

    Makes the state directory .coordination with a commented coordination.toml, and hides it from git status. Nothing
    that git tracks is touched. A repository without commits or with a detached HEAD is refused.
    """
    from coordination.coordinator import initialise

    session.refuse_agents()
    home = session.home()
    made = initialise(home)
    tell(f"{'Made' if made else 'Already there:'} {home.state}")
    tell(f"Settings: {home.settings_file} (name gates there: commands that must pass before work lands)")
    tell('Next: coord submit "what is to be done", then coord start')
