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
        folder.mkdir()
        NotebookClient(
            notebook, record_timing=False, coalesce_streams=True, resources={"metadata": {"path": str(folder)}}
        ).execute()
    for cell in notebook.cells:  # TensorFlow's start-up messages tell of the machine, not of the notebook
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.language_info = {"name": "python"}
    nbformat.write(notebook, path)


def commands_page() -> str:
    """docs/commands.md: the help text of every command."""
    parts = [
        "# Commands\n\nExit codes: 0 done, 1 the notebook failed, 2 wrong use, 3 a check refused, 130 interrupted.\n"
    ]
    parent = click.Context(cli, info_name="workbench")
    for name, command in [("", cli), *sorted(cli.commands.items())]:
        context = click.Context(command, info_name=name, parent=parent) if name else parent
        context.terminal_width = context.max_content_width = 100
        title = f"workbench {name}".strip()
        parts.append(f"## {title}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


def main() -> None:
    (ROOT / "docs" / "commands.md").write_text(commands_page(), encoding="utf-8")
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        store_outputs(path)
        print(f"{path.relative_to(ROOT)}: outputs stored")


if __name__ == "__main__":
    main()
