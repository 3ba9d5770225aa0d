"""The commands that keep notebooks from rotting."""

import click

COMMANDS: tuple[click.Command, ...] = ()
