"""Shell completion, by click's own protocol."""

import os
import sys

import click
from click.shell_completion import get_completion_class, shell_complete

from service.cli.group import Command
from service.errors import Stop

_VARIABLE = "_TALLY_COMPLETE"
_WHERE = {
    "bash": 'eval "$(tally completion bash)"   in ~/.bashrc',
    "zsh": 'eval "$(tally completion zsh)"   in ~/.zshrc',
    "fish": "tally completion fish | source   in ~/.config/fish/config.fish",
}


def answer(root: click.Command) -> None:
    """Answer the shell and exit, if it asks what can follow."""
    if instruction := os.environ.get(_VARIABLE):
        sys.exit(shell_complete(root, {}, "tally", _VARIABLE, instruction))


@click.command(cls=Command, epilog="\b\n" + "\n".join(_WHERE.values()))
@click.argument("shell", type=click.Choice(list(_WHERE)))
def completion(shell: str) -> None:
    """Print the script that completes commands in a shell."""
    found = get_completion_class(shell)
    if found is None:
        raise Stop(f"there is no completion for {shell}; there is for {', '.join(_WHERE)}", exit_code=2)
    root = click.get_current_context().find_root().command
    print(found(root, {}, "tally", _VARIABLE).source())
