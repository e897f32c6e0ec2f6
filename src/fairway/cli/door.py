"""`fairway door`: what the door's registry section needs."""

from __future__ import annotations

import sys

import click


@click.group()
def door() -> None:
    """Help with what registry files ask of the door."""


@door.command("hash")
def hash_() -> None:
    """Read a password and print its hash for `door.basic_auth` of a registry file.

    It is asked for twice on a terminal, else read as one line from standard input. It is never an argument: others on
    the machine could see it there.
    """
    from fairway.proxy.auth import hash_password

    if sys.stdin.isatty():
        password = str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    else:
        password = sys.stdin.readline().rstrip("\r\n")
    if not password:
        raise click.UsageError("expected a password as one line of standard input, got nothing")
    click.echo(hash_password(password))
