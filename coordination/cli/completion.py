"""How does a shell learn our commands? By a script of its own, which asks ``coord`` at each press of the key."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from coordination.cli._command import verb
from coordination.cli._terminal import tell

_NAME, _VARIABLE = "coord", "_COORD_COMPLETE"


@verb(
    "coord completion bash > ~/.local/share/bash-completion/completions/coord",
    'coord completion zsh > "${fpath[1]}/_coord"',
    "coord completion fish > ~/.config/fish/completions/coord.fish",
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands, options and the ids of tasks.

    Write it where the shell looks for such files, then start a new shell. To try it in bash: eval "$(coord completion
    bash)".
    """
    made = get_completion_class(shell)
    assert made is not None, f"click knows no {shell}"
    tell(made(context.find_root().command, {}, _NAME, _VARIABLE).source().rstrip())
