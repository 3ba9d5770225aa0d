"""Store what the tests compare with: each notebook's outputs, its baseline, and docs/commands.md.

make references        # then read the difference before you commit it
"""

import subprocess
import sys
from pathlib import Path

import click

from workbench.cli import cli

ROOT = Path(__file__).resolve().parents[1]


def commands_page() -> str:
    """docs/commands.md: the help text of every command."""
    parts = [
        "# Commands\n\nExit codes: 0 done, 1 the notebook failed, 2 wrong use, 3 a check refused; 130, 143 and 129 "
        "after SIGINT, SIGTERM and SIGHUP.\n"
    ]
    parts += _help_of(cli, click.Context(cli, info_name="workbench", **cli.context_settings))
    return "\n".join(parts)


def _help_of(command: click.Command, context: click.Context) -> list[str]:
    """A section for the command, then one for each that it groups."""
    context.terminal_width = context.max_content_width = 100
    parts = [f"## {context.command_path}\n\n```\n{command.get_help(context)}\n```\n"]
    for name, member in sorted(command.commands.items()) if isinstance(command, click.Group) else []:
        parts += _help_of(member, click.Context(member, info_name=name, parent=context))
    return parts


def main() -> None:
    (ROOT / "docs" / "commands.md").write_text(commands_page(), encoding="utf-8")
    subprocess.run([Path(sys.executable).parent / "workbench", "test", "--update"], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
