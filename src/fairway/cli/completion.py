"""`fairway completion`: what the shell has to load."""

from __future__ import annotations

import click

_WHERE = {
    "bash": 'eval "$(fairway completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(fairway completion zsh)"   # in ~/.zshrc',
    "fish": "fairway completion fish | source   # in ~/.config/fish/config.fish",
}


@click.command(epilog="\b\nTo load it:\n" + "\n".join(f"  {line}" for line in _WHERE.values()))
@click.argument("shell", type=click.Choice(sorted(_WHERE)))
def completion(shell: str) -> None:
    """Print the completion script of a shell."""
    from click.shell_completion import get_completion_class

    from fairway.cli.main import cli

    completer = get_completion_class(shell)
    assert completer is not None
    click.echo(completer(cli, {}, "fairway", "_FAIRWAY_COMPLETE").source())
