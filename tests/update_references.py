"""Store what the tests compare with: each notebook's outputs, run as JupyterLab would, and docs/commands.md.

make references        # then read the difference before you commit it
"""

import shutil
import tempfile
from pathlib import Path

import click
import nbformat
from nbclient import NotebookClient

from workbench.cli import cli

ROOT = Path(__file__).resolve().parents[1]


def store_outputs(path: Path) -> None:
    """Execute the notebook in a project of its own and write its outputs into it."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as project:
        shutil.copy(ROOT / "environment.yml", project)
        folder = Path(project) / "notebooks"
        shutil.copytree(path.parent, folder)  # a notebook may run others
        shutil.copytree(ROOT / "params", Path(project) / "params")
        NotebookClient(
            notebook, record_timing=False, coalesce_streams=True, resources={"metadata": {"path": str(folder)}}
        ).execute()
    for cell in notebook.cells:  # TensorFlow's start-up messages tell of the machine, not of the notebook
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:  # pictures are not compared; the text that comes with them is
                output.get("data", {}).pop("image/png", None)
                output.get("metadata", {}).pop("image/png", None)
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


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
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        store_outputs(path)
        print(f"{path.relative_to(ROOT)}: outputs stored")


if __name__ == "__main__":
    main()
